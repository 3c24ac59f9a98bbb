//! The binary under test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tinyjson::JsonValue;

use super::conn::Conn;
use super::endpoint::Endpoint;
use super::lines::Lines;
use super::message::Message;

/// A running `weir`. Dropping it kills it.
pub struct Weir {
    /// The address of its first listener.
    pub address: SocketAddr,
    /// The address of its admin listener.
    pub admin: SocketAddr,
    /// Its standard error.
    pub stderr: Lines,
    /// Its standard output: the access log.
    pub log: Lines,
    dir: PathBuf,
    processor: usize,
    child: Child,
}

impl Weir {
    /// Runs `weir run` with this configuration. Adds what every test needs, unless the text sets it: one core, an admin
    /// listener, the access log on standard output, and a listener on a free port.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_in(&Self::dir(), config)
    }

    /// A new, empty directory for the files of a test.
    pub fn dir() -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            // Short names, because the path of a Unix socket has at most 107 bytes.
            let name = format!("{}-{count}", std::process::id());
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            match std::fs::create_dir(&dir) {
                Ok(()) => return dir,
                // The directory belongs to another binary's test or to a killed run.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", dir.display()),
            }
        }
    }

    /// Like `start`, in a directory made by [`Weir::dir`]. Dropping the `Weir` deletes the directory.
    #[track_caller]
    pub fn start_in(dir: &Path, config: &str) -> Self {
        Self::start_with_command(dir, config, Command::new(binary()))
    }

    /// Like `start_in`, run by a command that executes its arguments: `env` with variables and the binary, for example.
    #[track_caller]
    pub fn start_with_command(dir: &Path, config: &str, mut command: Command) -> Self {
        let file = dir.join("weir.toml");
        let processor = processor();
        std::fs::write(&file, complete(config, processor)).unwrap();
        command.arg("run").arg(&file);
        if command.get_program() == binary().as_os_str() {
            command.stdin(Stdio::null());
        }
        let mut weir = Self::spawn(command, dir, processor);
        weir.admin = weir.wait_for("metrics and health on ").parse().unwrap();
        weir
    }

    /// Like `start_in`, with the file `hosts` of the directory mounted over `/etc/hosts` and no other source of names.
    /// Later changes of the file take effect at once.
    #[track_caller]
    pub fn start_with_hosts(dir: &Path, config: &str) -> Self {
        let (file, processor) = (dir.join("weir.toml"), processor());
        std::fs::write(&file, complete(config, processor)).unwrap();
        std::fs::write(dir.join("nsswitch.conf"), "hosts: files\n").unwrap();
        let script = format!(
            "cd {dir} && mount --bind hosts /etc/hosts && mount --bind nsswitch.conf /etc/nsswitch.conf && \
             exec {weir} run {file}",
            dir = dir.display(),
            weir = env!("CARGO_BIN_EXE_weir"),
            file = file.display(),
        );
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
        let mut weir = Self::spawn(command, dir, processor);
        weir.admin = weir.wait_for("metrics and health on ").parse().unwrap();
        weir
    }

    /// Like `start`, with a limit on open files.
    #[track_caller]
    pub fn start_with_files(files: u64, config: &str) -> Self {
        // `ulimit` in a shell, because this process runs other tests.
        let mut command = Command::new("sh");
        let run = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.args(["-c", &run, env!("CARGO_BIN_EXE_weir")]);
        Self::start_with_command(&Self::dir(), config, command)
    }

    /// Changes the limit on open files of the running process.
    pub fn limit_files(&self, files: u64) {
        let limit = rustix::process::Rlimit {
            current: Some(files),
            // An unprivileged process could not raise a lowered maximum again.
            maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        };
        let pid = Pid::from_child(&self.child);
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).unwrap();
    }

    /// The numbers of its open descriptors, sorted.
    pub fn open_files(&self) -> Vec<u64> {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let number = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.ok()?.file_name().into_string().ok()?.parse().ok()
        };
        let mut numbers: Vec<u64> = dir.filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Runs another command that serves. Its `admin` address is not known.
    #[track_caller]
    pub fn command(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(command, &Self::dir(), 0)
    }

    #[track_caller]
    fn spawn(mut command: Command, dir: &Path, processor: usize) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut weir = Self {
            address: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 2], 0).into(),
            stderr: Lines::of(child.stderr.take().unwrap()),
            log: Lines::of(child.stdout.take().unwrap()),
            dir: dir.to_owned(),
            processor,
            child,
        };
        let listening = weir.wait_for("listening on ");
        let mut addresses = listening.split(", ");
        weir.address = addresses
            .find_map(|address| address.parse().ok())
            .expect("one listener is TCP");
        weir
    }

    /// Starts a Weir that routes everything to these endpoints.
    #[track_caller]
    pub fn to(endpoints: &[&Endpoint]) -> Self {
        Self::with("", endpoints)
    }

    /// Like `to`, with further top-level keys.
    #[track_caller]
    pub fn with(keys: &str, endpoints: &[&Endpoint]) -> Self {
        Self::start(&format!("{keys}\n{}", route_to(endpoints)))
    }

    /// Connects to its first listener.
    pub fn connect(&self) -> Conn {
        Conn::to(self.address)
    }

    /// Sends these bytes on a new connection and returns the response.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }

    /// Requests a page of the admin listener.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Message {
        let mut client = Conn::to(self.admin);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        ));
        client.response()
    }

    /// The value of a metric. `name` includes the labels, as on the page. Returns 0 if the page lacks the metric.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.admin("/metrics").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a line of standard error has `text`, and returns what follows it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let after = |line: &str| line.split_once(text).map(|(_, rest)| rest.to_owned());
        self.stderr.wait(text, after)
    }

    /// Waits for the access log line of this target (path and query).
    #[track_caller]
    pub fn entry(&self, path: &str) -> Entry {
        self.entry_where(path, |entry| entry.target() == path)
    }

    /// Waits for the first access log line whose member `name` is `text`.
    #[track_caller]
    pub fn entry_with(&self, name: &str, text: &str) -> Entry {
        self.entry_where(text, |entry| entry.text(name) == text)
    }

    /// Waits for the first access log line for which `holds` returns true.
    #[track_caller]
    pub fn entry_where(&self, what: &str, holds: impl Fn(&Entry) -> bool) -> Entry {
        let parse = |line: &str| Entry::parse(line).filter(&holds);
        self.log.wait(what, parse)
    }

    /// Replaces the configuration and sends SIGHUP. Does not wait for the reload.
    pub fn reload(&self, config: &str) {
        std::fs::write(self.dir.join("weir.toml"), complete(config, self.processor)).unwrap();
        self.signal(Signal::HUP);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Calls `work` while the process is stopped, so that everything sent meanwhile is there at once when it continues.
    #[track_caller]
    pub fn while_stopped<T>(&self, work: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        super::eventually("the process has stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
        let done = work();
        self.signal(Signal::CONT);
        done
    }

    /// Waits for the process to exit.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.stderr.to_end();
        self.child.wait().unwrap()
    }

    /// Closes its standard input, if that is a pipe.
    pub fn close_stdin(&mut self) {
        self.child.stdin.take();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }
}

impl Weir {
    /// Its peak resident memory, in bytes.
    pub fn resident_bytes_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in self.stderr.so_far().iter().chain(&self.log.so_far()) {
                println!("weir: {line}");
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        let panicked = |line: &String| line.contains("panicked");
        if !std::thread::panicking() && self.stderr.so_far().iter().any(panicked) {
            panic!("a core panicked:\n{}", self.stderr.so_far().join("\n"));
        }
    }
}

/// Runs `weir` with these arguments. Returns its exit code, and standard output followed by standard error. Fails the
/// test if it does not exit.
#[track_caller]
pub fn run_weir(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let (stdout, stderr) = (
        Lines::of(child.stdout.take().unwrap()),
        Lines::of(child.stderr.take().unwrap()),
    );
    let deadline = Instant::now() + super::DEADLINE;
    let status = loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            status => break status,
        }
    };
    let _ = child.kill();
    let output = [stdout.to_end(), stderr.to_end()].concat().join("\n");
    let status = status.unwrap_or_else(|| panic!("{arguments:?} does not exit: {output}"));
    (status.code(), output)
}

/// The binary under test, unless `WEIR_BINARY` names another.
pub fn binary() -> PathBuf {
    let other = std::env::var_os("WEIR_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into())
}

/// An address with a port that is free now.
pub fn free_address(ip: &str) -> SocketAddr {
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// An upstream of these endpoints, which take turns and are never ejected, and a route that takes everything.
pub fn route_to(endpoints: &[&Endpoint]) -> String {
    let servers: Vec<_> = endpoints.iter().map(|endpoint| &endpoint.name).collect();
    format!(
        "[upstream.up]\nservers = {servers:?}\nbalance = \"round_robin\"\neject = \"off\"\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    )
}

/// One line of the access log.
#[derive(Debug)]
pub struct Entry(HashMap<String, JsonValue>);

impl Entry {
    /// Parses a line; `None` unless it is one JSON object.
    pub fn parse(line: &str) -> Option<Self> {
        let parsed: JsonValue = line.parse().ok()?;
        parsed.get::<HashMap<_, _>>().cloned().map(Self)
    }

    /// The requested path with its query.
    pub fn target(&self) -> String {
        match self.0.get("query").and_then(JsonValue::get::<String>) {
            Some(query) => format!("{}?{query}", self.text("path")),
            None => self.text("path"),
        }
    }

    /// A string member; empty if it is null.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        let value = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        value.get::<String>().cloned().unwrap_or_default()
    }

    /// A number member; `None` if it is null.
    #[track_caller]
    pub fn maybe_number(&self, name: &str) -> Option<f64> {
        let value = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        value.get::<f64>().copied()
    }

    /// A number member.
    #[track_caller]
    pub fn number(&self, name: &str) -> f64 {
        let value = self.0.get(name).and_then(JsonValue::get::<f64>);
        *value.unwrap_or_else(|| panic!("no number {name} in {self:?}"))
    }
}

fn complete(config: &str, processor: usize) -> String {
    let has = |key: &str| config.lines().any(|line| line.starts_with(key));
    let mut text = String::new();
    if !has("cores") {
        text += &format!("cores = \"{processor}\"\n");
    }
    if !has("admin") {
        text += "admin = \"127.0.0.2:0\"\n";
    }
    // The target `e2e_monoio` runs the same tests on this driver.
    if !has("driver") && env!("CARGO_CRATE_NAME") == "e2e_monoio" {
        text += "driver = \"monoio\"\n";
    }
    if !has("access_log") && !has("[access_log]") {
        text += "access_log = \"stdout\"\n";
    }
    text += config;
    if !has("[listen.") {
        text += "\n[listen.\"127.0.0.1:0\"]\n";
    }
    text
}

/// One of the processors that this process may use, in rotation, because tests run side by side.
fn processor() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    let allowed: Vec<_> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| mask.is_set(cpu))
        .collect();
    allowed[COUNT.fetch_add(1, Ordering::Relaxed) % allowed.len()]
}
