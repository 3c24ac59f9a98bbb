//! How much one poll of a connection's task accepts.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use weir_proto_h2::{Config, Connection};

use super::mux::{Mux, MuxOutcome};
use crate::conn::{Outbox, Wire};
use crate::core::Share;
use crate::io::Net;
use crate::io::sim::{Faults, Peer, Sim, World, at};
use crate::limits::{H2_HEAD_STEP_BYTES, H2_REQUESTS_AT_ONCE_MAX, SHARE_STEPS};

/// The preface, SETTINGS, and `GET http://sim/` on `count` streams.
fn requests(count: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for n in 0..count {
        let mut block = vec![0x82, 0x86, 0x84, 0x01, 3, b's', b'i', b'm'];
        // A field without a name that Weir knows.
        block.extend([0x00, 1, b'x', 120]);
        block.extend([b'v'; 120]);
        block.extend([0x00, 1, b'y', 100]);
        block.extend([b'v'; 100]);
        bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 5]);
        bytes.extend_from_slice(&(2 * n + 1).to_be_bytes());
        bytes.extend_from_slice(&block);
    }
    bytes
}

#[test]
fn one_poll_assigns_a_share_of_the_pending_requests() {
    const COUNT: u32 = 90;
    let frame = requests(2).len() - requests(1).len();
    let most_bytes = SHARE_STEPS as usize * H2_HEAD_STEP_BYTES;
    let world = World::new(1);
    world.set_faults(|faults| *faults = Faults::none());
    let listener = world.listen(&at("10.1.0.1:80"));
    let client = world.client();
    world.spawn(async move {
        let mut peer = Peer::connect(&client, &at("10.1.0.1:80")).await.unwrap();
        peer.send(&requests(COUNT)).await.unwrap();
        let _ = peer.read_to_end().await;
    });
    let net = world.core(0);
    let taken: Rc<RefCell<Vec<usize>>> = Rc::default();
    let log = taken.clone();
    world.start(0, async move {
        let listener = net.listen(listener).unwrap();
        let Wire { mut rx, tx, .. } = Wire::<Sim>::from(net.accept(&listener).await.unwrap());
        let out = Outbox::new(tx, net.pool().clone());
        let machine = Connection::server(Config::default());
        let mux = Mux::new(net.clone(), machine, out);
        let (share, mut unread, mut all, mut read) = (Share::default(), None, 0, 0);
        poll_fn(|cx| {
            share.renew();
            let outcome = mux.advance(cx, &mut rx, &mut unread, &share);
            assert_eq!(outcome, MuxOutcome::Waits);
            let state = mux.state.borrow();
            let bytes = (state.requests.len() - read) * frame;
            assert!(bytes <= most_bytes, "{bytes} bytes of heads");
            read = state.requests.len();
            log.borrow_mut().push(state.assigned - all);
            all = state.assigned;
            match all as u32 {
                COUNT => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        mux.state.borrow_mut().requests.clear();
    });
    world.run_until(|| taken.borrow().iter().sum::<usize>() == COUNT as usize);
    let most = H2_REQUESTS_AT_ONCE_MAX;
    assert!(taken.borrow().iter().all(|&turn| turn <= most), "{taken:?}");
    world.finish();
}
