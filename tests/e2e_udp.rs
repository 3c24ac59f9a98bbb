//! `udp` with real sockets: a double of a DNS server, endpoints that echo, and thousands of flows.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::*;

/// A server that answers each datagram with those that `answer` returns.
struct Server {
    address: SocketAddr,
    received: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, received) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = received.clone();
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65_536];
            while let Ok((n, from)) = socket.recv_from(&mut bytes) {
                count.fetch_add(1, Ordering::Relaxed);
                for datagram in answer(&bytes[..n], from) {
                    let _ = socket.send_to(&datagram, from);
                }
            }
        });
        Self { address, received }
    }

    fn echo() -> Self {
        Self::start(|bytes, _| vec![bytes.to_vec()])
    }

    /// Answers questions for `a.test` with an address: RFC 1035, section 4.
    fn dns() -> Self {
        Self::start(|question, _| {
            let mut answer = question.to_vec();
            // QR and RA; one answer.
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            vec![answer]
        })
    }
}

/// A question for the address of `a.test`.
fn question(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"\x01a\x04test\0\0\x01\0\x01");
    bytes
}

/// A free port for the listener, because port 0 would not be known: standard error names TCP listeners only.
fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn passing(keys: &str, servers: &[&Server]) -> (Weir, SocketAddr) {
    let address = free_port();
    let names: Vec<_> = servers
        .iter()
        .map(|server| server.address.to_string())
        .collect();
    // The first listener is one of TCP, which the rig waits for.
    let weir = Weir::start(&format!(
        "[listen.\"127.0.0.1:0\"]\ntcp = \"up\"\n[listen.\"{address}\"]\n{keys}\n[upstream.up]\nservers = {names:?}\n"
    ));
    (weir, address)
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    let n = socket.recv(&mut bytes).unwrap();
    bytes.truncate(n);
    bytes
}

#[test]
fn a_dns_exchange_ends_its_flow_and_is_counted() {
    let dns = Server::dns();
    let (weir, address) = passing("udp = { to = \"up\", replies = 1 }", &[&dns]);
    for id in 1..=20 {
        let socket = client(address);
        socket.send(&question(id)).unwrap();
        let answer = receive(&socket);
        assert_eq!(answer[..2], id.to_be_bytes());
        assert_eq!(answer[answer.len() - 4..], [192, 0, 2, 7]);
    }
    let listener = format!("{address}/udp");
    let entry = weir.entry_with("version", "UDP");
    assert_eq!(entry.text("listener"), listener);
    assert_eq!(entry.text("endpoint"), dns.address.to_string());
    assert_eq!(entry.number("bytes_in"), question(1).len() as f64);
    assert_eq!(entry.text("reason"), "");
    let metric =
        |name: &str, more: &str| weir.metric(&format!("{name}{{listener=\"{listener}\"{more}}}"));
    eventually("flows to end", || {
        (metric("weir_connections_open", "") == 0.0).then_some(())
    });
    assert_eq!(metric("weir_connections_total", ""), 20.0);
    assert_eq!(
        metric("weir_udp_datagrams_total", ",direction=\"in\""),
        20.0
    );
    assert_eq!(
        metric("weir_udp_datagrams_total", ",direction=\"out\""),
        20.0
    );
    assert_eq!(metric("weir_relay_duration_seconds_count", ""), 20.0);
}

#[test]
fn a_flow_keeps_its_endpoint_and_ends_in_silence() {
    let servers = [Server::echo(), Server::echo(), Server::echo()];
    let all: Vec<_> = servers.iter().collect();
    let (weir, address) = passing("udp = { to = \"up\", idle = \"300ms\" }", &all);
    let clients: Vec<_> = (0..60).map(|_| client(address)).collect();
    for round in 0..4_u8 {
        for (number, socket) in clients.iter().enumerate() {
            socket.send(&[round, number as u8]).unwrap();
            assert_eq!(receive(socket), [round, number as u8]);
        }
    }
    // An empty datagram and the largest that IPv4 carries.
    for bytes in [vec![], vec![7; 65_507]] {
        clients[0].send(&bytes).unwrap();
        assert!(receive(&clients[0]) == bytes);
    }
    for server in &servers {
        let received = server.received.load(Ordering::Relaxed);
        assert!(received >= 4 * 5, "{received} of 240 datagrams");
    }
    let open = format!("weir_connections_open{{listener=\"{address}/udp\"}}");
    eventually("silence to end the flows", || {
        (weir.metric(&open) == 0.0).then_some(())
    });
    let total = format!("weir_connections_total{{listener=\"{address}/udp\"}}");
    assert_eq!(weir.metric(&total), 60.0, "one flow for each client");
}

#[test]
fn a_full_table_drops_the_flow_that_was_silent_longest() {
    let server = Server::echo();
    let (weir, address) = passing("udp = { to = \"up\", sessions = 100 }", &[&server]);
    let busy = client(address);
    let mut ports = HashSet::new();
    for n in 0..3_000_u32 {
        let socket = client(address);
        ports.insert(socket.local_addr().unwrap().port());
        socket.send(&n.to_be_bytes()).unwrap();
        assert_eq!(receive(&socket), n.to_be_bytes());
        if n % 20 == 0 {
            // This flow is never the one that was silent longest.
            busy.send(b"busy").unwrap();
            assert_eq!(receive(&busy), b"busy");
        }
    }
    let metric = |name: &str, more: &str| {
        weir.metric(&format!("{name}{{listener=\"{address}/udp\"{more}}}"))
    };
    assert!(metric("weir_connections_open", "") <= 100.0);
    let evicted = metric("weir_reasons_total", ",reason=\"flow_evicted\"");
    assert!(evicted >= 1_000.0, "{evicted}");
    let busy_port = busy.local_addr().unwrap();
    assert_ne!(busy_port.port(), 0);
    assert!(weir.open_files().len() < 400);
}

#[test]
fn policies_refuse_flows_and_dead_endpoints_end_them() {
    let server = Server::echo();
    let keys = "udp = \"up\"\nip = { deny = [\"127.0.0.9\"] }\nlimit = \"2/h per ip\"";
    let (weir, address) = passing(keys, &[&server]);
    let denied = UdpSocket::bind("127.0.0.9:0").unwrap();
    denied.send_to(b"x", address).unwrap();
    assert_eq!(
        weir.entry_with("reason", "ip_denied").text("version"),
        "UDP"
    );
    for _ in 0..2 {
        let socket = client(address);
        // A limit counts flows, so datagrams of one flow are free.
        for _ in 0..10 {
            socket.send(b"x").unwrap();
            assert_eq!(receive(&socket), b"x");
        }
    }
    client(address).send(b"x").unwrap();
    assert_eq!(
        weir.entry_with("reason", "rate_limit").text("policy"),
        "limit"
    );
    let dropped = format!("weir_udp_dropped_total{{listener=\"{address}/udp\",cause=\"refused\"}}");
    eventually("drops", || (weir.metric(&dropped) >= 2.0).then_some(()));
    let dead = Server {
        address: free_port(),
        received: Arc::default(),
    };
    let (weir, address) = passing("udp = \"up\"", &[&dead]);
    let socket = client(address);
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    socket.send(b"x").unwrap();
    let entry = weir.entry_with("reason", "connect_failed");
    assert_eq!(entry.text("errno"), "ECONNREFUSED");
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let server = Server::echo();
    let port = UdpSocket::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let weir = Weir::start(&format!(
        "[listen.\"127.0.0.1:0\"]\ntcp = \"up\"\n[listen.\"0.0.0.0:{port}\"]\nudp = \"up\"\n\
         [upstream.up]\nservers = [\"{}\"]\n",
        server.address
    ));
    for ip in ["127.0.0.1", "127.0.0.5"] {
        // A connected socket receives from this address only.
        let socket = client(format!("{ip}:{port}").parse().unwrap());
        socket.send(b"who").unwrap();
        assert_eq!(receive(&socket), b"who");
    }
    drop(weir);
}

/// Datagrams that arrive together go on together, and arrive as they were sent. The second Weir gets from the first what the
/// system has joined.
#[test]
fn datagrams_that_travel_together_stay_apart() {
    let server = Server::echo();
    let (_second, address) = passing("udp = \"up\"", &[&server]);
    let second = Server {
        address,
        received: Arc::default(),
    };
    let (weir, address) = passing("udp = \"up\"", &[&second]);
    let socket = client(address);
    let lengths = [
        &[100; 20][..],
        &[100, 100, 40, 100],
        &[0, 0, 1, 0],
        &[1_200; 30],
        &[1_200, 1_201, 7],
        &[65_507, 9, 30_000, 30_000, 30_000],
        &[4_000; 9],
    ];
    for lengths in lengths {
        let sent: Vec<Vec<u8>> = (0..)
            .zip(lengths)
            .map(|(n, &length)| (0..length).map(|at| (at * 7 + n) as u8).collect())
            .collect();
        weir.while_stopped(|| {
            for datagram in &sent {
                socket.send(datagram).unwrap();
            }
        });
        for datagram in &sent {
            let got = receive(&socket);
            assert!(got == *datagram, "{} of {}", got.len(), datagram.len());
        }
    }
}

#[test]
fn a_flow_gets_no_more_answers_than_it_may_have() {
    let chatty = Server::start(|_, _| (0..6).map(|n| vec![n; 50]).collect());
    let (weir, address) = passing("udp = { to = \"up\", replies = 2 }", &[&chatty]);
    let socket = client(address);
    socket.send(b"x").unwrap();
    assert_eq!(
        (receive(&socket), receive(&socket)),
        (vec![0; 50], vec![1; 50])
    );
    let entry = weir.entry_with("version", "UDP");
    assert_eq!(entry.number("bytes_out"), 100.0);
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(socket.recv(&mut [0; 50]).is_err());
}

#[test]
fn an_endpoint_that_refuses_datagrams_is_ejected() {
    let server = Server::echo();
    let dead = Server {
        address: free_port(),
        received: Arc::default(),
    };
    let (weir, address) = passing("udp = \"up\"", &[&dead, &server]);
    for _ in 0..60 {
        let socket = client(address);
        socket.send(b"x").unwrap();
        // Weir learns of the refusal before it sends the next datagram of the flow.
        std::thread::sleep(Duration::from_millis(2));
        socket.send(b"y").unwrap();
    }
    weir.wait_for("is ejected for 30 s: requests fail (connect)");
    for _ in 0..20 {
        let socket = client(address);
        socket.send(b"x").unwrap();
        assert_eq!(receive(&socket), b"x");
    }
}
