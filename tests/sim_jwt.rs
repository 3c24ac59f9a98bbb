//! What tokens cost the others: a known one no input or output, a storm of new ones a verification at a time.
#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use sim::message::Head;
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{Faults, Peer, Sim, World, at};
use weir::plan::Plan;
use weir::policy::jwt::{Key, KeySet};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINT: &str = "10.2.0.1:8080";
const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
const GUEST: &str = "GET /free HTTP/1.1\r\nHost: sim\r\n\r\n";
const JWT: &str =
    "jwt = { issuer = \"sim\", audience = \"api\", secret_file = \"/secret\", forward = true }\n";

fn config(jwt: &str) -> String {
    format!(
        "[listen.\"{FRONT}\"]\n[upstream]\napp = \"{ENDPOINT}\"\n\
         [[route]]\nmatch = \"/free\"\nrespond = {{ status = 200, body = \"free\" }}\n\
         [[route]]\nmatch = \"/app\"\nto = \"app\"\n{jwt}"
    )
}

/// A core that knows the key.
fn start<'a>(world: &'a World, jwt: &str) -> Rig<'a> {
    fn post_key(_: &World, plan: &mut Plan) {
        for board in plan.states.key_boards() {
            board.post(KeySet::of(Key::from_secret_file(SECRET, &[]).unwrap()));
        }
    }
    // Receives and sends complete at once, so only the core's own bounds end a turn.
    world.set_faults(|faults| {
        *faults = Faults {
            send_buffer_bytes: 1 << 20,
            receive_buffer_bytes: 1 << 20,
            ..Faults::none()
        }
    });
    world.endpoint(&at(ENDPOINT), |mut peer| async move {
        while Head::read(&mut peer).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere";
            if peer.send(answer).await.is_err() {
                return;
            }
        }
    });
    Rig::start_with(world, (0, 1), &config(jwt), post_key)
}

/// A valid token of its own for each number.
fn token(number: u64) -> String {
    let claims =
        format!("{{\"iss\":\"sim\",\"aud\":\"api\",\"sub\":\"{number}\",\"exp\":99999999999}}");
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}"),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{text}.{signature}")
}

/// A request whose head does not depend on whether it is verified.
fn with_token(number: u64) -> String {
    let token = token(number);
    format!("GET /app HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// Sends a request and reads the answer of four bytes.
async fn ask(peer: &mut Peer<Sim>, request: &str) {
    peer.write(request.as_bytes());
    let head = Head::read(peer).await.unwrap();
    assert!(head.line.contains(" 200 "), "{}", head.line);
    peer.read_exact(4).await.unwrap();
}

/// What 100 requests with a known token cost: turns of the core's tasks, and events of input and output.
fn cost_of_known_token(world: &World, jwt: &str) -> (u64, u64) {
    let rig = start(world, jwt);
    let net = world.client();
    let peer = world.run(async move {
        let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
        for _ in 0..3 {
            ask(&mut peer, &with_token(1)).await;
        }
        peer
    });
    let before = (world.turns(), world.events());
    let peer = world.run(async move {
        let mut peer = peer;
        for _ in 0..100 {
            ask(&mut peer, &with_token(1)).await;
        }
        peer
    });
    let cost = (world.turns() - before.0, world.events() - before.1);
    drop(peer);
    rig.drain(Duration::from_secs(1));
    cost
}

#[test]
fn a_known_token_costs_no_input_or_output() {
    check(4, |world| {
        let plain = World::new(world.seed());
        let of_plain = cost_of_known_token(&plain, "");
        plain.finish();
        let of_token = cost_of_known_token(world, JWT);
        assert_eq!(of_token, of_plain, "turns, and events of input and output");
        assert!(of_plain.0 >= 100 && of_plain.1 >= 800, "{of_plain:?}");
    });
}

/// A storm of new tokens, and a guest that asks for something else, one request after the other. The core verifies one
/// token and then runs everything that waits. A round of the guest takes as long as four of these turns on average,
/// because its request and its answer travel and both ends are woken.
#[test]
fn a_storm_of_new_tokens_delays_others_by_one_verification_a_turn() {
    const STORM: u64 = 200;
    const TURNS_OF_ROUND_MEAN_MAX: u64 = 5;
    const TURNS_OF_ROUND_MAX: u64 = 14;
    check(4, |world| {
        let rig = start(world, JWT);
        let (verified, left) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(STORM)));
        let net = world.client();
        let mut peers = world.run(async move {
            let mut peers = Vec::new();
            for _ in 0..=STORM {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                ask(&mut peer, GUEST).await;
                peers.push(peer);
            }
            peers
        });
        let mut guest = peers.pop().unwrap();
        for (mut peer, number) in peers.into_iter().zip(0..) {
            let (verified, left) = (verified.clone(), left.clone());
            world.spawn(async move {
                ask(&mut peer, &with_token(number)).await;
                verified.set(verified.get() + 1);
                left.set(left.get() - 1);
            });
        }
        let rounds = Rc::new(RefCell::new(Vec::new()));
        let (still, counted) = (left.clone(), rounds.clone());
        world.spawn(async move {
            while still.get() > 0 {
                let before = verified.get();
                ask(&mut guest, GUEST).await;
                counted.borrow_mut().push(verified.get() - before);
            }
        });
        world.run_until(|| left.get() == 0);
        let rounds = rounds.take();
        let most = rounds.iter().max().copied();
        assert!(
            most.is_some_and(|most| most <= TURNS_OF_ROUND_MAX)
                && rounds.len() as u64 >= STORM / TURNS_OF_ROUND_MEAN_MAX,
            "tokens verified in each round of the guest: {rounds:?}"
        );
        rig.drain(Duration::from_secs(1));
    });
}

/// What the core keeps counts as memory of the core, and takes no more than an eighth of it.
#[test]
fn kept_tokens_count_as_memory() {
    for (memory, least, most) in [("64MiB", 300_000, 8 << 20), ("1MiB", 64 << 10, 128 << 10)] {
        check(2, |world| {
            let rig = start(
                world,
                &format!("{JWT}[limits]\nmemory_per_core = {memory:?}\n"),
            );
            let net = world.client();
            let send = async move |mut peer: Peer<Sim>, numbers: std::ops::Range<u64>| {
                for number in numbers {
                    ask(&mut peer, &with_token(number)).await;
                }
                // The core counts once in a tick.
                let tick = peer.net().now() + Duration::from_secs(1);
                peer.net().clone().sleep_until(tick).await;
                peer
            };
            let counted = || world.core(0).pool().taken_bytes();
            let peer = world.run(async move {
                let peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                send(peer, 0..1).await
            });
            let before = counted();
            let peer = world.run(send(peer, 1..1_000));
            let kept = counted() - before;
            assert!((least..=most).contains(&kept), "{kept} bytes");
            // Without the policy, nothing is kept.
            drop(rig.reload(&config("")));
            let peer = world.run(send(peer, 0..1));
            assert!(counted() < before, "{} of {before} bytes", counted());
            drop(peer);
            rig.drain(Duration::from_secs(1));
        });
    }
}
