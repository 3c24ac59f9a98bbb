//! A running Weir, endpoints and clients for tests from the outside. Nothing here sleeps: it waits for what must come.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes on a busy machine; only a failure waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A file with one listener, one upstream and one route, and something more.
pub(crate) fn edge(endpoint: SocketAddr, more: &str) -> String {
    format!(
        "cores = 2\nadmin = \"127.0.0.2:0\"\n[listen.\"127.0.0.1:0\"]\n\
         [upstream.app]\nservers = [\"{endpoint}\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n{more}"
    )
}

/// Runs a command to its end.
pub(crate) fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A running Weir. Dropping it kills it.
pub(crate) struct Weir {
    child: Child,
    stderr: Arc<Lines>,
    seen: usize,
}

/// What a process has said so far.
#[derive(Default)]
struct Lines {
    said: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Weir {
    /// Starts a command and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Lines::default());
        let (pipe, lines) = (child.stderr.take().unwrap(), stderr.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.said.lock().unwrap().0.push(line);
                lines.more.notify_all();
            }
            lines.said.lock().unwrap().1 = true;
            lines.more.notify_all();
        });
        let mut weir = Self {
            child,
            stderr,
            seen: 0,
        };
        weir.line("listening on ");
        weir.seen = 0;
        weir
    }

    /// Waits for a line with `text` that was not asked for before.
    pub(crate) fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.stderr.said.lock().unwrap();
        loop {
            if let Some(at) = said
                .0
                .iter()
                .skip(self.seen)
                .position(|line| line.contains(text))
            {
                self.seen += at;
                return said.0[self.seen].clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !said.1 && !left.is_zero(),
                "no line with {text:?} in\n{}",
                said.0.join("\n")
            );
            said = self.stderr.more.wait_timeout(said, left).unwrap().0;
        }
    }

    /// The address after the first line that holds `text`.
    fn address_after(&self, text: &str) -> SocketAddr {
        let find = |said: &(Vec<String>, bool)| {
            let line = said
                .0
                .iter()
                .find_map(|line| Some(line.split_once(text)?.1.to_owned()))?;
            Some(line.split([' ', ',']).next()?.parse().unwrap())
        };
        let mut found = None;
        wait_for(text, || {
            found = find(&self.stderr.said.lock().unwrap());
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address_after("listening on ")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address_after("metrics and health on ")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Standard output of a process that has ended.
    pub(crate) fn stdout(&mut self) -> String {
        let mut text = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self
                .stderr
                .said
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            eprintln!("{}", said.0.join("\n"));
        }
    }
}

/// An endpoint that answers with its name; `/wait` only once it is released.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    /// How many wait, and whether they may go.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Backend {
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let shared = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let gate = shared.clone();
                std::thread::spawn(move || drop(answer(stream, name, &gate)));
            }
        });
        Self { address, gate }
    }

    pub(crate) fn wait_for_guest(&self) {
        let state = self.gate.state.lock().unwrap();
        let waited = self
            .gate
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.0 == 0);
        assert!(waited.unwrap().0.0 > 0, "nobody came");
    }

    pub(crate) fn release(&self) {
        self.gate.state.lock().unwrap().1 = true;
        self.gate.changed.notify_all();
    }
}

fn answer(stream: TcpStream, name: &str, gate: &Gate) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        if head.starts_with("GET /wait ") {
            let mut state = gate.state.lock().unwrap();
            state.0 += 1;
            gate.changed.notify_all();
            drop(
                gate.changed
                    .wait_timeout_while(state, PATIENCE, |state| !state.1)
                    .unwrap(),
            );
        }
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
            name.len()
        )?;
    }
}

/// A client that keeps its connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, path: &str) {
        write!(self.stream, "GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> String {
        self.send(path);
        let mut reader = BufReader::new(&self.stream);
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "closed");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    exchange(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"),
    )
}

pub(crate) fn exchange(address: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(address);
    client.stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    client.stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

pub(crate) fn body(answer: &str) -> String {
    answer
        .split_once("\r\n\r\n")
        .map_or_else(String::new, |(_, body)| body.to_owned())
}

pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: it did not come");
        std::thread::yield_now();
    }
}

/// A directory that goes away with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-e2e-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
