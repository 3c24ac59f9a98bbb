//! Datagrams that Weir passes on, under the simulator: they get lost and overtake each other, flows end, cores drain.
#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use sim::{Rig, check};
use weir::io::sim::{Sim, SimDatagrams, World, at};
use weir::io::{Address, DatagramPath, DatagramTrain, Datagrams, Net};

const FRONT: &str = "10.1.0.1:53";
const ENDPOINTS: [&str; 3] = ["10.2.0.1:53", "10.2.0.2:53", "10.2.0.3:53"];

/// Cores take over their sockets when they first run.
const BOUND_AFTER: Duration = Duration::from_millis(200);

fn config(udp: &str) -> String {
    format!("[listen.\"{FRONT}\"]\nudp = {udp}\n[upstream.dns]\nservers = {ENDPOINTS:?}\n")
}

async fn receive(socket: &SimDatagrams) -> std::io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    poll_fn(|cx| {
        socket.poll_receive(cx, &mut |train, _| {
            all.extend(train.datagrams().map(<[u8]>::to_vec))
        })
    })
    .await?;
    Ok(all)
}

fn send(socket: &SimDatagrams, bytes: &[u8], path: Option<&DatagramPath>) {
    socket.send(DatagramTrain::single(&[IoSlice::new(bytes)]), path);
}

type Seen = Rc<RefCell<HashMap<Vec<u8>, usize>>>;

/// Endpoints that echo, and remember which of them got a client's datagrams.
fn start_endpoints(world: &World) -> Seen {
    let seen = Seen::default();
    for (number, address) in ENDPOINTS.into_iter().enumerate() {
        let (net, seen) = (world.client(), seen.clone());
        let socket = net.bind_datagrams(world.listen(&at(address))).unwrap();
        world.spawn(async move {
            loop {
                let mut arrived = Vec::new();
                let received = poll_fn(|cx| {
                    socket.poll_receive(cx, &mut |train, path| {
                        arrived.extend(train.datagrams().map(|bytes| (bytes.to_vec(), path)));
                    })
                });
                if received.await.is_err() {
                    return;
                }
                for (bytes, path) in arrived {
                    let client = bytes[..1].to_vec();
                    let known = *seen.borrow_mut().entry(client).or_insert(number);
                    assert_eq!(known, number, "a client has one endpoint");
                    send(&socket, &bytes, Some(&path));
                }
            }
        });
    }
    seen
}

fn open(net: &Sim) -> SimDatagrams {
    let Address::Ip(front) = at(FRONT) else {
        unreachable!("an address of IP")
    };
    net.connect_datagrams(front).unwrap()
}

#[test]
fn datagrams_of_a_client_reach_one_endpoint_and_come_back() {
    check(100, |world| {
        let lost = world.rng(1).chance(500);
        world.set_faults(|faults| faults.lost_permille = if lost { 100 } else { 0 });
        let rig = Rig::start(world, 2, &config("{ to = \"dns\", idle = \"10s\" }"));
        let seen = start_endpoints(world);
        world.run_for(BOUND_AFTER);
        let clients = world.rng(2).between(1, 12);
        let left = Rc::new(Cell::new(clients));
        for client in 0..clients as u8 {
            let (net, left) = (world.client(), left.clone());
            world.spawn(async move {
                let socket = open(&net);
                for round in 0..20 {
                    send(&socket, &[client, round], None);
                    if lost {
                        net.sleep_until(net.now() + Duration::from_millis(50)).await;
                        continue;
                    }
                    for echo in receive(&socket).await.unwrap() {
                        assert_eq!(echo[0], client);
                    }
                }
                left.set(left.get() - 1);
            });
        }
        world.run_until(|| left.get() == 0);
        assert!(lost || seen.borrow().len() == clients);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn flows_end_after_their_answers_and_after_silence() {
    check(60, |world| {
        let by_answers = world.rng(1).chance(500);
        let udp = match by_answers {
            true => "{ to = \"dns\", idle = \"1h\", replies = 2 }",
            false => "{ to = \"dns\", idle = \"5s\", replies = 0 }",
        };
        let rig = Rig::start(world, 1, &config(udp));
        let _seen = start_endpoints(world);
        world.run_for(BOUND_AFTER);
        let net = world.client();
        world.run(async move {
            let sockets: Vec<_> = (0..10).map(|_| open(&net)).collect();
            for (client, socket) in sockets.iter().enumerate() {
                for _ in 0..2 {
                    send(socket, &[client as u8], None);
                    receive(socket).await.unwrap();
                }
            }
            net.sleep_until(net.now() + Duration::from_secs(8)).await;
        });
        // Only the listener's own socket is left.
        assert_eq!(world.open_connections(0), 1);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_drain_waits_for_flows_and_cuts_them_off() {
    check(60, |world| {
        let rig = Rig::start(world, 1, &config("{ to = \"dns\", idle = \"1h\" }"));
        let _seen = start_endpoints(world);
        world.run_for(BOUND_AFTER);
        let (net, is_draining) = (world.client(), Rc::new(Cell::new(false)));
        let (draining, done) = (is_draining.clone(), Rc::new(Cell::new(false)));
        let is_done = done.clone();
        let ready = Rc::new(Cell::new(false));
        let is_ready = ready.clone();
        world.spawn(async move {
            let socket = open(&net);
            let mut rounds = 0;
            while rounds < 10 {
                send(&socket, &[1], None);
                receive(&socket).await.unwrap();
                is_ready.set(true);
                rounds += usize::from(draining.get());
                net.sleep_until(net.now() + Duration::from_millis(100))
                    .await;
            }
            is_done.set(true);
        });
        world.run_until(|| ready.get());
        is_draining.set(true);
        rig.drain(Duration::from_secs(20));
        world.run_until(|| done.get());
    });
}
