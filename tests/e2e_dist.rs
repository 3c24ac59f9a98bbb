//! The files of packages and images in `scripts/dist`, checked against the binary.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::*;
use rustix::process::Signal;
use tinyjson::JsonValue;

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/dist")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(dist(name)).unwrap()
}

/// The values of the systemd unit by key, in order.
fn unit() -> HashMap<String, Vec<String>> {
    let mut values: HashMap<_, Vec<_>> = HashMap::new();
    for line in read("weir.service").lines() {
        if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            values
                .entry(key.to_owned())
                .or_default()
                .push(value.to_owned());
        }
    }
    values
}

#[test]
fn the_unit_says_what_the_binary_understands() {
    let unit = unit();
    let of = |key: &str| unit[key].join(" ");
    assert_eq!(of("Type"), "notify-reload");
    for key in ["ExecStart", "ExecReload"] {
        let command = of(key);
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("/usr/bin/weir"));
        let (code, help) = run_weir(&["help", words.next().unwrap()]);
        assert_eq!(code, Some(0), "{command}");
        assert!(help.contains(" FILE"), "{help}");
        assert_eq!(words.next(), Some("/etc/weir/weir.toml"));
    }
    let fatal = format!("{} {}", weir::cli::USAGE, weir::cli::CONFIG);
    assert_eq!(of("RestartPreventExitStatus"), fatal);
    let calls = of("SystemCallFilter");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(calls.contains(call), "{call}");
    }
    // systemd grants nothing that the unit's user lacks: Weir binds and reads as that user.
    assert_eq!(of("CapabilityBoundingSet"), "CAP_NET_BIND_SERVICE");
    assert_eq!(of("AmbientCapabilities"), "CAP_NET_BIND_SERVICE");
}

#[test]
fn the_packaged_file_is_usable() {
    let path = dist("weir.toml");
    let (code, said) = run_weir(&["check", "--elsewhere", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let (code, said) = run_weir(&[
        "explain",
        path.to_str().unwrap(),
        "GET",
        "http://127.0.0.1:8080/",
    ]);
    assert_eq!(code, Some(0), "{said}");
    // Commented-out parts are valid too. Two of them take the place of a line.
    let whole: String = read("weir.toml")
        .lines()
        .filter(|line| !line.starts_with("respond") && !line.starts_with("admin = \""))
        .map(|line| {
            let key = line
                .strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") || rest.starts_with('['));
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    let file = Weir::dir().join("whole.toml");
    std::fs::write(&file, whole).unwrap();
    let (code, said) = run_weir(&["check", "--elsewhere", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn the_image_copies_a_binary_and_fetches_nothing() {
    let file = read("Containerfile");
    let steps: Vec<_> = file
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        steps,
        [
            "FROM",
            "COPY",
            "USER",
            "WORKDIR",
            "STOPSIGNAL",
            "ENTRYPOINT",
            "CMD"
        ]
    );
    assert!(file.contains("FROM scratch\n"));
}

/// The system calls that the profile allows.
fn allowed() -> BTreeSet<String> {
    let profile: JsonValue = read("seccomp.json").parse().unwrap();
    let text = |value: &JsonValue| value.get::<String>().unwrap().clone();
    assert_eq!(text(&profile["defaultAction"]), "SCMP_ACT_ERRNO");
    let rules: &Vec<JsonValue> = profile["syscalls"].get().unwrap();
    let mut names = BTreeSet::new();
    for rule in rules {
        assert_eq!(text(&rule["action"]), "SCMP_ACT_ALLOW");
        let listed: &Vec<JsonValue> = rule["names"].get().unwrap();
        for name in listed {
            assert!(names.insert(text(name)), "{name:?} is there twice");
        }
    }
    names
}

#[test]
fn the_seccomp_profile_allows_little() {
    let allowed = allowed();
    assert!(allowed.len() < 180, "{}", allowed.len());
    for call in [
        "ptrace",
        "mount",
        "bpf",
        "keyctl",
        "unshare",
        "setns",
        "init_module",
        "reboot",
    ] {
        assert!(!allowed.contains(call), "{call}");
    }
}

/// Runs its arguments with only the system calls that its standard input lists. The C library's headers have
/// their numbers.
const CONFINE: &str = r#"
import ctypes, os, re, struct, sys
wanted = set(sys.argv[1].split(','))
arch, headers = {'x86_64': (0xc000003e, ['x86_64-linux-gnu/asm/unistd_64.h', 'asm/unistd_64.h']),
                 'aarch64': (0xc00000b7, ['asm-generic/unistd.h'])}[os.uname().machine]
text = next(open('/usr/include/' + name).read() for name in headers if os.path.exists('/usr/include/' + name))
numbers = [int(n) for name, n in re.findall(r'#define __NR(?:3264)?_(\w+)\s+(\d+)', text) if name in wanted]
assert len(numbers) > 100, len(numbers)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE, KILL = 0x7fff0000, 0x00050001, 0x80000000
program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
for number in numbers:
    program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
program.append((RETURN, 0, 0, REFUSE))
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in program))
class Filter(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
described = Filter(len(program), ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.addressof(described), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[test]
fn weir_works_under_the_seccomp_profile() {
    let names = allowed().into_iter().collect::<Vec<_>>().join(",");
    for driver in ["ring", "monoio"] {
        let endpoint = Endpoint::answering(|request| ok(&request.text()));
        let dir = Weir::dir();
        let files = Authority::new("CA")
            .sign(&["weir.test"])
            .write(&dir, "site");
        let socket = dir.join("front.sock");
        // The endpoint has a host name, so that the resolver runs.
        let port = endpoint.name.rsplit_once(':').unwrap().1;
        let config = format!(
            "driver = \"{driver}\"\npid_file = \"{0}/weir.pid\"\naccess_log = \"{0}/access.log\"\n\
             [upstream.up]\nservers = [\"localhost:{port}\"]\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n\
             [listen.\"127.0.0.1:0\"]\n[listen.\"127.0.0.91:0\"]\ntls = {{ {files} }}\n[listen.\"unix:{1}\"]\n",
            dir.display(),
            socket.display()
        );
        let mut command = Command::new("python3");
        command
            .args(["-c", CONFINE, &names, env!("CARGO_BIN_EXE_weir")])
            .stdin(Stdio::null());
        let mut weir = Weir::start_with_command(&dir, &config, command);
        let mut client = weir.connect();
        for body in ["short", &"long ".repeat(200_000)] {
            client.send(post("/", body));
            let response = client.response();
            assert_eq!((response.status(), response.text().as_str()), (200, body));
        }
        let mut local = Conn::to_unix(&socket);
        local.send(get("/"));
        assert_eq!(local.response().status(), 200);
        assert_eq!(weir.admin("/metrics").status(), 200);
        std::fs::rename(dir.join("access.log"), dir.join("old.log")).unwrap();
        weir.signal(Signal::USR1);
        eventually("a log anew", || {
            dir.join("access.log").exists().then_some(())
        });
        weir.reload(&config);
        weir.wait_for("reloaded in");
        weir.signal(Signal::TERM);
        assert_eq!(weir.wait().code(), Some(0));
        assert!(!dir.join("weir.pid").exists() && !socket.exists());
    }
}
