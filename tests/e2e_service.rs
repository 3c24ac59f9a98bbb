//! Weir as a service: what it tells its manager, the file with its number, whom it belongs to, sockets that it is given.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::*;
use rustix::process::Signal;

const ANSWER: &str = "[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n";

/// What a service manager hears.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::new(UnixDatagram::bind(path).unwrap())
    }

    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    #[track_caller]
    fn notice(&self) -> String {
        let mut bytes = [0; 4096];
        let n = self.0.recv(&mut bytes).expect("a notice comes");
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    }

    /// The next notice that is not for the watchdog, and how many for it came before.
    #[track_caller]
    fn next(&self) -> (String, usize) {
        let mut fed = 0;
        loop {
            match self.notice() {
                notice if notice == "WATCHDOG=1" => fed += 1,
                notice => return (notice, fed),
            }
        }
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) -> String {
        let (notice, _) = self.next();
        let said: Vec<_> = notice.lines().collect();
        assert_eq!(said.len(), lines.len(), "{notice}");
        for (said, line) in said.iter().zip(lines) {
            assert!(said.starts_with(line), "{said:?} in place of {line:?}");
        }
        notice
    }
}

fn weir_with(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.envs(variables.iter().copied());
    command
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let dir = Weir::dir();
    let path = dir.join("notify");
    let manager = Manager::at(&path);
    let command = weir_with(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let mut weir = Weir::start_by(
        &dir,
        &format!("timeouts = {{ grace = \"7s\", drain_delay = \"1ms\" }}\n{ANSWER}"),
        command,
    );
    manager.expect(&["READY=1", "STATUS=plan 1: 1 listener, 1 route"]);
    assert_eq!(weir.ask(get("/")).status(), 200);

    let clock = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    };
    let before = clock();
    weir.reload("[[route]]\nmatch = \"/v\"\nrespond = \"two\"\n");
    let notice = manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS="]);
    let us = notice.lines().nth(1).unwrap().split_once('=').unwrap().1;
    assert!((before..=clock()).contains(&us.parse().unwrap()), "{us}");
    manager.expect(&["READY=1", "STATUS=reloaded in "]);

    weir.reload("[[route]]\nmatch = \"/v\"\nto = \"nowhere\"\n");
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS="]);
    let notice = manager.expect(&["READY=1", "STATUS=reload failed: "]);
    assert!(
        notice.contains("nowhere") && notice.contains("still running plan 2"),
        "{notice}"
    );

    weir.signal(Signal::TERM);
    let notice = manager.expect(&["STOPPING=1", "EXTEND_TIMEOUT_USEC=", "STATUS="]);
    let us = notice.lines().nth(1).unwrap().split_once('=').unwrap().1;
    assert!(us.parse::<u64>().unwrap() >= 7_001_000, "{us}");
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn the_manager_may_have_an_abstract_socket_and_need_not_read_it() {
    let name = format!("weir-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let at = format!("@{name}");
    let variables = [("NOTIFY_SOCKET", at.as_str()), ("WATCHDOG_USEC", "2000")];
    let mut weir = Weir::start_by(&Weir::dir(), ANSWER, weir_with(&variables));
    let manager = Manager::new(socket);
    manager.expect(&["READY=1", "STATUS="]);
    // From here on nobody reads, and a thousand times a second something is to be said.
    for n in 0..3 {
        weir.reload(ANSWER);
        eventually("the reload", || {
            (weir.metric("weir_reload_total") == f64::from(n + 1)).then_some(())
        });
    }
    assert_eq!(weir.ask(get("/")).status(), 200);
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn a_manager_that_is_not_there_is_a_warning() {
    let nowhere = [("NOTIFY_SOCKET", "/nonexistent/notify")];
    let weir = Weir::start_by(&Weir::dir(), ANSWER, weir_with(&nowhere));
    weir.wait_for("NOTIFY_SOCKET=/nonexistent/notify: No such file");
    assert_eq!(weir.ask(get("/")).status(), 200);
}

/// Holds a thread still until it is dropped.
struct Frozen(std::process::Child);

impl Frozen {
    /// `None`: this user may not.
    fn thread(id: &str) -> Option<Self> {
        const SEIZE: &str = "
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for request in 0x4206, 0x4207:
    if libc.ptrace(request, int(sys.argv[1]), None, None) != 0:
        sys.exit('ptrace: %d' % ctypes.get_errno())
print('frozen', flush=True)
sys.stdin.read()
";
        let mut child = Command::new("python3")
            .args(["-c", SEIZE, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Lines::of(child.stdout.take().unwrap());
        eventually("the thread to stand still", || {
            let status = child.try_wait().unwrap();
            (status.is_some() || !said.so_far().is_empty()).then_some(())
        });
        (!said.so_far().is_empty()).then_some(Self(child))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn the_watchdog_is_fed_while_every_core_answers() {
    let dir = Weir::dir();
    let path = dir.join("notify");
    let manager = Manager::at(&path);
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let weir = Weir::start_by(&dir, &format!("cores = 2\n{ANSWER}"), weir_with(&variables));
    manager.expect(&["READY=1", "STATUS="]);
    // Nothing comes in, and both cores answer all the same.
    for _ in 0..5 {
        assert_eq!(manager.notice(), "WATCHDOG=1");
    }
    let tasks = std::fs::read_dir(format!("/proc/{}/task", weir.pid())).unwrap();
    let core = tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap() == "weir-core-1\n")
        .unwrap();
    let Some(frozen) = Frozen::thread(core.file_name().unwrap().to_str().unwrap()) else {
        assert!(!rustix::process::geteuid().is_root());
        return;
    };
    // What was on its way when it froze is read first.
    manager.0.set_nonblocking(true).unwrap();
    while manager.0.recv(&mut [0; 64]).is_ok() {}
    manager.0.set_nonblocking(false).unwrap();
    let (notice, fed) = manager.next();
    assert_eq!(notice, "STATUS=core 1 does not answer");
    assert!(fed <= 1, "fed {fed} times");
    drop(frozen);
    let (notice, fed) = manager.next();
    assert_eq!((notice.as_str(), fed), ("STATUS=core 1 answers again", 0));
    assert_eq!(manager.notice(), "WATCHDOG=1");
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let dir = Weir::dir();
    let path = dir.join("notify");
    let manager = Manager::at(&path);
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "1000"),
        ("WATCHDOG_PID", "1"),
    ];
    let mut weir = Weir::start_by(&dir, ANSWER, weir_with(&variables));
    manager.expect(&["READY=1", "STATUS="]);
    weir.signal(Signal::TERM);
    assert!(manager.notice().starts_with("STOPPING=1"));
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn the_file_with_the_number_is_there_while_weir_serves() {
    let dir = Weir::dir();
    let file = dir.join("weir.pid");
    let config = format!("pid_file = \"{}\"\n{ANSWER}", file.display());
    // The number of a process that is gone.
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    std::fs::write(&file, format!("{}\n", gone.id())).unwrap();
    let mut weir = Weir::start_in(&dir, &config);
    weir.wait_for("weir.pid: replaced; process");
    let holds =
        |pid: u32| std::fs::read_to_string(&file).is_ok_and(|text| text == format!("{pid}\n"));
    eventually("the number", || holds(weir.pid()).then_some(()));
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        2,
        "nothing else is left there"
    );

    // Another one does not take it.
    let other = dir.join("other.toml");
    std::fs::write(&other, format!("{config}[listen.\"127.0.0.1:0\"]\n")).unwrap();
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["run", other.to_str().unwrap()])
            .output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = run();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("process {} runs with it", weir.pid())),
        "{said}"
    );
    assert!(holds(weir.pid()));

    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
    assert!(!file.exists());

    // Nothing else is written over.
    let precious = dir.join("precious");
    std::fs::write(&precious, "words").unwrap();
    std::os::unix::fs::symlink(&precious, &file).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it is a symbolic link"), "{said}");
    std::fs::remove_file(&file).unwrap();
    std::fs::copy(&precious, &file).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it holds something else"), "{said}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "words");
}
