//! HTTP/2 connections to endpoints that fall silent or were silent for long, in simulated time.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.
mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sim::message::Head;
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{Peer, Sim, World, at};

const CONFIG: &str = r#"
retries = 0
[listen."10.1.0.1:80"]
[upstream]
app = ["h2c://10.2.0.1:8080"]
[[route]]
match = "/*"
to = "app"
"#;

/// An endpoint that answers this many requests and PINGs and then falls silent.
async fn serve(mut peer: Peer<Sim>, mut answers: usize, mut pings: usize) {
    let Ok(preface) = peer.read_exact(24).await else {
        return;
    };
    assert!(preface.starts_with(b"PRI * HTTP/2.0"));
    peer.write(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    loop {
        let Ok(head) = peer.read_exact(9).await else {
            return;
        };
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let Ok(payload) = peer.read_exact(len as usize).await else {
            return;
        };
        let (kind, flags, stream) = (head[3], head[4], &head[5..9]);
        match kind {
            // `:status: 204`, and the end.
            1 if answers > 0 => {
                peer.write(&[&[0, 0, 1, 1, 5], stream, &[0x89]].concat());
                answers -= 1;
            }
            4 if flags == 0 => peer.write(&[0, 0, 0, 4, 1, 0, 0, 0, 0]),
            6 if flags == 0 && pings > 0 => {
                peer.write(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat());
                pings -= 1;
            }
            _ => {}
        }
    }
}

/// The status line that a client gets, and the time that it took.
fn ask(world: &World, method: &'static str) -> (String, Duration) {
    let net = world.client();
    world.run(async move {
        let began = net.now();
        let mut peer = Peer::connect(&net, &at("10.1.0.1:80")).await.unwrap();
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        peer.write(text.as_bytes());
        let head = Head::read(&mut peer).await.expect("an answer");
        (head.line, net.now().since(began))
    })
}

#[test]
fn a_connection_that_was_silent_for_long_takes_the_next_request() {
    check(30, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        let connections = Rc::new(Cell::new(0));
        let count = connections.clone();
        world.endpoint(&at("10.2.0.1:8080"), move |peer| {
            count.set(count.get() + 1);
            serve(peer, usize::MAX, usize::MAX)
        });
        // Longer than an endpoint may leave sent bytes unread, shorter than an idle connection is kept.
        for _ in 0..3 {
            // Weir does not repeat a POST, so the failure shows.
            assert_eq!(ask(world, "POST").0, "HTTP/1.1 204 No Content");
            world.run_for(Duration::from_secs(45));
        }
        assert_eq!(connections.get(), 1);
        rig.drain(Duration::from_secs(1));
    });
}

#[test]
fn an_endpoint_that_gives_no_sign_of_life_is_given_up_with_all_that_was_asked() {
    check(30, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        world.endpoint(&at("10.2.0.1:8080"), |peer| serve(peer, 0, 0));
        let (line, took) = ask(world, "POST");
        assert_eq!(line, "HTTP/1.1 502 Bad Gateway");
        // Ten seconds of silence and fifteen for a PING; `first_byte` alone would be a minute.
        let (least, most) = (Duration::from_secs(24), Duration::from_secs(27));
        assert!(least < took && took < most, "{took:?}");
        rig.drain(Duration::from_secs(1));
    });
}

#[test]
fn an_endpoint_that_falls_silent_after_a_sign_of_life_is_asked_again() {
    check(30, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        world.endpoint(&at("10.2.0.1:8080"), |peer| serve(peer, 0, 1));
        let (line, took) = ask(world, "POST");
        assert_eq!(line, "HTTP/1.1 502 Bad Gateway");
        // Ten seconds of silence before each PING, fifteen for the second.
        let (least, most) = (Duration::from_secs(34), Duration::from_secs(37));
        assert!(least < took && took < most, "{took:?}");
        rig.drain(Duration::from_secs(1));
    });
}
