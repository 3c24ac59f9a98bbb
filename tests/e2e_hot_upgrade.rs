//! Upgrades of the running binary: a new process takes over the sockets, and no client notices.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{
    Authority, Conn, DEADLINE, Endpoint, Load, Message, Weir, eventually, get, ok, route_to,
    run_weir, tls_config, tls_connect,
};
use peers::{Body, Client, Protocol, request, run};
use rustix::process::{Pid, Signal, kill_process};
use tokio_rustls::rustls::{DEFAULT_VERSIONS, HandshakeKind};
use tungstenite::Message as Frame;

/// A Weir whose binary a test may replace, and the processes that follow it.
struct Upgradable {
    weir: Weir,
    /// The process that serves.
    pid: Pid,
}

impl Upgradable {
    /// Starts a Weir by a link in `dir` to the binary.
    fn start(dir: &Path, config: &str) -> Self {
        Self::start_with(dir, config, &[])
    }

    fn start_with(dir: &Path, config: &str, variables: &[(&str, &str)]) -> Self {
        let program = dir.join("weir");
        symlink(e2e::binary(), &program).unwrap();
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        let weir = Weir::start_with_command(dir, config, command);
        let pid = Pid::from_raw(weir.pid() as i32).unwrap();
        Self { weir, pid }
    }

    /// Upgrades, and waits until the new process serves.
    fn upgrade(&mut self) {
        let old = self.pid;
        kill_process(old, Signal::USR2).unwrap();
        let this = "this process drains";
        let is_of = format!("serves in place of process {}", old.as_raw_nonzero());
        self.weir.wait_for(&is_of);
        let pid = self.weir.stderr.wait(this, |line| {
            let (_, rest) = line.split_once("upgrade: process ")?;
            let pid: i32 = rest.split(' ').next()?.parse().ok()?;
            (pid != old.as_raw_nonzero().get()).then_some(pid)
        });
        self.pid = Pid::from_raw(pid).unwrap();
    }

    /// Waits until a process has ended.
    fn wait_for_end(&self, pid: Pid) {
        eventually("the old process ends", || {
            // The first process stays as a zombie, because the test does not wait for it yet.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            let state = stat
                .ok()
                .and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
            matches!(state, None | Some('Z')).then_some(())
        });
    }
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// Requests over HTTP/1.1, on connections that are kept until an answer ends them.
fn start_http1(weir: SocketAddr, load: Load, is_kept: bool) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut conn: Option<Conn> = None;
        while load.goes_on() {
            let mut client = conn.take().unwrap_or_else(|| Conn::to(weir));
            client.send(get("/load"));
            let answer = client.response();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
            load.count();
            if is_kept && answer.field("Connection") != Some("close") {
                conn = Some(client);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

/// Requests over HTTP/2, on connections that are kept until the server ends them.
fn start_http2(weir: SocketAddr, load: Load) -> JoinHandle<()> {
    std::thread::spawn(move || {
        run(async {
            let mut client = Client::connect(Protocol::Http2, weir).await;
            while load.goes_on() {
                if client.ready().await.is_err() {
                    client = Client::connect(Protocol::Http2, weir).await;
                    continue;
                }
                let asked = client.send(request("GET", "/load").body(Body::empty()).unwrap());
                match asked.await {
                    Ok(answer) => assert_eq!(answer.status(), 200),
                    // Sent when the connection had ended already; the client may send it again.
                    Err(error) if error.is_canceled() => continue,
                    Err(error) => panic!("{error:?}"),
                }
                load.count();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    })
}

#[test]
fn upgrades_twice_under_load_fail_no_request() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let dir = Weir::dir();
    let config = format!(
        "cores = 2\naccess_log = \"off\"\n{}",
        route_to(&[&endpoint])
    );
    let mut weir = Upgradable::start(&dir, &config);
    let load = Load::default();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(start_http1(weir.weir.address, load.clone(), true));
        clients.push(start_http1(weir.weir.address, load.clone(), false));
        clients.push(start_http2(weir.weir.address, load.clone()));
    }
    load.wait_for(100);
    for _ in 0..2 {
        let old = weir.pid;
        weir.upgrade();
        load.wait_for(100);
        weir.wait_for_end(old);
        load.wait_for(100);
    }
    load.end();
    for client in clients {
        client.join().expect("no request failed");
    }
    println!("{} exchanges", load.exchanges());
    assert_eq!(weir.weir.admin("/readyz").status(), 200);
}

/// Datagrams that an endpoint sends back, on one flow (`is_kept`) or on a new one each. Fails if one is lost.
fn start_udp(weir: SocketAddr, load: Load, is_kept: bool) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let open = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(weir).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        };
        let (mut socket, mut number) = (open(), 0_u32);
        while load.goes_on() {
            if !is_kept {
                socket = open();
            }
            number += 1;
            socket.send(&number.to_be_bytes()).unwrap();
            let mut answer = [0; 4];
            socket.recv(&mut answer).expect("no datagram is lost");
            assert_eq!(answer, number.to_be_bytes());
            load.count();
        }
    })
}

#[test]
fn upgrades_lose_no_datagram() {
    let endpoint = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = endpoint.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((n, from)) = endpoint.recv_from(&mut bytes) {
            let (endpoint, bytes) = (endpoint.try_clone().unwrap(), bytes[..n].to_vec());
            if bytes == b"late" {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(800));
                    endpoint.send_to(b"answer", from).unwrap();
                });
            } else {
                endpoint.send_to(&bytes, from).unwrap();
            }
        }
    });
    let dir = Weir::dir();
    let address = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = {
        let free = address.local_addr().unwrap();
        drop(address);
        free
    };
    let mut weir = Upgradable::start(
        &dir,
        &format!(
            "cores = 2\naccess_log = \"off\"\n[listen.\"127.0.0.1:0\"]\ntcp = \"up\"\n\
             [listen.\"{address}\".udp]\nto = \"up\"\nidle = \"2s\"\n[upstream.up]\nservers = [\"{to}\"]\n"
        ),
    );
    let load = Load::default();
    let clients: Vec<_> = (0..6)
        .map(|n| start_udp(address, load.clone(), n % 2 == 0))
        .collect();
    load.wait_for(100);
    for _ in 0..2 {
        let late = UdpSocket::bind("127.0.0.1:0").unwrap();
        late.set_read_timeout(Some(DEADLINE)).unwrap();
        late.send_to(b"late", address).unwrap();
        let old = weir.pid;
        weir.upgrade();
        let mut answer = [0; 6];
        late.recv(&mut answer)
            .expect("an answer on a flow of the old process");
        assert_eq!(&answer, b"answer");
        load.wait_for(100);
        weir.wait_for_end(old);
        load.wait_for(100);
    }
    load.end();
    for client in clients {
        client.join().expect("no datagram was lost");
    }
}

#[test]
fn long_exchanges_finish_on_the_old_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut socket = tungstenite::accept(stream).unwrap();
            while let Ok(frame) = socket.read() {
                if frame.is_text() {
                    socket.send(frame).unwrap();
                }
            }
        }
    });
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let slow = Endpoint::script(move |conn| {
        while conn.next_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            released.lock().unwrap().recv().unwrap();
            conn.send("hello");
        }
    });
    let dir = Weir::dir();
    let config = format!(
        "[upstream.sockets]\nservers = [\"{sockets}\"]\n[[route]]\nmatch = \"/socket\"\nto = \"sockets\"\n{}",
        route_to(&[&slow])
    );
    let mut weir = Upgradable::start(&dir, &config);
    let stream = TcpStream::connect(weir.weir.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut socket, _) = tungstenite::client("ws://weir.test/socket", stream).unwrap();
    let mut client = weir.weir.connect();
    client.send(get("/slow"));
    let head = client.message_head();
    assert_eq!(head.status(), 200);
    let old = weir.pid;
    weir.upgrade();
    for n in 0..20 {
        let frame = Frame::text(format!("message {n}"));
        socket.send(frame.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), frame);
    }
    release.send(()).unwrap();
    assert_eq!(client.take(10), b"hellohello");
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    drop(socket);
    weir.wait_for_end(old);
    assert_eq!(weir.weir.admin("/healthz").status(), 200);
}

#[test]
fn a_new_process_that_does_not_come_up_changes_nothing() {
    let dir = Weir::dir();
    let answer = "[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n";
    let token = dir.join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let config = format!(
        "admin = {{ address = \"127.0.0.1:0\", token_file = \"{}\" }}\n{answer}",
        token.display()
    );
    let weir = Upgradable::start(&dir, &config);
    let upgrade = || {
        let admin = weir.weir.admin.to_string();
        run_weir(&[
            "upgrade",
            "--admin",
            &admin,
            "--token-file",
            token.to_str().unwrap(),
        ])
    };
    let file = dir.join("weir.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("{good}[[route]]\nmatch = \"/v\"\nto = \"nowhere\"\n"),
    )
    .unwrap();
    let (code, said) = upgrade();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("nowhere") && said.contains("the old process goes on"),
        "{said}"
    );
    weir.weir.wait_for("upgrade failed, this process goes on");
    std::fs::write(&file, good).unwrap();

    // A program that does not speak to the old process.
    let program = dir.join("weir");
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = upgrade();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it has ended without serving"), "{said}");
    std::fs::remove_file(&program).unwrap();
    let (code, said) = upgrade();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot start"), "{said}");

    // The process has reaped its children, and still serves and reloads.
    let children = format!("/proc/{0}/task/{0}/children", weir.weir.pid());
    assert_eq!(std::fs::read_to_string(children).unwrap(), "");
    assert_eq!(weir.weir.ask(get("/")).text(), "here");
    assert_eq!(weir.weir.admin("/healthz").status(), 200);

    symlink(e2e::binary(), &program).unwrap();
    let (code, said) = upgrade();
    assert_eq!(code, Some(0), "{said}");
    let pid = said.strip_prefix("process ").unwrap().split(' ').next();
    let mut weir = weir;
    weir.pid = Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap();
    assert_eq!(weir.weir.ask(get("/")).text(), "here");
}

#[test]
fn sessions_resume_and_persisting_changes_last_in_the_new_process() {
    let dir = Weir::dir();
    let authority = Authority::new("upgrade");
    let cert = authority.sign(&["a.test"]).write(&dir, "a");
    let token = dir.join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let config = format!(
        "admin = {{ address = \"127.0.0.1:0\", token_file = \"{}\" }}\n\
         [listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n{}",
        token.display(),
        route_to(&[&endpoint])
    );
    let mut weir = Upgradable::start(&dir, &config);
    let client = Arc::new(tls_config(&authority.pem, DEFAULT_VERSIONS));
    let ask = || {
        let mut stream = tls_connect(weir.weir.address, client.clone());
        let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream.conn.handshake_kind()
    };
    assert_eq!(ask(), Some(HandshakeKind::Full));
    assert_eq!(ask(), Some(HandshakeKind::Resumed));
    let admin = weir.weir.admin.to_string();
    let access = [
        "--admin",
        admin.as_str(),
        "--token-file",
        token.to_str().unwrap(),
    ];
    let operate = |arguments: &[&str]| {
        let (code, said) = run_weir(&[arguments, &access].concat());
        assert_eq!(code, Some(0), "{said}");
        said
    };
    operate(&[
        "upstream",
        "add",
        "up",
        "127.0.0.9:9",
        "--weight",
        "0",
        "--persist",
    ]);
    operate(&["upstream", "add", "up", "127.0.0.9:10", "--weight", "0"]);
    let old = weir.pid;
    let said = operate(&["upgrade"]);
    let pid = said.strip_prefix("process ").unwrap().split(' ').next();
    let new = Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap();
    assert_eq!(ask(), Some(HandshakeKind::Resumed));
    let listed = operate(&["upstream", "list"]);
    assert!(listed.contains("127.0.0.9:9"), "{listed}");
    assert!(!listed.contains("127.0.0.9:10"), "{listed}");
    weir.pid = new;
    weir.wait_for_end(old);
}

/// Asks over a Unix socket.
fn ask_unix(path: &Path) -> Message {
    let mut client = Conn::to_unix(path);
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\n");
    client.response()
}

#[test]
fn sockets_with_files_the_pid_file_and_the_service_manager_follow_the_new_process() {
    let dir = Weir::dir();
    let (socket, pid_file) = (dir.join("s"), dir.join("weir.pid"));
    let notify = dir.join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let notice = || {
        let mut bytes = [0; 4096];
        let n = manager.recv(&mut bytes).expect("a notice comes");
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    };
    let config = format!(
        "pid_file = \"{}\"\n[listen.\"127.0.0.1:0\"]\n[listen.\"unix:{}\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n",
        pid_file.display(),
        socket.display()
    );
    let variables = [("NOTIFY_SOCKET", notify.to_str().unwrap())];
    let mut weir = Upgradable::start_with(&dir, &config, &variables);
    assert!(notice().starts_with("READY=1"));
    for _ in 0..2 {
        let old = weir.pid;
        weir.upgrade();
        let new = weir.pid.as_raw_nonzero();
        assert_eq!(notice(), format!("MAINPID={new}"));
        assert!(notice().starts_with("READY=1"));
        weir.wait_for_end(old);
        assert_eq!(ask_unix(&socket).text(), "here");
        assert_eq!(weir.weir.ask(get("/")).text(), "here");
        let written = std::fs::read_to_string(&pid_file).unwrap();
        assert_eq!(written, format!("{new}\n"));
    }
    kill_process(weir.pid, Signal::TERM).unwrap();
    assert!(notice().starts_with("STOPPING=1"));
    eventually("the files to go", || {
        (!socket.exists() && !pid_file.exists()).then_some(())
    });
}

#[test]
fn verdicts_of_checks_last_in_the_new_process() {
    let dir = Weir::dir();
    let is_well = Arc::new(AtomicBool::new(true));
    let shared = is_well.clone();
    let endpoint = Endpoint::answering(move |_| match shared.load(Ordering::Relaxed) {
        true => ok("well"),
        false => "HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n".to_owned(),
    });
    let down = e2e::free_address("127.0.0.1");
    let config = format!(
        "[upstream.up]\nservers = [\"{}\", \"{down}\"]\nhealth = {{ http = \"/\", interval = \"60s\" }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    );
    let mut weir = Upgradable::start(&dir, &config);
    let is_healthy = |weir: &Weir, endpoint: &str| {
        let labels = format!("upstream=\"up\",endpoint=\"{endpoint}\"");
        weir.metric(&format!("weir_endpoint_healthy{{{labels}}}")) == 1.0
    };
    assert!(is_healthy(&weir.weir, &endpoint.name));
    assert!(!is_healthy(&weir.weir, &down.to_string()));
    // For a process that knows nothing, the first check decides alone.
    is_well.store(false, Ordering::Relaxed);
    let before = endpoint.requests().len();
    weir.upgrade();
    eventually("a check by the new process", || {
        (endpoint.requests().len() > before).then_some(())
    });
    assert!(is_healthy(&weir.weir, &endpoint.name));
    assert!(!is_healthy(&weir.weir, &down.to_string()));
}
