//! Compressed answers, decoded by the tools of each coding and by curl.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use e2e::*;

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// Text of this length that shrinks.
fn text(len: usize) -> String {
    let mut text = String::new();
    let mut n = 7u32;
    while text.len() < len {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = ["the", "quick", "brown", "fox", "jumps", "over"][n as usize >> 8 & 3];
        text += &format!("{word} {} ", n >> 20);
    }
    text.truncate(len);
    text
}

/// Decodes with the command-line tool of a coding.
fn decode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let tool = match coding {
        "br" => "brotli",
        other => other,
    };
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool is there: scripts/setup installs it");
    let (mut stdin, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{tool}: {}", output.status);
    output.stdout
}

fn accepting(method: &str, path: &str, coding: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")
}

/// An endpoint that answers `/LENGTH` with text of that length, and `/chunked/LENGTH` with chunks.
fn endpoint() -> Endpoint {
    Endpoint::answering(|request| {
        let target = request.target();
        let (len, head) = (
            target.rsplit('/').next().unwrap().parse().unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n",
        );
        let body = text(len);
        if !target.starts_with("/chunked") {
            let sent = if request.method() == "HEAD" {
                ""
            } else {
                &body
            };
            return format!("{head}Content-Length: {len}\r\n\r\n{sent}");
        }
        let mut answer = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        for piece in body.as_bytes().chunks(5_000) {
            let piece = std::str::from_utf8(piece).unwrap();
            answer += &format!("{:x}\r\n{piece}\r\n", piece.len());
        }
        answer + "0\r\nX-Sum: 1\r\n\r\n"
    })
}

#[test]
fn each_coding_decodes_with_its_own_tool() {
    let endpoint = endpoint();
    let weir = Weir::with("compress = true", &[&endpoint]);
    let mut client = weir.connect();
    for coding in CODINGS {
        for path in [
            "/1024",
            "/16384",
            "/400000",
            "/chunked/10",
            "/chunked/300000",
        ] {
            let len: usize = path.rsplit('/').next().unwrap().parse().unwrap();
            client.send(accepting("GET", path, coding));
            let response = client.response();
            assert_eq!(response.field("Content-Encoding"), Some(coding), "{path}");
            assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
            assert_eq!(response.field("ETag"), Some("W/\"v1\""));
            assert_eq!(response.field("Accept-Ranges"), None);
            assert_eq!(response.field("Content-Length"), None);
            assert!(response.is_chunked());
            assert!(
                decode(coding, &response.body) == text(len).as_bytes(),
                "{coding} {path}"
            );
            assert!(
                len < 1_024 || response.body.len() < len / 2,
                "{coding} {path}"
            );
            if path.starts_with("/chunked") {
                assert_eq!(response.trailer("X-Sum"), Some("1"), "trailers pass");
            }
            // HEAD says the same.
            client.send(accepting("HEAD", path, coding));
            let head = client.message_head();
            for name in [
                "Content-Encoding",
                "Vary",
                "ETag",
                "Content-Length",
                "Content-Type",
            ] {
                assert_eq!(head.field(name), response.field(name), "{name} of {path}");
            }
        }
    }
    client.send(accepting("GET", "/1023", "gzip"));
    let short = client.response();
    assert_eq!(short.field("Content-Encoding"), None);
    assert_eq!(short.text(), text(1_023));
    // The log has the bytes that were sent.
    let entry = weir.entry("/400000");
    assert!(entry.number("bytes_out") < 200_000.0);
}

#[test]
fn curl_decodes_what_it_asks_for() {
    let endpoint = endpoint();
    let weir = Weir::with("compress = true", &[&endpoint]);
    for version in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
        for path in ["/300000", "/chunked/300000"] {
            let url = format!("http://{}{path}", weir.address);
            let output = Command::new("curl")
                .args(["-sS", "--compressed", "-D", "/dev/stderr", version, &url])
                .output()
                .expect("curl is there: scripts/setup installs it");
            assert!(output.status.success(), "{output:?}");
            assert!(
                output.stdout == text(300_000).as_bytes(),
                "{version} {path}"
            );
            let head = String::from_utf8(output.stderr)
                .unwrap()
                .to_ascii_lowercase();
            assert!(head.contains("content-encoding: "), "{head}");
        }
    }
}

#[test]
fn a_1_0_client_gets_a_compressed_answer_that_ends_with_its_connection() {
    let endpoint = endpoint();
    let weir = Weir::with("compress = [\"gzip\"]", &[&endpoint]);
    let mut client = weir.connect();
    client.send("GET /50000 HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.message_head();
    assert_eq!(head.field("Transfer-Encoding"), None);
    assert_eq!(head.field("Content-Length"), None);
    let (body, end) = client.rest();
    assert_eq!(end, End::Closed);
    assert!(decode("gzip", &body) == text(50_000).as_bytes());
}

#[test]
fn events_leave_as_they_come() {
    for coding in CODINGS {
        let (go, gone) = mpsc::channel();
        let gone = std::sync::Mutex::new(gone);
        let endpoint = Endpoint::script(move |conn| {
            if conn.next_request().is_none() {
                return;
            }
            conn.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            let gone = gone.lock().unwrap();
            for n in 0..5 {
                let event = format!("data: event {n}\n\n");
                conn.send(format!("{:x}\r\n{event}\r\n", event.len()));
                // The next event comes only when the client has this one.
                gone.recv().unwrap();
            }
            conn.send("0\r\n\r\n");
        });
        let weir = Weir::with("compress = true", &[&endpoint]);
        let mut client = weir.connect();
        client.send(accepting("GET", "/", coding));
        let head = client.message_head();
        assert_eq!(head.field("Content-Encoding"), Some(coding));
        let mut coded = Vec::new();
        for n in 0..5 {
            let wanted = format!("data: event {n}\n\n");
            while !decoded_so_far(coding, &coded).ends_with(&wanted) {
                coded.extend(chunk(&mut client).expect("more events come"));
            }
            go.send(()).unwrap();
        }
        while let Some(more) = chunk(&mut client) {
            coded.extend(more);
        }
        let whole: String = (0..5).map(|n| format!("data: event {n}\n\n")).collect();
        assert_eq!(decode(coding, &coded), whole.as_bytes());
    }
}

/// Reads a chunk; `None` is the last one.
fn chunk(client: &mut Conn) -> Option<Vec<u8>> {
    let size = usize::from_str_radix(client.line().trim(), 16).unwrap();
    let bytes = client.take(size);
    client.expect("\r\n");
    (size > 0).then_some(bytes)
}

/// Decodes as far as the bytes go.
fn decoded_so_far(coding: &str, bytes: &[u8]) -> String {
    let mut decoder: Box<dyn Read> = match coding {
        "zstd" => Box::new(zstd::Decoder::new(bytes).unwrap()),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4_096)),
        _ => Box::new(flate2::read::GzDecoder::new(bytes)),
    };
    let (mut whole, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(read @ 1..) = decoder.read(&mut buffer) {
        whole.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(whole).unwrap()
}

#[test]
fn a_truncated_answer_stays_truncated() {
    let endpoint = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 90000\r\n\r\n",
            );
            conn.send(text(50_000));
            conn.finish();
        }
    });
    let weir = Weir::with("compress = true\nretries = 0", &[&endpoint]);
    let mut client = weir.connect();
    client.send(accepting("GET", "/", "gzip"));
    let head = client.message_head();
    assert_eq!(head.status(), 200);
    let (body, _) = client.rest();
    assert!(
        !body.ends_with(b"0\r\n\r\n"),
        "the last chunk must not come"
    );
    weir.entry_where("the truncation", |entry| {
        entry.text("reason") == "response_truncated"
    });
}

#[test]
fn weirs_own_answers_are_compressed_too() {
    let long = text(20_000);
    let weir = Weir::start(&format!(
        "compress = [\"br\", \"gzip\"]\n[[route]]\nmatch = \"/long\"\nrespond = {{ body = \"{long}\", content_type = \"text/plain\" }}\n\
         [[route]]\nmatch = \"/off\"\ncompress = \"off\"\nrespond = {{ body = \"{long}\", content_type = \"text/plain\" }}\n"
    ));
    let mut client = weir.connect();
    client.send(accepting("GET", "/long", "gzip, br"));
    let response = client.response();
    assert_eq!(response.field("Content-Encoding"), Some("br"));
    assert_eq!(decode("br", &response.body), long.as_bytes());
    client.send(accepting("HEAD", "/long", "gzip, br"));
    let head = client.message_head();
    assert_eq!(head.field("Content-Encoding"), Some("br"));
    assert_eq!(head.field("Content-Length"), None);
    client.send(accepting("GET", "/long", "identity"));
    let plain = client.response();
    assert_eq!(plain.text(), long);
    assert_eq!(plain.field("Vary"), Some("Accept-Encoding"));
    client.send(accepting("GET", "/off", "gzip, br"));
    let off = client.response();
    assert_eq!(
        (off.field("Content-Encoding"), off.field("Vary")),
        (None, None)
    );
    assert_eq!(off.text(), long);
}

#[test]
fn clients_that_do_not_read_hold_back_the_endpoint() {
    const CLIENTS: usize = 20;
    let stuck = Arc::new(AtomicUsize::new(0));
    let counted = stuck.clone();
    let endpoint = Endpoint::script(move |conn| {
        if conn.next_request().is_none() {
            return;
        }
        let noise: String = (0..1 << 20).map(|_| fastrand::char(' '..'~')).collect();
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000000\r\n\r\n",
        );
        let patience = Duration::from_millis(500);
        let taken = (0..64).take_while(|_| conn.send_while_taken(&noise, patience));
        let taken = taken.count();
        assert!(taken < 16, "the endpoint could send {taken} MiB");
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let weir = Weir::with(
        "compress = true\n[timeouts]\nbody_stall = \"60s\"",
        &[&endpoint],
    );
    let before = weir.resident_bytes();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let client = Conn::narrow(weir.address);
            client.send(accepting("GET", "/", CODINGS[n % 3]));
            client
        })
        .collect();
    eventually("all endpoints to be held back", || {
        (stuck.load(Ordering::SeqCst) == CLIENTS).then_some(())
    });
    let grown = weir.resident_bytes().saturating_sub(before);
    let of_each = grown / CLIENTS as u64;
    assert!(of_each < 3 << 20, "{of_each} bytes for each client");
    drop(clients);
}
