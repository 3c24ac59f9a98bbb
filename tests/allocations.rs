//! Heap allocations of a proxied request once connections and buffers are warm: none. And what an idle connection holds.
//!
//! A whole core runs on a real ring with the access log on, in a thread whose allocations are counted. Clients and
//! endpoints keep their connections and run in other threads.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "allocations/counting_allocator.rs"]
mod counting_allocator;
mod e2e;
#[path = "allocations/idle.rs"]
mod idle;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use weir::io::ring::{self, Ring};
use weir::io::{ListenSocket, SocketOrigin};
use weir::obs::{AccessLog, LogFormat, Obs};
use weir::plan::{EndpointSets, ListenerId, Plan};
use weir::policy::Registry;
use weir::serving::{self, Command, CoreStart, Mailbox, MailboxSender, SharedState};

use counting_allocator::{CountingAllocator, Tally, count_in};
use e2e::{Authority, DEADLINE, TokenKey, Weir, key_set, tls_to};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Requests of a round. Few, because a busy machine must not pause a client within a round.
const REQUESTS: u64 = 240;

/// The first rounds open connections and allocate blocks. In later rounds a busy machine may pause clients; idle
/// connections then release buffers and allocate them again. One round without either is enough.
const ROUNDS: usize = 100;

/// Allocations that housekeeping may make in a round: a tenth of one per request.
const ALLOCATIONS_MAX: u64 = REQUESTS / 10;

/// The limit over TLS, where rustls allocates twice a request.
const TLS_ALLOCATIONS_MAX: u64 = 2 * REQUESTS + ALLOCATIONS_MAX;

const GET: &str = "GET /users/42/orders?page=2 HTTP/1.1\r\nHost: a.test\r\n\
                   User-Agent: test\r\nAccept: */*\r\nCookie: a=b\r\n\r\n";

#[test]
fn answers_of_known_length_cost_no_allocation() {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    check(GET, &answer, 1);
    check(GET, &answer, 16);
}

#[test]
fn chunked_answers_cost_no_allocation() {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1024)
    );
    check(GET, &answer, 1);
    check(GET, &answer, 16);
}

/// Weir looks up ambiguous paths in each of their readings.
#[test]
fn odd_paths_cost_no_allocation() {
    for path in [
        "/users/42/@scope%2fname%5c;v=1/x",
        "/users/41/./../42//a%252e;x%c0%af",
    ] {
        check(
            &GET.replace("/users/42/orders", path),
            "HTTP/1.1 204 No Content\r\nServer: endpoint\r\n\r\n",
            4,
        );
    }
}

#[test]
fn uploads_cost_no_allocation() {
    let request = format!(
        "POST /users/42/orders HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    check(
        &request,
        "HTTP/1.1 204 No Content\r\nServer: endpoint\r\n\r\n",
        4,
    );
}

/// rustls allocates a vector for each record that it opens and each that it seals: two records a request. Weir adds
/// nothing.
#[test]
fn requests_over_tls_cost_what_rustls_allocates() {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    let (ca, dir) = (Authority::new("authority"), Weir::dir());
    let tls = ca.sign(&["a.test"]).write(&dir, "server");
    let core = Core::start("", endpoint(GET, &answer), Some(tls));
    let connect = tls_to(core.address, &ca);
    let clients = (0..4).map(|_| connect()).collect();
    count(core, clients, GET, TLS_ALLOCATIONS_MAX);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn chains_of_trusted_proxies_cost_no_allocation() {
    let request = GET.replace(
        "Cookie: a=b\r\n",
        "Cookie: a=b\r\nX-Forwarded-For: 192.0.2.7, \"[2001:db8::1]:443\"\r\nX-Forwarded-For: ::ffff:127.0.0.1\r\n\
         X-Forwarded-Proto: https\r\nForwarded: for=\"[2001:db8::1]:443\";host=\"a.test\", for=127.0.0.1\r\nX_Odd: 1\r\n",
    );
    // The answer has a Server and no Date, which Weir renews once a second.
    let answer = "HTTP/1.1 204 No Content\r\nServer: endpoint\r\n\r\n";
    for spelling in ["x-forwarded-for", "forwarded"] {
        let keys = format!("trusted_proxies = \"127.0.0.1\"\nforwarded_header = {spelling:?}");
        check_with(&keys, &request, answer, 4);
    }
}

#[test]
fn rules_for_fields_cost_no_allocation() {
    let keys = "security_headers = true\n\
        headers.request = { remove = [\"Cookie\", \"X-Absent\"], set = { X-Url = \"{scheme}://{host}{path}{query}\", \
        X-Client = \"{client_ip}:{client_port}\", X-Agent = \"{header:User-Agent}\", X-Cookie = \"{cookie:a}\" } }\n\
        headers.response = { remove = \"Server\", set = { X-Served-By = \"{upstream} {endpoint}\" }, \
        add = { Link = [\"<a>\", \"<b>\"] } }";
    let answer = "HTTP/1.1 204 No Content\r\nServer: endpoint\r\n\r\n";
    check_with(keys, GET, answer, 4);
}

/// The first request with a token verifies it; from then on the core knows it. What endpoints get makes no difference:
/// the token or not, and claims in fields.
#[test]
fn known_tokens_cost_no_allocation() {
    let key = TokenKey::new("k");
    let claims = r#""sub":"ann","scope":"read write","roles":["a","b"]"#;
    let token = key.token("https://issuer.test/", claims);
    let answer = "HTTP/1.1 204 No Content\r\nServer: endpoint\r\n\r\n";
    let field = format!("Authorization: Bearer {token}\r\n\r\n");
    let cookie = format!("Cookie: a=b; t={token}; c=d\r\n\r\n");
    for (more, line) in [
        ("forward = true", &field),
        ("require = { scope = \"read\" }", &field),
        (
            "claims_to_headers = { sub = \"X-User\", roles = \"X-Roles\" }",
            &field,
        ),
        ("cookie = \"t\"", &cookie),
    ] {
        let request = GET.replace("Cookie: a=b\r\n\r\n", line);
        let keys = format!(
            "jwt = {{ issuer = \"https://issuer.test/\", audience = \"api\", \
             jwks_url = \"https://issuer.test/keys\", {more} }}"
        );
        let post = |plan: &mut Plan| {
            for board in plan.states.key_boards() {
                let keys = board.source().read_fetched(key_set(&[&key]).as_bytes());
                board.post(keys.unwrap().keys);
            }
        };
        let core = Core::start_with(&keys, endpoint(&request, answer), None, post);
        let clients = (0..4).map(|_| connect(core.address)).collect();
        count(core, clients, &request, ALLOCATIONS_MAX);
    }
}

/// Limits keep no text of what they count by, and write their fields in place.
#[test]
fn limits_cost_no_allocation() {
    let answer = "HTTP/1.1 204 No Content\r\nServer: endpoint\r\n\r\n";
    let keys = "limit = [\"1000000/s per ip\", \"1000000/s per cookie:a + host\"]";
    let ready = |plan: &mut Plan| plan.states.equip(&mut Registry::default());
    let core = Core::start_with(keys, endpoint(GET, answer), None, ready);
    let clients = (0..4).map(|_| connect(core.address)).collect();
    count(core, clients, GET, ALLOCATIONS_MAX);
}

/// Sends requests over `clients` connections at once and counts the core's allocations.
#[track_caller]
fn check(request: &str, answer: &str, clients: u64) {
    check_with("", request, answer, clients);
}

/// Like `check`, with top-level keys.
#[track_caller]
fn check_with(keys: &str, request: &str, answer: &str, clients: u64) {
    let core = Core::start(keys, endpoint(request, answer), None);
    let clients = (0..clients).map(|_| connect(core.address)).collect();
    count(core, clients, request, ALLOCATIONS_MAX);
}

#[track_caller]
fn count<C: Read + Write + Send>(core: Core, mut clients: Vec<C>, request: &str, max: u64) {
    let mut rounds = Vec::new();
    while rounds.len() < ROUNDS && rounds.last().is_none_or(|last| *last > max) {
        let before = core.tally.allocations.load(Ordering::Relaxed);
        assert!(before > 0, "the core's thread is not counted");
        let times = REQUESTS / clients.len() as u64;
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(move || ask(client, request, times));
            }
        });
        rounds.push(core.tally.allocations.load(Ordering::Relaxed) - before);
    }
    core.stop();
    let last = rounds.last().copied();
    assert!(
        last.is_some_and(|last| last <= max),
        "{} clients: allocations by rounds of {REQUESTS} requests: {rounds:?}",
        clients.len()
    );
}

/// A core on its own thread.
struct Core {
    address: SocketAddr,
    sender: MailboxSender<Ring>,
    tally: &'static Tally,
    thread: JoinHandle<()>,
    obs: Obs,
}

impl Core {
    fn start(keys: &str, endpoint: SocketAddr, tls: Option<String>) -> Self {
        Self::start_with(keys, endpoint, tls, |_| {})
    }

    /// Like `start`; `ready` does with the plan what control does otherwise.
    fn start_with(
        keys: &str,
        endpoint: SocketAddr,
        tls: Option<String>,
        ready: impl FnOnce(&mut Plan),
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let text = format!(
            "{keys}\naccess_log = {{ to = \"/dev/null\", request_headers = [\"cookie\", \"accept\"], \
             response_headers = \"content-type\" }}\n[listen.\"{address}\"]\n{}\n[upstream]\napp = \"{endpoint}\"\n\
             [[route]]\nmatch = \"a.test/users/{{id}}/*\"\nto = \"app\"\n",
            tls.map_or_else(String::new, |tls| format!("tls = {{ {tls} }}")),
        );
        let (config, _) = weir_config::parse("test.toml", &text).expect("a good file");
        let mut plan = Plan::compile(&config).unwrap();
        let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
        plan.equip(&weir::tls::load(&config, None, "test.toml").unwrap().0);
        ready(&mut plan);
        let (plan, endpoints) = (Arc::new(plan), Arc::new(endpoints));
        let log = AccessLog::file("/dev/null".into(), LogFormat::Json).unwrap();
        let (obs, sides) = Obs::start(1, (&plan, &endpoints), Some(log)).unwrap();
        let side = sides.into_iter().next().unwrap();
        let tally: &'static Tally = Box::leak(Box::default());
        let (up, is_up) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            count_in(tally);
            let ended = ring::run(|net| async move {
                let (sender, mailbox) = Mailbox::new(&net).unwrap();
                up.send(sender.clone()).unwrap();
                let start = CoreStart {
                    index: 0,
                    plan,
                    endpoints,
                    obs: side,
                    shared: SharedState::new(vec![sender]),
                    seed: 1,
                    sockets: vec![(
                        ListenerId(0),
                        ListenSocket::Tcp(socket, SocketOrigin::Bound),
                    )],
                    mailbox,
                };
                serving::run(net, start).await;
            });
            ended.expect("io_uring is there");
        });
        let sender = is_up.recv().unwrap();
        Self {
            address,
            sender,
            tally,
            thread,
            obs,
        }
    }

    fn stop(self) {
        assert!(self.sender.send(Command::Stop).is_ok());
        self.thread.join().unwrap();
        self.obs.stop();
    }
}

/// Starts an endpoint that gives the same answer to every request over connections that stay open. It looks only at
/// lengths: heads end with an empty line, and bodies are as long as the request's.
fn endpoint(request: &str, answer: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let (body_bytes, answer) = (body.len(), answer.to_owned());
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = listener.accept() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                while read_message(&mut peer, body_bytes) {
                    peer.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

/// Sends requests one after the other.
fn ask(client: &mut (impl Read + Write), request: &str, times: u64) {
    for _ in 0..times {
        client.write_all(request.as_bytes()).unwrap();
        read_answer(client);
    }
}

fn read_answer(client: &mut impl Read) {
    let mut read = Vec::new();
    let mut block = [0; 4096];
    loop {
        let n = client.read(&mut block).unwrap();
        assert!(n > 0, "the connection ended: {}", read.escape_ascii());
        read.extend_from_slice(&block[..n]);
        let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") else {
            continue;
        };
        let (head, body) = (String::from_utf8_lossy(&read[..end]), &read[end + 4..]);
        assert!(head.starts_with("HTTP/1.1 20"), "{head}");
        let is_whole = match head.to_ascii_lowercase() {
            head if head.contains("transfer-encoding: chunked") => body.ends_with(b"\r\n0\r\n\r\n"),
            head if head.contains("content-length: 1024") => body.len() == 1024,
            _ => head.starts_with("HTTP/1.1 204"),
        };
        if is_whole {
            return;
        }
    }
}

/// Reads a head and `body_bytes` more bytes. False if the connection ends first.
fn read_message(peer: &mut TcpStream, body_bytes: usize) -> bool {
    let mut read = Vec::new();
    let mut block = [0; 4096];
    loop {
        match peer.read(&mut block) {
            Ok(0) | Err(_) => return false,
            Ok(n) => read.extend_from_slice(&block[..n]),
        }
        let end = read.windows(4).position(|part| part == b"\r\n\r\n");
        if end.is_some_and(|end| read.len() >= end + 4 + body_bytes) {
            return true;
        }
    }
}
