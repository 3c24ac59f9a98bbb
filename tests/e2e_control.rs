//! Nothing blocks the control thread: unread standard error and standard output, logs and files that are not regular
//! files, waiting admin clients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod e2e;

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use e2e::*;
use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};

/// A Weir whose output the test may leave unread.
struct Quiet {
    child: Child,
    file: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Quiet {
    fn start(dir: &Path, keys: &str, stdout: Stdio, stderr: Stdio) -> Self {
        let mut quiet = Self {
            address: free_address("127.0.0.9"),
            admin: free_address("127.0.0.9"),
            file: dir.join("weir.toml"),
            child: Command::new("true").spawn().unwrap(),
        };
        quiet.child.wait().unwrap();
        quiet.write(keys);
        quiet.child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["run", quiet.file.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        eventually("health", || Conn::try_to(quiet.admin).is_ok().then_some(()));
        assert_eq!(quiet.page("/healthz").status(), 200);
        quiet
    }

    fn write(&self, keys: &str) {
        let text = format!(
            "cores = 1\nadmin = \"{}\"\n{keys}\n[listen.\"{}\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
            self.admin, self.address
        );
        fs::write(&self.file, text).unwrap();
    }

    fn page(&self, path: &str) -> Message {
        let mut client = Conn::to(self.admin);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        ));
        client.response()
    }

    fn metric(&self, name: &str) -> u64 {
        let page = self.page("/metrics").text();
        let mut values = page
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        values.next().unwrap_or_else(|| panic!("no {name}"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reloads and waits until this counter of reloads grows.
    fn reload(&self, counter: &str) {
        let before = self.metric(counter);
        self.signal(Signal::HUP);
        eventually(counter, || (self.metric(counter) > before).then_some(()));
    }

    fn ask(&self, path: &str) {
        let mut client = Conn::to(self.address);
        client.send(get(path));
        assert_eq!(client.response().text(), "hello");
    }

    /// Requests long paths until Weir drops log lines about them.
    fn fill_the_log(&self) {
        let requests = get(&format!("/{}", "x".repeat(7_000))).repeat(20);
        eventually("drops", || {
            let mut client = Conn::to(self.address);
            client.send(&requests);
            for _ in 0..20 {
                client.response();
            }
            (self.metric("weir_log_unwritten_total") > 0).then_some(())
        });
    }

    /// Sends SIGTERM and waits for the process to exit.
    fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let status = eventually("the end", || self.child.try_wait().unwrap());
        drop(self);
        status
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A full pipe.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while writer.write(&b"filler\n".repeat(size)[..size]).is_ok() {}
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn fifo(path: &Path) {
    mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).unwrap();
}

fn resident_bytes(child: &Child) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", child.id())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

fn lines(reader: PipeReader) -> Lines {
    Lines::of(reader)
}

#[test]
fn an_unread_standard_error_blocks_nothing() {
    let dir = Weir::dir();
    let (reader, writer) = full_pipe();
    let weir = Quiet::start(&dir, "", Stdio::null(), writer.into());
    // Each reload prints a page of diagnostics.
    let bad: String = (0..100).map(|n| format!("unknown_{n} = 1\n")).collect();
    weir.write(&bad);
    eventually("drops", || {
        weir.reload("weir_reload_failed_total");
        (weir.metric("weir_process_log_dropped_total") > 0).then_some(())
    });
    weir.ask("/full");
    weir.write("");
    weir.reload("weir_reload_total");
    // Once the test reads, lines flow again, and one of them counts the dropped ones.
    let read = lines(reader);
    read.wait("the drops", |line| {
        line.contains("lines were dropped").then_some(())
    });
    weir.signal(Signal::USR1);
    read.wait("a line", |line| line.contains("SIGUSR1").then_some(()));
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_full_standard_error_does_not_block_the_exit() {
    let dir = Weir::dir();
    let (_reader, writer) = full_pipe();
    let weir = Quiet::start(&dir, "", Stdio::null(), writer.into());
    weir.ask("/");
    let begun = Instant::now();
    assert!(weir.stop().success());
    assert!(begun.elapsed() < DEADLINE / 2);
    // A process that cannot start exits as well.
    fs::write(dir.join("bad.toml"), "nonsense").unwrap();
    let (_reader, writer) = full_pipe();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", dir.join("bad.toml").to_str().unwrap()])
        .stderr(writer)
        .spawn()
        .unwrap();
    let status = eventually("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(3));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_unread_standard_output_drops_lines_and_blocks_nothing() {
    let dir = Weir::dir();
    let (reader, writer) = full_pipe();
    let (errors, stderr) = std::io::pipe().unwrap();
    let errors = lines(errors);
    let log = "access_log = \"stdout\"";
    let weir = Quiet::start(&dir, log, writer.into(), stderr.into());
    weir.fill_the_log();
    // Diagnostics of the core and of control go to standard error.
    weir.write("access_log = \"off\"");
    weir.reload("weir_reload_total");
    errors.wait("the reload", |line| line.contains("reloaded").then_some(()));
    weir.write(log);
    weir.reload("weir_reload_total");
    weir.ask("/later");
    let read = lines(reader);
    read.wait("a line", |line| line.contains("/later").then_some(()));
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_log_that_takes_no_lines_is_refused_without_waiting() {
    let dir = Weir::dir();
    let (pipe, folder, socket) = (dir.join("pipe"), dir.join("folder"), dir.join("socket"));
    fifo(&pipe);
    fs::create_dir(&folder).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let zero = PathBuf::from("/dev/zero");
    let to = |path: &Path| format!("access_log = {:?}", path.to_str().unwrap());
    let (errors, stderr) = std::io::pipe().unwrap();
    let errors = lines(errors);
    let weir = Quiet::start(&dir, "", Stdio::null(), stderr.into());
    for (path, why) in [
        (&pipe, "nobody reads"),
        (&folder, "it is a directory"),
        (&socket, "it is a socket"),
        (&zero, "it is a device"),
        (&dir.join("none/log"), "No such file"),
    ] {
        // A reload.
        weir.write(&to(path));
        weir.reload("weir_reload_failed_total");
        let verbose = weir.page("/healthz?verbose").text();
        assert!(verbose.contains(why), "{verbose}");
        // A start.
        let other = dir.join("other.toml");
        let text = format!(
            "{}\n[listen.\"127.0.0.9:0\"]\n[[route]]\nmatch = \"/*\"\nrespond = 204\n",
            to(path)
        );
        fs::write(&other, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["run", other.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    weir.ask("/");
    // A FIFO with a reader works like a file. Weir counts the lines that the reader does not take and logs where they
    // are missing.
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    weir.write(&to(&pipe));
    weir.reload("weir_reload_total");
    weir.fill_the_log();
    assert_eq!(weir.page("/healthz").status(), 200);
    let mut read = BufReader::new(reader.try_clone().unwrap()).lines();
    assert!(read.any(|line| line.unwrap().contains("\"dropped\":")));
    // The reader leaves, and another one opens the FIFO.
    drop((read, reader));
    eventually("lost lines", || {
        weir.ask("/nobody");
        (weir.metric("weir_log_lost_bytes_total") > 0).then_some(())
    });
    errors.wait("the loss", |line| {
        line.contains("accepts no lines").then_some(())
    });
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let read = Lines::of(reader);
    eventually("a line", || {
        weir.ask("/somebody%20reads");
        read.so_far()
            .iter()
            .any(|line| line.contains("somebody"))
            .then_some(())
    });
    errors.wait("the end of it", |line| {
        line.contains("accepts lines again").then_some(())
    });
    // The path is a directory now: Weir cannot reopen it and keeps the old file.
    let file = dir.join("log");
    weir.write(&to(&file));
    weir.reload("weir_reload_total");
    fs::rename(&file, dir.join("log.1")).unwrap();
    fs::create_dir(&file).unwrap();
    weir.signal(Signal::USR1);
    errors.wait("the refusal", |line| {
        line.contains("cannot open the access log").then_some(())
    });
    weir.reload("weir_reload_failed_total");
    weir.ask("/in%20the%20old%20one");
    eventually("the line", || {
        let text = fs::read_to_string(dir.join("log.1")).unwrap();
        text.contains("old").then_some(())
    });
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_configuration_that_is_not_a_file_fails_only_its_own_reload() {
    let dir = Weir::dir();
    let weir = Quiet::start(&dir, "", Stdio::null(), Stdio::null());
    let text = fs::read_to_string(&weir.file).unwrap();
    type Make = fn(&Path);
    let makes: [(Make, &str); 5] = [
        (fifo, "it is a FIFO"),
        (|path| fs::create_dir(path).unwrap(), "it is a directory"),
        (
            |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            "it is a device",
        ),
        (
            |path| drop(UnixListener::bind(path).unwrap()),
            "it is a socket",
        ),
        (|_| {}, "No such file"),
    ];
    for (make, why) in makes {
        fs::remove_file(&weir.file).unwrap();
        make(&weir.file);
        weir.reload("weir_reload_failed_total");
        let verbose = weir.page("/healthz?verbose").text();
        assert!(verbose.contains(why), "{verbose}");
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["check", weir.file.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(String::from_utf8(output.stderr).unwrap().contains(why));
        let _ = fs::remove_file(&weir.file).or_else(|_| fs::remove_dir(&weir.file));
        fs::write(&weir.file, &text).unwrap();
        weir.reload("weir_reload_total");
    }
    weir.ask("/");
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn tls_paths_that_are_not_files_are_refused_without_waiting() {
    let dir = Weir::dir();
    let authority = Authority::new("Test");
    let issued = authority.sign_numbered(&["weir.test"], 7);
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let cert = write("cert.pem", &issued.cert);
    let key = write("key.pem", &issued.key);
    let ca = write("ca.pem", &authority.pem);
    let crl = write("crl.pem", &authority.revoke(&[8]));
    let weir = Quiet::start(&dir, "", Stdio::null(), Stdio::null());
    let keys = format!(
        "[listen.\"127.0.0.9:0\"]\ntls = {{ cert = {cert:?}, key = {key:?}, client_ca = {ca:?}, client_crl = {crl:?} }}"
    );
    weir.write(&keys);
    weir.reload("weir_reload_total");
    for file in [&cert, &key, &ca, &crl] {
        let text = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        fifo(file);
        // Weir notices the change without a signal, too.
        let failed = weir.metric("weir_certificates_failed_total");
        eventually("the refusal", || {
            (weir.metric("weir_certificates_failed_total") > failed).then_some(())
        });
        weir.reload("weir_reload_failed_total");
        let verbose = weir.page("/healthz?verbose").text();
        assert!(verbose.contains("it is a FIFO"), "{verbose}");
        fs::remove_file(file).unwrap();
        fs::write(file, text).unwrap();
        weir.reload("weir_reload_total");
    }
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

/// Sends a request to the admin listener and keeps the connection open.
fn ask_admin(weir: &Quiet, path: &str) -> Conn {
    let client = Conn::narrow(weir.admin);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n"));
    client
}

#[test]
fn health_is_answered_at_once_whatever_other_admin_clients_do() {
    let dir = Weir::dir();
    let weir = Quiet::start(&dir, "", Stdio::null(), Stdio::null());
    let healthy = |others: &str| {
        let begun = Instant::now();
        assert_eq!(weir.page("/healthz").status(), 200);
        // Faster than the 5 s after which an idle client times out.
        assert!(
            begun.elapsed() < DEADLINE / 8,
            "{others}: {:?}",
            begun.elapsed()
        );
    };
    // Clients that keep their connections.
    let idle: Vec<_> = (0..200)
        .map(|_| {
            let mut client = ask_admin(&weir, "/healthz");
            assert_eq!(client.response().status(), 200);
            client
        })
        .collect();
    healthy("idle");
    // Clients that send nothing or half a request.
    let silent: Vec<_> = (0..200).map(|_| Conn::to(weir.admin)).collect();
    healthy("silent");
    let halves: Vec<_> = (0..200)
        .map(|_| {
            let client = Conn::to(weir.admin);
            client.send("GET /metrics HTTP/1.1\r\nHos");
            client
        })
        .collect();
    healthy("half");
    // A client that sends request after request on its own connection is served as well.
    let mut busy = ask_admin(&weir, "/healthz");
    assert_eq!(busy.response().status(), 200);
    for _ in 0..20 {
        let _others: Vec<_> = (0..30).map(|_| Conn::to(weir.admin)).collect();
        busy.send("GET /healthz HTTP/1.1\r\nHost: admin\r\n\r\n");
        assert_eq!(busy.response().status(), 200);
    }
    drop((idle, silent, halves));
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn slow_admin_clients_share_a_few_copies_of_a_page() {
    let dir = Weir::dir();
    let routes: String = (0..20_000)
        .map(|n| {
            format!("[[route]]\nmatch = \"/a-route-with-a-longish-name/{n}\"\nrespond = 200\n")
        })
        .collect();
    let weir = Quiet::start(&dir, &routes, Stdio::null(), Stdio::null());
    for path in ["/metrics", "/plan"] {
        let length = weir.page(path).body.len() as u64;
        assert!(length > 1_000_000, "{path} has {length} bytes");
        let before = resident_bytes(&weir.child);
        let mut readers = Vec::new();
        for _ in 0..60 {
            let mut reader = ask_admin(&weir, path);
            assert!(reader.wait_for_bytes());
            readers.push(reader);
            let more = resident_bytes(&weir.child).saturating_sub(before);
            // The allowed copies, one in the making, and the buffers of connections.
            assert!(
                more < 5 * length + 30_000_000,
                "{} readers of {length} bytes: {more} more",
                readers.len()
            );
        }
        let begun = Instant::now();
        assert_eq!(weir.page("/healthz").status(), 200);
        assert!(begun.elapsed() < DEADLINE / 8);
        // A client that reads receives the whole page.
        assert!(weir.page(path).body.len() as u64 > length / 2);
    }
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn certificate_expiry_is_logged_while_weir_runs() {
    let dir = Weir::dir();
    let life = std::time::Duration::from_secs(4);
    let issued = Authority::new("Test").sign_for(&["weir.test"], life);
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, issued.cert).unwrap();
    fs::write(&key, issued.key).unwrap();
    let keys = format!("[listen.\"127.0.0.9:0\"]\ntls = {{ cert = {cert:?}, key = {key:?} }}\n");
    let (errors, stderr) = std::io::pipe().unwrap();
    let errors = lines(errors);
    let weir = Quiet::start(&dir, &keys, Stdio::null(), stderr.into());
    errors.wait("the end of it", |line| {
        (line.contains("warn  the certificate") && line.contains("expired")).then_some(())
    });
    let said = errors.so_far();
    let about = |what: &str| {
        let about = |line: &&String| line.contains("the certificate") && line.contains(what);
        said.iter().filter(about).count()
    };
    assert_eq!((about("expires in"), about("expired")), (1, 1), "{said:?}");
    assert!(
        !said.iter().any(|line| line.contains("warning:")),
        "{said:?}"
    );
    assert!(weir.stop().success());
    fs::remove_dir_all(dir).unwrap();
}
