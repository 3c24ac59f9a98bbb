//! Endpoints that authenticate connections, under random timing: each client gets its own identity or none.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.
mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sim::message::{Head, read_body};
use sim::{Rig, check, message::Framing};
use weir::io::Net;
use weir::io::sim::{Peer, Sim, at};

fn config(connections: usize, idle_ms: usize) -> String {
    format!(
        "[listen.\"10.1.0.1:80\"]\n[upstream.app]\nservers = [\"10.2.0.1:80\", \"10.2.0.2:80\"]\n\
         pool = {{ connections = {connections} }}\ntimeouts = {{ upstream_idle = \"{idle_ms}ms\" }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n"
    )
}

/// Challenges the first client and attributes everything that follows to it. Answers requests without a name and
/// changes nothing.
async fn serve(mut peer: Peer<Sim>, patience: usize) {
    let mut identity: Option<String> = None;
    let mut answers = 0;
    while let Some(head) = Head::read(&mut peer).await {
        let name = head.get("x-me").map(str::to_owned);
        let (status, more) = match (&identity, &name) {
            (None, Some(_)) => (401, "WWW-Authenticate: Negotiate\r\n"),
            _ => (200, ""),
        };
        identity = identity.or(name);
        let body = identity.clone().unwrap_or_else(|| "nobody".to_owned());
        answers += 1;
        let is_last = answers > patience;
        let close = if is_last { "Connection: close\r\n" } else { "" };
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} x\r\n{more}{close}Content-Length: {length}\r\n\r\n{body}");
        if peer.send(answer.as_bytes()).await.is_err() || is_last {
            return;
        }
    }
}

#[test]
fn each_client_has_its_own_identity_or_none() {
    check(60, |world| {
        let mut rng = world.rng(1);
        let mut drawn = || config(1 + rng.below(12), [500, 2_000, 60_000][rng.below(3)]);
        let (first, second) = (drawn(), drawn());
        let cores = 1 + rng.below(2) as u32;
        let rig = Rig::start(world, cores, &first);
        for endpoint in ["10.2.0.1:80", "10.2.0.2:80"] {
            let patience = [3, 10, 1_000][rng.below(3)];
            world.endpoint(&at(endpoint), move |peer| serve(peer, patience));
        }
        let left = Rc::new(Cell::new(16));
        let (challenged, known) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for n in 0..16 {
            let (net, left) = (world.client(), left.clone());
            let (challenged, known) = (challenged.clone(), known.clone());
            let mut rng = rng.fork();
            world.spawn(async move {
                let name = format!("client{n}");
                for _ in 0..4 {
                    let mut peer = Peer::connect(&net, &at("10.1.0.1:80")).await.unwrap();
                    for _ in 0..1 + rng.below(8) {
                        // Some clients never authenticate.
                        let me = match n % 4 {
                            0 => String::new(),
                            _ => format!("X-Me: {name}\r\n"),
                        };
                        peer.write(format!("GET / HTTP/1.1\r\nHost: sim\r\n{me}\r\n").as_bytes());
                        let Some(head) = Head::read(&mut peer).await else {
                            panic!("{name} is answered");
                        };
                        let (body, is_whole) =
                            read_body(&mut peer, &head, head.framing(Framing::None)).await;
                        assert!(is_whole);
                        if head.get("proxy-status").is_some() {
                            continue;
                        }
                        let want = if n % 4 == 0 { "nobody" } else { &name };
                        assert_eq!(String::from_utf8(body).unwrap(), want);
                        let count = match &head.line[9..12] {
                            "401" => &challenged,
                            _ => &known,
                        };
                        count.set(count.get() + 1);
                        let pause = [0, 0, 5, 300, 1_500][rng.below(5)];
                        net.sleep_until(net.now() + Duration::from_millis(pause))
                            .await;
                    }
                    match rng.below(2) {
                        0 => peer.reset(),
                        _ => peer.finish(),
                    }
                }
                left.set(left.get() - 1);
            });
        }
        world.run_for(Duration::from_millis(700));
        let receipts = rig.reload(&second);
        rig.run_until_zero(&left);
        drop(receipts);
        assert!(challenged.get() > 0 && known.get() > 0);
        rig.drain(Duration::from_secs(1));
    });
}
