//! Weir in a small memory cgroup: it closes the largest holders, so the kernel does not kill it.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod e2e;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::*;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

const MIB: u64 = 1 << 20;
const BOX_BYTES: u64 = 100 * MIB;

/// A memory cgroup below this process's own, if the machine allows one.
struct Cgroup {
    dir: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    fn make() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |top: &str, path: &str| {
            let name = format!("weir-test-{}", std::process::id());
            Path::new(top).join(path.trim_start_matches('/')).join(name)
        };
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let is_v2 = controllers.is_empty();
            let dir = match controllers {
                "memory" => below("/sys/fs/cgroup/memory", path),
                "" => below("/sys/fs/cgroup", path),
                _ => continue,
            };
            let limit = if is_v2 {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            if fs::create_dir(&dir).is_ok() {
                let made = Self { dir, is_v2 };
                if fs::write(made.dir.join(limit), BOX_BYTES.to_string()).is_ok() {
                    return Some(made);
                }
            }
        }
        None
    }

    fn number(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.dir.join(file)).unwrap();
        text.trim().parse().unwrap()
    }

    /// The number of processes in the cgroup that the kernel has killed.
    fn kills(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.dir.join(file)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.map_or(0, |count| count.parse().unwrap())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// An endpoint whose answers go on for as long as the client reads.
fn endless_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || answer_without_end(client))
                .unwrap();
        }
    });
    address
}

fn answer_without_end(mut client: TcpStream) {
    let mut head = [0; 4096];
    let _ = client.read(&mut head);
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    while client.write_all(&[b'x'; 16 * 1024]).is_ok() {}
}

#[test]
fn slow_readers_over_tls_end_before_the_kernel_ends_weir() {
    const READERS: usize = 800;
    let (dir, ca) = (Weir::dir(), Authority::new("test authority"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let cgroup = Cgroup::make();
    // Without a cgroup, the configuration gives the size and the test measures the process.
    let limits = match &cgroup {
        Some(_) => String::new(),
        None => "[limits]\nmemory_per_core = \"50MiB\"\n".to_owned(),
    };
    println!("in a cgroup: {}", cgroup.is_some());
    let config = format!(
        "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n{limits}\
         [upstream.endless]\nservers = [\"{}\"]\n[[route]]\nmatch = \"/endless\"\nto = \"endless\"\n\
         [[route]]\nmatch = \"/good\"\nrespond = \"here\"\n",
        endless_endpoint()
    );
    let weir = match &cgroup {
        None => Weir::start_in(&dir, &config),
        Some(cgroup) => {
            let run = format!(
                "echo $$ > {:?}/cgroup.procs; exec \"$0\" \"$@\"",
                cgroup.dir
            );
            let mut command = Command::new("sh");
            command.args(["-c", &run, env!("CARGO_BIN_EXE_weir")]);
            Weir::start_with_command(&dir, &config, command)
        }
    };
    let connect = tls_to(weir.address, &ca);
    let mut readers = Vec::new();
    for n in 0..READERS {
        let mut reader = connect();
        // Some of these connections may already be closed to make room.
        if reader.write_all(get("/endless").as_bytes()).is_ok() {
            readers.push(reader);
        }
        if n % 100 == 99 {
            let mut good = connect();
            good.write_all(get("/good").as_bytes()).unwrap();
            let mut start = [0; 12];
            good.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
        }
    }
    eventually("somebody was ended for memory", || {
        let shed: f64 = weir.metric("weir_core_shed_total{core=\"0\"}");
        (shed > 0.0).then_some(())
    });
    let most = weir.resident_bytes_max();
    println!("at most {} MiB", most / MIB);
    assert!(most < BOX_BYTES, "{most} bytes");
    if let Some(cgroup) = &cgroup {
        assert_eq!(cgroup.kills(), 0);
        if !cgroup.is_v2 {
            println!(
                "cgroup at most {} MiB",
                cgroup.number("memory.max_usage_in_bytes") / MIB
            );
        }
    }
    // Weir still serves requests.
    let mut good = connect();
    good.write_all(get("/good").as_bytes()).unwrap();
    let mut start = [0; 12];
    good.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    drop(weir);
}

#[test]
fn connections_that_only_wait_are_counted_too() {
    let (dir, ca) = (Weir::dir(), Authority::new("test authority"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let config = format!(
        "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n[limits]\nmemory_per_core = \"4MiB\"\n\
         [[route]]\nmatch = \"/good\"\nrespond = \"here\"\n"
    );
    let weir = Weir::start_in(&dir, &config);
    let connect = tls_to(weir.address, &ca);
    let ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        stream.write_all(get("/good").as_bytes())?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        assert_eq!(&start, b"HTTP/1.1 200");
        Ok::<_, std::io::Error>(())
    };
    // Each connection is served and then idles. Together they need more memory than there is.
    let mut waiting = Vec::new();
    for _ in 0..300 {
        let mut client = connect();
        ask(&mut client).unwrap();
        waiting.push(client);
    }
    eventually("some were given up", || {
        let shed = weir.metric("weir_core_shed_total{core=\"0\"}");
        (shed > 0.0).then_some(())
    });
}
