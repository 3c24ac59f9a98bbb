//! Runs the load generator against the endpoint over real sockets, in every mode. The tests check
//! the counts and not the speed.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Origin {
    process: Child,
    address: String,
}

impl Origin {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_origin"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { process, address }
    }

    /// Sends `request` and reads until the endpoint closes.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a load. Returns a function that finds a number in the last line by its name.
fn pace(arguments: &[&str], url: &str) -> impl Fn(&str) -> f64 + use<> {
    let output = Command::new(env!("CARGO_BIN_EXE_pace"))
        .args(["--seconds", "0.2", "--warmup", "0", "--connections", "4"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result = text.lines().last().unwrap().to_owned();
    move |name| {
        let (_, rest) = result.split_once(&format!("\"{name}\":")).unwrap();
        rest.split([',', '}']).next().unwrap().parse().unwrap()
    }
}

#[test]
fn the_parts_of_the_scripts_work() {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");
    let output = Command::new("python3")
        .args(["-B", "-m", "unittest", "-q", "measure.tests"])
        .current_dir(scripts)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_kind_of_load_gets_responses() {
    let origin = Origin::start(&[]);
    let kinds: [&[&str]; 8] = [
        &[],
        &["--rate", "500"],
        &["--rate", "500", "--poisson"],
        &["--new-connections"],
        &["--upload", "200000"],
        &["--idle", "100"],
        &["--idle", "100", "--threads", "3"],
        &["--rate", "500", "--poisson", "--threads", "3"],
    ];
    for kind in kinds {
        for path in ["/", "/b/0", "/b/3000000"] {
            let result = pace(kind, &format!("http://{}{path}", origin.address));
            assert!(result("requests") > 0.0, "{kind:?} {path}");
            assert_eq!(result("errors"), 0.0, "{kind:?} {path}");
            assert_eq!(result("idle_lost"), 0.0, "{kind:?} {path}");
            assert!(result("p50_us") <= result("p999_us"), "{kind:?} {path}");
        }
    }
}

#[test]
fn threads_share_the_connections_and_the_rate() {
    let origin = Origin::start(&["--threads", "2"]);
    let url = format!("http://{}/", origin.address);
    let result = pace(&["--rate", "1000", "--threads", "3"], &url);
    assert_eq!(result("errors"), 0.0);
    // Of 0.2 seconds. All that were due are answered in the end, or counted as not sent.
    let due = result("answers") + result("unsent");
    assert!((197.0..=203.0).contains(&due), "{due}");
}

#[test]
fn an_endpoint_that_closes_causes_no_errors() {
    let origin = Origin::start(&["--close"]);
    let result = pace(&[], &format!("http://{}/", origin.address));
    assert!(result("requests") > 0.0);
    assert_eq!(result("errors"), 0.0);
}

#[test]
fn an_open_loop_counts_unsent_requests() {
    let origin = Origin::start(&[]);
    // Far more than four connections can carry.
    let result = pace(
        &["--rate", "5000000"],
        &format!("http://{}/", origin.address),
    );
    assert!(result("unsent") > 0.0);
    // Most requests waited, and waiting counts as latency.
    assert!(result("p50_us") > 1000.0);
}

#[test]
fn a_missing_endpoint_is_an_error() {
    let origin = Origin::start(&[]);
    let address = origin.address.clone();
    drop(origin);
    let output = Command::new(env!("CARGO_BIN_EXE_pace"))
        .args(["--seconds", "5", &format!("http://{address}/")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn uploads_and_pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(&[]);
    let answers = origin.ask(
        b"POST /b/1 HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
          POST /b/2 HTTP/1.1\r\nHost: o\r\nContent-Length: 5\r\n\r\nhello\
          HEAD /b/9 HTTP/1.1\r\nHost: o\r\n\r\n\
          GET /b/3 HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n",
    );
    let bodies: Vec<_> = answers
        .split("\r\n\r\n")
        .skip(1)
        .map(|part| part.split("HTTP").next().unwrap())
        .collect();
    assert_eq!(bodies, ["x", "xx", "", "xxx"]);
}
