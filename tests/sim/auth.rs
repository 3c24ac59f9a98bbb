//! Authorization servers for `forward_auth`. They refuse a request with the body that its client expects of the endpoint.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use weir::io::sim::{Peer, Rng, Sim, World, at};
use weir::io::{Net, Tx};

use super::endpoint::Behaviour;
use super::message::{Framing, Head, announce, body_of, frame};

/// Where they listen.
pub const AUTHS: [&str; 2] = ["10.3.0.1:9091", "10.3.0.2:9091"];

/// Whether the server lets a request pass.
pub fn passes(id: u64) -> bool {
    id.is_multiple_of(2)
}

/// Starts authorization servers that misbehave as `behave` says.
pub fn start_auths(world: &World, behave: fn(&mut Rng) -> Behaviour) {
    for address in AUTHS {
        let rng = Rc::new(RefCell::new(world.rng(7)));
        world.endpoint(&at(address), move |peer| serve(peer, rng.clone(), behave));
    }
}

async fn serve(mut peer: Peer<Sim>, rng: Rc<RefCell<Rng>>, behave: fn(&mut Rng) -> Behaviour) {
    let net = peer.net().clone();
    while let Some(head) = Head::read(&mut peer).await {
        assert_eq!(head.framing(Framing::None), Framing::None, "the body stays");
        let id = head.get("x-id").unwrap().parse::<u64>().unwrap();
        let mut rng = rng.borrow_mut().fork();
        let behaviour = behave(&mut rng);
        let pause = Duration::from_millis(rng.below(40) as u64);
        net.sleep_until(net.now() + pause).await;
        match behaviour {
            Behaviour::CloseBefore => return,
            Behaviour::ResetBefore => return peer.reset(),
            Behaviour::Silent => {
                peer.read_to_end().await;
                return;
            }
            _ => {}
        }
        let (status, len) = match passes(id) {
            true => (200, rng.below(2) * rng.size(400_000)),
            // The client expects the answer that its request scripts.
            false => (403, answer_len(&head)),
        };
        let framing = [Framing::Length, Framing::Chunked, Framing::Close][rng.below(3)];
        let mut wire = format!(
            "HTTP/1.1 {status} Whatever\r\nX-Id: {id}\r\nX-Auth: {id}\r\nRemote-User: {id}\r\n{}",
            announce(framing, len)
        );
        if framing == Framing::Close {
            wire += "Connection: close\r\n";
        }
        let mut wire = (wire + "\r\n").into_bytes();
        let mut body = frame(framing, &body_of(id, true, len), &mut rng);
        if matches!(behaviour, Behaviour::ResetWithin | Behaviour::Stall) {
            body.truncate(rng.below(body.len().max(1)));
        }
        wire.extend_from_slice(&body);
        if peer.send(&wire).await.is_err() {
            return;
        }
        match behaviour {
            Behaviour::ResetWithin => return peer.tx.abort(),
            Behaviour::Stall => {
                peer.read_to_end().await;
                return;
            }
            _ if framing == Framing::Close => return,
            _ => {}
        }
    }
}

/// The length of the body that the client expects.
fn answer_len(head: &Head) -> usize {
    let mut words = head.get("x-answer").unwrap().split(' ');
    words.nth(1).unwrap().parse().unwrap()
}
