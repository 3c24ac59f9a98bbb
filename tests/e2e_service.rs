//! Weir as a service: notifications to its manager, the pid file, the user, inherited sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::fs::Permissions;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::*;
use rustix::process::Signal;

const ANSWER: &str = "[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n";

/// The socket of a service manager.
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

    /// The next notice that is not for the watchdog, and the number of watchdog notices before it.
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
fn the_service_manager_is_notified_of_start_reload_and_stop() {
    let dir = Weir::dir();
    let path = dir.join("notify");
    let manager = Manager::at(&path);
    let command = weir_with(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let mut weir = Weir::start_with_command(
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
    let mut weir = Weir::start_with_command(&Weir::dir(), ANSWER, weir_with(&variables));
    let manager = Manager::new(socket);
    manager.expect(&["READY=1", "STATUS="]);
    // From here on the manager does not read, and Weir has something to send a thousand times a second.
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
    let weir = Weir::start_with_command(&Weir::dir(), ANSWER, weir_with(&nowhere));
    weir.wait_for("NOTIFY_SOCKET=/nonexistent/notify: No such file");
    assert_eq!(weir.ask(get("/")).status(), 200);
}

/// Freezes a thread until it is dropped.
struct Frozen(std::process::Child);

impl Frozen {
    /// `None`: this user may not trace threads.
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
    let weir =
        Weir::start_with_command(&dir, &format!("cores = 2\n{ANSWER}"), weir_with(&variables));
    manager.expect(&["READY=1", "STATUS="]);
    // Without any requests both cores still answer.
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
    // First read the notices sent before the freeze.
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
    let mut weir = Weir::start_with_command(&dir, ANSWER, weir_with(&variables));
    manager.expect(&["READY=1", "STATUS="]);
    weir.signal(Signal::TERM);
    assert!(manager.notice().starts_with("STOPPING=1"));
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn the_pid_file_exists_while_weir_serves() {
    let dir = Weir::dir();
    let file = dir.join("weir.pid");
    let config = format!("pid_file = \"{}\"\n{ANSWER}", file.display());
    // The pid of a process that no longer exists.
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

    // A second Weir does not take over the pid file.
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

    // Weir overwrites nothing that is not a pid file.
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
    // `check` refuses what a start refuses.
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["check", other.to_str().unwrap()])
        .output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("it holds something else"), "{said}");
}

/// The uid and gid of `nobody`, which every machine has.
const NOBODY: u32 = 65_534;

/// A directory that every user may enter, with one inside that belongs to `nobody`.
fn open_dir(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
    let run = path.join("run");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(&run, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    Scratch(path)
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// These fields of every thread's status, the main thread first.
fn of_threads(pid: u32, names: [&str; 4]) -> Vec<[String; 4]> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut ids: Vec<u32> = tasks
        .map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    ids.sort_by_key(|id| (*id != pid, *id));
    let status = |id| std::fs::read_to_string(format!("/proc/{pid}/task/{id}/status"));
    // A thread that has just ended has no status.
    let statuses = ids.into_iter().filter_map(|id| status(id).ok());
    statuses
        .map(|status| {
            names.map(|name| {
                let mut lines = status.lines();
                let field = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                field
                    .unwrap()
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        })
        .collect()
}

#[test]
fn root_becomes_the_user_of_the_file_and_may_bind_low_ports_still() {
    let dir = open_dir("user");
    let run = dir.0.join("run");
    let [socket, log, pid_file] =
        ["front.sock", "access.log", "weir.pid"].map(|name| run.join(name));
    let config = |more: &str| {
        format!(
            "cores = 2\nuser = \"{NOBODY}\"\ngroup = \"{NOBODY}\"\npid_file = \"{}\"\naccess_log = \"{}\"\n{ANSWER}\
             [listen.\"127.0.0.77:801\"]\n[listen.\"unix:{}\"]\nmode = \"0660\"\n{more}",
            pid_file.display(),
            log.display(),
            socket.display()
        )
    };
    if !is_root() {
        let file = dir.0.join("weir.toml");
        std::fs::write(&file, config("").replace(":801", ":0")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("run")
            .arg(&file)
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("cannot become user") && said.contains("start Weir as root"),
            "{said}"
        );
        return;
    }
    let mut weir = Weir::start_in(&dir.0, &config(""));
    weir.wait_for(&format!(
        "runs as user `{NOBODY}` ({NOBODY}), group {NOBODY}; may still bind"
    ));
    eventually("the file with the number", || {
        pid_file.exists().then_some(())
    });
    let nobody = [NOBODY; 4].map(|id| id.to_string()).join(" ");
    let threads = of_threads(weir.pid(), ["Uid", "Gid", "Groups", "CapPrm"]);
    assert!(threads.len() >= 4, "control, logs, two cores");
    for (n, [uid, gid, groups, permitted]) in threads.iter().enumerate() {
        assert_eq!([uid, gid], [&nobody, &nobody], "thread {n}");
        assert_eq!(groups, "", "thread {n}");
        // CAP_NET_BIND_SERVICE is capability 10.
        let permitted = u64::from_str_radix(permitted, 16).unwrap();
        assert_eq!(permitted | 1 << 10, 1 << 10, "thread {n}");
    }
    let main = &of_threads(weir.pid(), ["CapEff", "CapInh", "CapAmb", "NoNewPrivs"])[0];
    let (bind, none) = ("0000000000000400", "0000000000000000");
    assert_eq!(main, &[bind, none, none, "1"]);
    assert_eq!(weir.ask(get("/")).status(), 200);
    for file in [&socket, &log, &pid_file] {
        let owner = std::fs::metadata(file).unwrap();
        assert_eq!(
            (owner.uid(), owner.gid()),
            (NOBODY, NOBODY),
            "{}",
            file.display()
        );
    }

    // As this user Weir reloads and binds another port below 1024.
    weir.reload(&config("[listen.\"127.0.0.77:802\"]\n"));
    weir.wait_for("reload: listening on 127.0.0.77:802 too");
    weir.wait_for("reloaded in");
    let mut client = Conn::to("127.0.0.77:802".parse().unwrap());
    client.send(get("/"));
    assert_eq!(client.response().status(), 200);
    std::fs::rename(&log, run.join("old.log")).unwrap();
    weir.signal(Signal::USR1);
    eventually("the log to be opened anew", || log.exists().then_some(()));
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
    assert!(!pid_file.exists() && !socket.exists());
}

#[test]
fn no_capability_is_kept_that_no_port_needs() {
    if !is_root() {
        return assert!(!is_root());
    }
    let dir = open_dir("plain");
    let config =
        format!("user = \"{NOBODY}\"\ngroup = \"{NOBODY}\"\n{ANSWER}[listen.\"127.0.0.1:0\"]\n");
    let weir = Weir::start_in(&dir.0, &config);
    for thread in of_threads(weir.pid(), ["CapPrm", "CapEff", "CapInh", "CapAmb"]) {
        assert_eq!(thread, ["0000000000000000"; 4]);
    }
    assert_eq!(weir.ask(get("/")).status(), 200);
    weir.reload(&format!("{config}[listen.\"127.0.0.78:803\"]\n"));
    weir.wait_for("cannot listen on 127.0.0.78:803: ports below 1024 need the capability");
    assert_eq!(weir.ask(get("/")).status(), 200);
}

#[test]
fn io_uring_needs_no_larger_limit_of_locked_memory() {
    let dir = open_dir("memlock");
    let user = format!("user = \"{NOBODY}\"\ngroup = \"{NOBODY}\"\n");
    let keys = if is_root() { user.as_str() } else { "" };
    let mut command = Command::new("bash");
    let limited = "ulimit -S -l 16; exec \"$0\" \"$@\"";
    command
        .args(["-c", limited, env!("CARGO_BIN_EXE_weir")])
        .stdin(Stdio::null());
    let config = format!("cores = 2\n{keys}{ANSWER}[listen.\"127.0.0.1:0\"]\n");
    let weir = Weir::start_with_command(&dir.0, &config, command);
    assert_eq!(weir.ask(get("/")).text(), "here");
}

#[test]
fn check_reports_what_the_user_may_not_do() {
    let dir = open_dir("check");
    let closed = dir.0.join("closed");
    std::fs::create_dir(&closed).unwrap();
    let files = Authority::new("CA")
        .sign(&["weir.test"])
        .write(&closed, "site");
    let key = closed.join("site.key");
    let file = dir.0.join("weir.toml");
    let check = |user: &str, keys: &str| {
        let text = format!(
            "user = \"{user}\"\n{keys}{ANSWER}[listen.\"127.0.0.1:0\"]\ntls = {{ {files} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["check", file.to_str().unwrap()])
            .output();
        let output = output.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = check("nosuchuser", "");
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("there is no user `nosuchuser` here"),
        "{said}"
    );
    assert!(said.contains("weir.toml:1:8"), "{said}");
    let nobody = NOBODY.to_string();
    let group = format!("group = \"{NOBODY}\"\n");
    if !is_root() {
        let (code, said) = check(&nobody, &group);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("did not test") && said.contains("as root"),
            "{said}"
        );
        return;
    }
    let (code, said) = check(&nobody, &group);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");

    // An unreadable key in a readable folder, and one in an unreadable folder.
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let (code, said) = check(&nobody, &group);
    assert_eq!(code, Some(3), "{said}");
    let why = format!(
        "cannot read {}: it may not enter {}",
        key.display(),
        closed.display()
    );
    assert!(said.contains(&why), "{said}");
    assert!(said.contains("| tls = "), "the line is shown: {said}");
    std::fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let (code, said) = check(&nobody, &group);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("site.key: Permission denied"), "{said}");
    // The group's permission suffices.
    chown(&key, None, Some(NOBODY)).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(check(&nobody, &group).0, Some(0));

    // Logs and the pid file.
    let in_root = format!(
        "{group}pid_file = \"{0}/weir.pid\"\naccess_log = \"{0}/access.log\"\n",
        closed.display()
    );
    let (code, said) = check(&nobody, &in_root);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("cannot write") && said.contains("closed/weir.pid: the directory"),
        "{said}"
    );
    assert!(said.contains("closed/access.log: the directory"), "{said}");
    let in_run = in_root.replace("/closed/", "/run/");
    assert_eq!(check(&nobody, &in_run).0, Some(0));
    assert!(
        std::fs::read_dir(dir.0.join("run"))
            .unwrap()
            .next()
            .is_none(),
        "nothing was made"
    );

    // A start refuses what `check` refuses.
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let (code, _) = check(&nobody, &group);
    assert_eq!(code, Some(3));
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("run")
        .arg(&file)
        .output();
    assert_eq!(output.unwrap().status.code(), Some(3));
}

/// Runs its arguments with the listening sockets described in the variables, as a service manager would.
const ACTIVATE: &str = "
import os, socket, sys
held = []
for n, name in enumerate(sys.argv[1].split(',')):
    if name == 'udp':
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif name.startswith('/'):
        made = socket.socket(socket.AF_UNIX)
        made.bind(name)
    else:
        host, port = name.rsplit(':', 1)
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
    if name != 'udp':
        made.listen(64)
        made.setblocking(False)
    held.append(made)
high = [os.dup2(made.fileno(), 100 + n, False) for n, made in enumerate(held)]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=sys.argv[2])
if sys.argv[3] == 'keep' and os.fork():
    # A parent that holds the sockets, as a service manager does, and runs on in the child's place.
    pass
elif sys.argv[3] == 'keep':
    # The child only holds them until its standard input ends.
    sys.stdin.read()
    os._exit(0)
binary = os.open(sys.argv[4], os.O_RDONLY)
if sys.argv[3] == 'drop':
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.execve(binary, sys.argv[4:], os.environ)
";

fn activate(sockets: &str, names: &str, holds: &str) -> Command {
    let mut command = Command::new("python3");
    command.args([
        "-c",
        ACTIVATE,
        sockets,
        names,
        holds,
        env!("CARGO_BIN_EXE_weir"),
    ]);
    command
}

#[test]
fn inherited_sockets_are_for_the_listeners_of_their_addresses() {
    for driver in ["ring", "monoio"] {
        let dir = Weir::dir();
        let path = dir.join("front.sock");
        let (front, admin, other) = (
            free_address("127.0.0.81").to_string(),
            free_address("127.0.0.82").to_string(),
            free_address("127.0.0.83").to_string(),
        );
        let config = format!(
            "cores = 2\ndriver = \"{driver}\"\nadmin = \"{admin}\"\n{ANSWER}[listen.\"{front}\"]\n[listen.\"unix:{}\"]\n",
            path.display()
        );
        let sockets = format!("{front},{},{admin},{other},udp", path.display());
        let mut command = activate(&sockets, "http:local:admin:spare:odd", "keep");
        command.stdin(Stdio::piped());
        let mut weir = Weir::start_with_command(&dir, &config, command);
        for said in [
            format!("inherited socket 3 (http) is for {front}"),
            format!("inherited socket 4 (local) is for unix:{}", path.display()),
            format!("inherited socket 5 (admin) is for {admin}"),
            format!("inherited socket 6 (spare): no listener has the address {other}; closed"),
            "inherited socket 7 (odd): no listener has the address 0.0.0.0:0; closed".to_owned(),
        ] {
            weir.wait_for(&said);
        }
        for _ in 0..20 {
            let mut tcp = Conn::to(front.parse().unwrap());
            tcp.send(get("/"));
            assert_eq!(tcp.response().text(), "here");
            let mut unix = Conn::to_unix(&path);
            unix.send(get("/"));
            assert_eq!(unix.response().text(), "here");
        }
        assert_eq!(weir.admin("/healthz").status(), 200);
        // The sockets belong to the manager: after Weir's end they still hold the waiting connections.
        weir.signal(Signal::TERM);
        weir.wait_for("drained");
        let mut kept = Conn::to(front.parse().unwrap());
        assert!(path.exists());
        let mut local = Conn::to_unix(&path);
        for conn in [&mut kept, &mut local] {
            conn.send(get("/"));
        }
        // The helper exits at the end of its standard input and closes the sockets.
        weir.close_stdin();
        assert_eq!(weir.wait().code(), Some(0));
    }
}

#[test]
fn a_low_port_may_be_inherited_by_a_user_that_could_not_bind_it() {
    if !is_root() {
        // Only root can make such a socket for the test.
        return assert!(std::net::TcpListener::bind("127.0.0.86:804").is_err());
    }
    let dir = open_dir("activated");
    let config = format!("{ANSWER}[listen.\"127.0.0.86:804\"]\n");
    let command = activate("127.0.0.86:804", "http", "drop");
    let weir = Weir::start_with_command(&dir.0, &config, command);
    let [effective, ..] = &of_threads(weir.pid(), ["CapEff", "Uid", "Gid", "Groups"])[0];
    assert_eq!(effective, "0000000000000000");
    assert_eq!(weir.ask(get("/")).text(), "here");
    // A reload needs no privilege for an inherited port.
    weir.reload(&config.replace("here", "there"));
    weir.wait_for("reloaded in");
    assert_eq!(weir.ask(get("/")).text(), "there");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let address = free_address("127.0.0.84").to_string();
    let config = format!("{ANSWER}[listen.\"{address}\"]\n");
    let variables = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1")];
    let weir = Weir::start_with_command(&Weir::dir(), &config, weir_with(&variables));
    assert_eq!(weir.ask(get("/")).status(), 200);
    assert!(
        !weir
            .stderr
            .so_far()
            .iter()
            .any(|line| line.contains("inherited"))
    );
}
