//! `limit` and `concurrency` are one limit for all cores.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::message::Head;
use sim::{Rig, check};
use weir::io::sim::{Peer, Sim, World, at};
use weir::io::{Instant, Net};

const FRONT: &str = "10.1.0.1:80";

/// Asks for `path` with this key, and returns status and head.
async fn ask(peer: &mut Peer<Sim>, path: &str, key: &str) -> Option<(u16, Head)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: sim\r\nX-Key: {key}\r\n\r\n");
    peer.send(request.as_bytes()).await.ok()?;
    let head = Head::read(peer).await?;
    let length = head
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    peer.read_exact(length).await.ok()?;
    let status = head.line.split(' ').nth(1)?.parse().ok()?;
    Some((status, head))
}

/// Asks once on a connection of its own.
fn ask_once(world: &World, path: &'static str, key: &'static str) -> (u16, Head) {
    let net = world.client();
    world.run(async move {
        let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
        ask(&mut peer, path, key).await.unwrap()
    })
}

/// When requests that the limit admitted were sent and answered.
type Admitted = Rc<RefCell<Vec<(Instant, Instant)>>>;

/// Clients that ask for a second: at once again after an answer, and a little later after a refusal.
fn run_greedy_clients(world: &World, cores: u32, count: u64) -> (Admitted, Instant) {
    let admitted = Admitted::default();
    let left = Rc::new(Cell::new(count));
    let end = world.now() + Duration::from_secs(1);
    for client in 0..count {
        let (net, admitted, left) = (world.client(), admitted.clone(), left.clone());
        let mut rng = world.rng(client);
        world.spawn(async move {
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            loop {
                let sent = net.now();
                if sent >= end {
                    break;
                }
                let (status, head) = ask(&mut peer, "/", "same").await.unwrap();
                if status == 200 {
                    admitted.borrow_mut().push((sent, net.now()));
                    continue;
                }
                assert_eq!((status, head.get("retry-after")), (429, Some("1")));
                let pause = Duration::from_micros(rng.between(1_000, 5_000) as u64);
                net.sleep_until(net.now() + pause).await;
            }
            left.set(left.get() - 1);
        });
    }
    let mut cores = vec![false; cores as usize];
    world.run_until(|| {
        for (core, is_busy) in (0..).zip(&mut cores) {
            *is_busy |= world.accepted_connections(core) > 0;
        }
        left.get() == 0
    });
    let busy = cores.iter().filter(|is_busy| **is_busy).count();
    assert!(busy > 1 || cores.len() == 1, "only one core served");
    (admitted, end)
}

#[test]
fn cores_together_admit_the_rate_and_no_more() {
    const RATE: f64 = 500.0;
    const BURST: f64 = 256.0;
    const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
[[route]]
match = "/"
respond = "yes"
limit = "500/s per header:x-key, burst 256"
"#;
    // As `config/policies.md` states it.
    for (cores, batch) in [(1, 10.0), (2, 10.0), (8, 4.0)] {
        check(3, |world| {
            world.set_steps_max(20_000_000);
            let rig = Rig::start(world, cores, CONFIG);
            let begin = world.now();
            let (admitted, end) = run_greedy_clients(world, cores, 16);
            let admitted = admitted.borrow();

            let bound = BURST + f64::from(cores) * batch;
            for (index, (from, _)) in admitted.iter().enumerate().step_by(50) {
                let later = admitted.iter().skip(index).filter(|(sent, _)| sent >= from);
                let mut answers: Vec<_> = later.map(|(_, answered)| *answered).collect();
                answers.sort();
                for (count, until) in (1..).zip(&answers) {
                    let most = bound + RATE * until.since(*from).as_secs_f64();
                    assert!(
                        f64::from(count) <= most,
                        "{count} of {most} on {cores} cores"
                    );
                }
            }
            let seconds = end.since(begin).as_secs_f64();
            let error = (RATE * seconds * 0.01).max(f64::from(cores) * batch);
            let least = BURST + RATE * seconds - error - 16.0;
            let count = admitted.len() as f64;
            assert!(count >= least, "{count}, at least {least} on {cores} cores");
            rig.drain(Duration::from_secs(30));
        });
    }
}

const SLOW: &str = r#"
[listen."10.1.0.1:80"]
[[route]]
name = "one"
match = "/"
respond = "yes"
limit = "RATE per header:x-key, burst BURST"
"#;

fn slow(rate: &str, burst: &str) -> String {
    SLOW.replace("RATE", rate).replace("BURST", burst)
}

#[test]
fn a_reload_keeps_what_is_left_and_a_changed_limit_what_is_missing() {
    check(20, |world| {
        let cores = [1, 2, 8][world.seed() as usize % 3];
        let rig = Rig::start(world, cores, &slow("1/m", "4"));
        let status = || ask_once(world, "/", "a").0;
        assert_eq!([status(), status(), status()], [200; 3]);
        world.run(rig.reload(&slow("1/m", "4")).all());
        assert_eq!([status(), status()], [200, 429]);
        // Four are missing still, so two of six are there.
        world.run(rig.reload(&slow("2/m", "6")).all());
        assert_eq!([status(), status(), status()], [200, 200, 429]);
        assert_eq!(ask_once(world, "/", "b").0, 200);
        // A smaller bucket cannot lack more than all.
        world.run(rig.reload(&slow("2/m", "1")).all());
        assert_eq!(status(), 429);
        world.run_for(Duration::from_secs(30));
        assert_eq!([status(), status()], [200, 429]);
        // Another name is another limit.
        let renamed = slow("2/m", "1").replace("\"one\"", "\"two\"");
        world.run(rig.reload(&renamed).all());
        assert_eq!(status(), 200);
        rig.drain(Duration::from_secs(5));
    });
}

#[test]
fn all_limits_have_to_let_a_request_pass_and_a_refusal_counts_for_none() {
    const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
limit = { rate = "7/h", per = "global", name = "listener" }
[policy.shared]
limit = { rate = "4/h", per = "global", name = "shared" }
[[route]]
match = "/a"
respond = "a"
use = "shared"
limit = { rate = "2/h", per = "header:x-key", name = "own" }
[[route]]
match = "/b"
respond = "b"
use = "shared"
"#;
    check(20, |world| {
        let rig = Rig::start(world, 1 + (world.seed() % 3) as u32, CONFIG);
        let standing = |path, key| {
            let (status, head) = ask_once(world, path, key);
            let text = head.get("ratelimit").unwrap_or("none").to_owned();
            (status, text)
        };
        let (status, text) = standing("/a", "x");
        assert_eq!((status, text.as_str()), (200, "\"own\";r=1;t=1800"));
        let (status, text) = standing("/a", "x");
        assert_eq!(status, 200);
        assert!(text.starts_with("\"own\";r=0;t=3"), "{text}");
        // Refused by its own limit, so `shared` still has two.
        assert_eq!(standing("/a", "x").0, 429);
        let (status, text) = standing("/b", "x");
        assert_eq!(status, 200);
        assert!(text.starts_with("\"shared\";r=1;"), "{text}");
        assert_eq!(standing("/a", "y").0, 200);
        // Now `shared` refuses, and key z loses nothing of its own.
        let (status, text) = standing("/a", "z");
        assert_eq!(status, 429);
        assert!(text.starts_with("\"shared\";r=0;"), "{text}");
        // The listener has counted seven, whatever became of them, and counts requests without a route.
        let (status, text) = standing("/none", "z");
        assert_eq!(status, 404);
        assert!(text.starts_with("\"listener\";r=0;"), "{text}");
        let (status, text) = standing("/none", "z");
        assert_eq!(status, 429);
        assert!(text.starts_with("\"listener\";r=0;"), "{text}");
        rig.drain(Duration::from_secs(5));
    });
}

/// Requests that are in an endpoint at the same time.
#[derive(Default)]
struct Inside {
    now: Cell<u32>,
    most: Cell<u32>,
}

#[test]
fn so_many_requests_at_once_over_all_cores_however_they_end() {
    const MOST: u32 = 3;
    const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
[upstream]
app = "10.2.0.1:8080"
[[route]]
match = "/*"
to = "app"
concurrency = "3 per header:x-key"
"#;
    check(30, |world| {
        let cores = [1, 2, 8][world.seed() as usize % 3];
        let rig = Rig::start(world, cores, CONFIG);
        let inside = Rc::new(Inside::default());
        let seen = inside.clone();
        world.endpoint(&at("10.2.0.1:8080"), move |mut peer| {
            let inside = seen.clone();
            async move {
                while peer.read_until(b"\r\n\r\n").await.is_ok() {
                    inside.now.set(inside.now.get() + 1);
                    inside.most.set(inside.most.get().max(inside.now.get()));
                    let net = peer.net().clone();
                    net.sleep_until(net.now() + Duration::from_millis(20)).await;
                    inside.now.set(inside.now.get() - 1);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if peer.send(answer).await.is_err() {
                        break;
                    }
                }
            }
        });
        let (left, refused) = (Rc::new(Cell::new(24)), Rc::new(Cell::new(0)));
        for n in 0..24 {
            let (net, left, refused) = (world.client(), left.clone(), refused.clone());
            let mut rng = world.rng(n);
            world.spawn(async move {
                for _ in 0..6 {
                    let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                    if rng.below(4) == 0 {
                        // Leaves in the middle.
                        peer.send(b"GET / HTTP/1.1\r\nHost: sim\r\nX-Key: a\r\n\r\n")
                            .await
                            .unwrap();
                        let pause = Duration::from_millis(rng.below(30) as u64);
                        net.sleep_until(net.now() + pause).await;
                        peer.reset();
                        continue;
                    }
                    let (status, head) = ask(&mut peer, "/", "a").await.unwrap();
                    if status == 429 {
                        assert_eq!(head.get("retry-after"), Some("1"));
                        assert!(
                            head.get("proxy-status")
                                .unwrap()
                                .contains("concurrency_limit")
                        );
                        refused.set(refused.get() + 1);
                    }
                    let pause = Duration::from_millis(rng.below(15) as u64);
                    net.sleep_until(net.now() + pause).await;
                }
                left.set(left.get() - 1);
            });
        }
        world.run_until(|| left.get() == 0);
        assert!(refused.get() > 0);
        world.run_for(Duration::from_secs(1));
        // A client that leaves gives its place to the next before the endpoint notices, so the endpoint may see more
        // at once; without such clients it sees at most three, and each place is free again.
        inside.most.set(0);
        let left = Rc::new(Cell::new(0));
        for _ in 0..MOST {
            let (net, left) = (world.client(), left.clone());
            left.set(left.get() + 1);
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                let (status, _) = ask(&mut peer, "/", "a").await.unwrap();
                assert_eq!(status, 200);
                left.set(left.get() - 1);
            });
        }
        rig.run_until_zero(&left);
        assert_eq!(inside.most.get(), MOST);
        rig.drain(Duration::from_secs(5));
    });
}
