//! The access log, from a core's ring to its destination.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use tinyjson::JsonValue;

use super::super::limits::{LOG_PATH_BYTES_MAX, LOG_RING_BYTES};
use super::super::*;
use super::{event, page, series, two};
use crate::fault::Reason;
use crate::tls::AlpnProtocol;

/// A directory that the test removes.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-obs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::yield_now();
    }
}

#[test]
fn log_lines_have_every_field_and_the_names_of_their_plan() {
    let scratch = Scratch::new("fields");
    let file = scratch.path("access.log");
    let (old, new) = (two(1, false), two(2, true));
    let log = AccessLog::file(file.clone(), LogFormat::Json).unwrap();
    let (obs, mut cores) = Obs::start(1, (&old.0, &old.1), Some(log)).unwrap();
    let failed = ExchangeEvent {
        status: 502,
        client: Some("2001:db8::1".parse().unwrap()),
        errno: 111,
        reason: Some(Reason::ConnectFailed),
        tls: Some(TlsParameters {
            is_13: true,
            suite: 0x1301,
            is_resumed: true,
            protocol: AlpnProtocol::Http1,
        }),
        sni: b"example.com",
        client_cert: b"CN=a",
        subject: b"ann",
        path: b"/\"}\r\n{\"forged\":1,\xff",
        query: Some(b"a=1&token=2"),
        ..event(1)
    };
    let local = ExchangeEvent {
        route: None,
        upstream: None,
        endpoint: None,
        client: None,
        method: b"",
        status: 400,
        reason: Some(Reason::BadRequest),
        ..event(0)
    };
    cores[0].exchange(&old.0, &old.1, &failed);
    obs.prepare(&new.0, &new.1);
    cores[0].plan_changed(&new.0, &new.1);
    cores[0].exchange(&old.0, &old.1, &event(0));
    cores[0].exchange(&new.0, &new.1, &event(0));
    cores[0].exchange(&new.0, &new.1, &local);
    obs.stop();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<JsonValue> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let expected: JsonValue = r#"{
        "time": "2026-11-22T09:30:00.125Z", "id": "00000000000000010000000000000002",
        "client": "2001:db8::1", "listener": "127.0.0.1:8080", "method": "GET",
        "host": "example.com", "path": "/\"}\r\n{\"forged\":1,\\xff", "query": "a=1&token=REDACTED",
        "version": "HTTP/1.1", "user_agent": "curl/8.9", "referer": "https://example.com/",
        "tls": "1.3", "cipher": "TLS13_AES_128_GCM_SHA256", "resumed": true,
        "sni": "example.com", "client_cert": "CN=a", "subject": "ann",
        "status": 502, "grpc_status": null, "bytes_in": 10, "bytes_out": 1000, "route": "b", "upstream": "two",
        "endpoint": "10.0.0.3:80", "attempts": 1, "total_ms": 12.345, "queue_ms": 0,
        "connect_ms": 0.25, "first_byte_ms": 9, "errno": "ECONNREFUSED", "reason": "connect_failed", "policy": null,
        "would_refuse": null
    }"#
    .parse()
    .unwrap();
    assert_eq!(lines[0], expected);
    let text = |line: usize, member: &str| lines[line][member].get::<String>().cloned();
    assert_eq!(text(1, "route").as_deref(), Some("a"));
    assert_eq!(text(2, "route").as_deref(), Some("b"));
    assert_eq!(text(1, "client").as_deref(), Some("192.0.2.7"));
    assert_eq!(text(3, "reason").as_deref(), Some("bad_request"));
    let tls = ["tls", "cipher", "resumed", "sni", "client_cert"];
    for absent in ["client", "route", "upstream", "endpoint"]
        .into_iter()
        .chain(tls)
    {
        assert!(lines[3][absent].is_null(), "{absent}");
    }
}

#[test]
fn long_values_are_cut_and_marked() {
    let plan = two(1, false);
    let (mut ring, mut reader) = rtrb::RingBuffer::new(LOG_RING_BYTES);
    let long = vec![b'x'; 100_000];
    let event = ExchangeEvent {
        given_id: &long,
        method: &long,
        host: &long,
        path: &long,
        query: Some(&long),
        sni: &long,
        client_cert: &long,
        subject: &long,
        user_agent: &long,
        referer: &long,
        ..event(0)
    };
    assert!(log_record::write(&mut ring, plan.1.epoch, &event));
    let mut bytes = Vec::new();
    log_record::drain(&mut reader, &mut bytes, usize::MAX);
    assert!(bytes.len() < 32 * 1024, "{}", bytes.len());
    let Some(log_record::LogRecord::Exchange(_, event)) = log_record::next(&mut bytes.as_slice())
    else {
        panic!("no record");
    };
    for text in [
        event.method,
        event.host,
        event.path,
        event.query.unwrap(),
        event.sni,
        event.client_cert,
        event.subject,
        event.user_agent,
        event.referer,
    ] {
        assert!(text.ends_with(b"xx[cut]"), "{}", text.escape_ascii());
    }
}

#[test]
fn a_full_ring_drops_whole_lines_and_says_so() {
    let scratch = Scratch::new("full");
    // A pipe without a reader acts like a disk that does not respond.
    let file = scratch.path("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &file,
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file)
        .unwrap();
    let plan = two(1, false);
    let log = AccessLog::file(file, LogFormat::Json).unwrap();
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), Some(log)).unwrap();
    let long = vec![b'/'; 4 * LOG_PATH_BYTES_MAX];
    let event = ExchangeEvent {
        path: &long,
        ..event(0)
    };
    let fit = LOG_RING_BYTES / LOG_PATH_BYTES_MAX;
    let sent = 4 * fit as u64;
    for _ in 0..sent {
        cores[0].exchange(&plan.0, &plan.1, &event);
    }
    let dropped = || cores[0].shared.counts.log_dropped.get() + obs.log.unwritten();
    until("the drops", || dropped() > sent / 2);
    let (mut lines, mut told) = (0, 0);
    for line in io::BufRead::lines(io::BufReader::new(reader)) {
        let line: JsonValue = line.unwrap().parse().unwrap();
        let line: &HashMap<String, JsonValue> = line.get().unwrap();
        if let Some(dropped) = line.get("dropped") {
            told += *dropped.get::<f64>().unwrap() as u64;
        } else {
            let path = line["path"].get::<String>().unwrap();
            assert_eq!(path.len(), LOG_PATH_BYTES_MAX + "[cut]".len());
            lines += 1;
        }
        if lines + told == sent {
            break;
        }
    }
    assert_eq!(told, dropped());
    obs.stop();
}

#[test]
fn refused_connections_leave_half_of_the_log_ring_to_exchanges() {
    let plan = two(1, false);
    let logging = Arc::new(AtomicBool::new(true));
    let (core, _reader) = CoreObs::with(
        &Arc::new(PlanNames::of(&plan.0, &plan.1, None)),
        logging,
        ReportQueue::default(),
        8 * 1024,
    );
    let refused = ExchangeEvent {
        reason: Some(Reason::ConnectionLimit),
        ..event(0)
    };
    let dropped = || core.shared.counts.log_dropped.get();
    for _ in 0..1_000 {
        core.connection_refused(&refused);
    }
    let flood = dropped();
    assert!((900..1_000).contains(&flood), "{flood}");
    for _ in 0..15 {
        core.exchange(&plan.0, &plan.1, &event(0));
    }
    assert_eq!(dropped(), flood, "there was room for exchanges");
    let counts = core.plan_counters.listener(ListenerId(0)).unwrap();
    assert_eq!(
        counts.reasons[Reason::ConnectionLimit as usize].get(),
        1_000
    );
    let answered: u64 = counts.exchanges.iter().map(|count| count.get()).sum();
    assert_eq!(answered, 15);
}

#[test]
fn lines_lost_to_a_full_disk_are_counted() {
    let plan = two(1, false);
    let log = AccessLog::file("/dev/full".into(), LogFormat::Json).unwrap();
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), Some(log)).unwrap();
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    until("the loss", || {
        series(&page(&obs), "weir_log_lost_bytes_total").unwrap() > 100
    });
    obs.stop();
}

#[test]
fn a_moved_log_is_opened_again() {
    let scratch = Scratch::new("rotate");
    let (file, moved) = (scratch.path("access.log"), scratch.path("access.log.1"));
    let plan = two(1, false);
    let log = AccessLog::file(file.clone(), LogFormat::Text).unwrap();
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), Some(log)).unwrap();
    let lines =
        |path: &std::path::Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    until("the first line", || lines(&file) == 1);
    fs::rename(&file, &moved).unwrap();
    obs.set_access_log(Some(
        AccessLog::file(file.clone(), LogFormat::Text).unwrap(),
    ));
    // Records that the thread reads before it gets the new file belong to the old one.
    until("a line in the new file", || {
        cores[0].exchange(&plan.0, &plan.1, &event(0));
        lines(&file) > 0
    });
    let before = lines(&moved);
    // Opening the same file again loses and tears nothing.
    obs.set_access_log(Some(
        AccessLog::file(file.clone(), LogFormat::Text).unwrap(),
    ));
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    obs.stop();
    let after = lines(&file);
    let text = fs::read_to_string(&file).unwrap();
    assert!(after > 1 && text.lines().all(|line| line.starts_with("2026-")));
    assert_eq!(lines(&moved), before);
    // The access log is off.
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    obs.stop();
    assert_eq!(lines(&file), after);
}
