//! A load generator that keeps to its schedule.
//!
//! With `--rate` it is an open loop: every request has an intended send time, and its latency
//! counts from then on, so a stall of the server counts for all requests that wait meanwhile.
//! Without `--rate`, every connection sends its next request as soon as it has the response
//! (saturation).
//!
//! Each thread has one epoll set and an equal part of the load. It prints a JSON line for each event;
//! the last line is the result.

#![forbid(unsafe_code)]

mod connection;
mod load;
mod report;
mod stream;

use std::error::Error;
use std::num::NonZeroU64;
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use weir_benches::net::{self, Address};

use crate::load::Load;
use crate::report::Report;

const HELP: &str = "\
pace: a load generator that keeps to its schedule (HTTP/1.1, also over TLS)

usage: pace [options] http[s]://HOST:PORT/PATH

  --connections N    keep-alive connections (64)
  --rate R           send R requests per second, evenly spaced; latency counts from the
                     intended time; without --rate, every connection sends its next
                     request as soon as it has a response
  --poisson          with --rate: random gaps with the same mean instead of even ones
  --seconds S        measured time (5)
  --warmup S         time before the measured time (1)
  --new-connections  open a new connection for every request
  --upload N         POST N bytes instead of GET
  --idle M           first open M more connections, send one request on each, and hold them (0)
  --settle S         pause between opening idle connections and the load (0)
  --resume           over TLS: resume sessions; without it, every handshake is a full one
  --tls12            use TLS 1.2 instead of 1.3
  --header 'N: V'    add a request header; may be repeated
  --in-turn FILE     give each request the next line of FILE as a header
  --threads N        threads that share the connections and the rate (1)

It prints {\"event\":\"idle\"}, {\"event\":\"start\"} and {\"event\":\"end\"} as they happen, then
one line with requests, errors, rate and latencies in microseconds.
Exit code: 0, or 1 if no request got a response, or 2 if it could not start.
";

/// The options of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) address: Address,
    /// The heads, which requests take in turn.
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) upload_bytes: u64,
    pub(crate) connections: usize,
    /// Requests per second; `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) poisson: bool,
    pub(crate) measured: Duration,
    pub(crate) warmup: Duration,
    pub(crate) new_connections: bool,
    pub(crate) idle: usize,
    pub(crate) settle: Duration,
    pub(crate) tls: Option<stream::TlsOptions>,
    pub(crate) threads: usize,
    /// The thread whose part of the load this is.
    pub(crate) thread: usize,
}

impl Options {
    /// The part of one thread. All parts together are the whole load.
    fn part(&self, thread: usize) -> Self {
        let share =
            |whole: usize| whole * (thread + 1) / self.threads - whole * thread / self.threads;
        let mut part = self.clone();
        part.thread = thread;
        part.connections = share(self.connections);
        part.idle = share(self.idle);
        part.rate = self.rate.map(|rate| rate / self.threads as f64);
        let turn = self.requests.len() * thread / self.threads;
        part.requests.rotate_left(turn);
        part
    }
}

fn main() -> std::process::ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return 0.into();
        }
        Err(error) => {
            eprintln!("pace: {error}");
            return 2.into();
        }
    };
    match run(options) {
        Ok(true) => 0.into(),
        Ok(false) => 1.into(),
        Err(error) => {
            eprintln!("pace: {error}");
            2.into()
        }
    }
}

fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let files = net::raise_open_files();
    let wanted = (options.connections + options.idle) as u64 + 16;
    if files < wanted {
        return Err(
            format!("{wanted} connections need more open files than the limit of {files}").into(),
        );
    }
    // Otherwise timers fire up to 50 us late, which would count as latency.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let together = Arc::new(Barrier::new(options.threads));
    let (sender, reports) = mpsc::channel();
    for thread in 0..options.threads {
        let (part, together, sender) =
            (options.part(thread), Arc::clone(&together), sender.clone());
        std::thread::spawn(move || {
            let report = Load::new(part).and_then(|load| load.run(&together));
            let _ = sender.send(report.map_err(|error| error.to_string()));
        });
    }
    let mut whole = Report::new()?;
    for _ in 0..options.threads {
        // The first error ends the process, although other threads may wait for the failed one.
        whole.add(&reports.recv()??)?;
    }
    println!("{}", whole.line());
    Ok(whole.requests > 0)
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        return Ok(None);
    }
    let seconds = |text: &str| text.parse().map(Duration::from_secs_f64);
    let connections = args.opt_value_from_str("--connections")?.unwrap_or(64);
    let rate = args.opt_value_from_str::<_, f64>("--rate")?;
    let poisson = args.contains("--poisson");
    let measured = args
        .opt_value_from_fn("--seconds", seconds)?
        .unwrap_or(Duration::from_secs(5));
    let warmup = args
        .opt_value_from_fn("--warmup", seconds)?
        .unwrap_or(Duration::from_secs(1));
    let new_connections = args.contains("--new-connections");
    let upload_bytes = args.opt_value_from_str("--upload")?.unwrap_or(0);
    let idle = args.opt_value_from_str("--idle")?.unwrap_or(0);
    let settle = args
        .opt_value_from_fn("--settle", seconds)?
        .unwrap_or(Duration::ZERO);
    let (resume, is_12) = (args.contains("--resume"), args.contains("--tls12"));
    let headers: Vec<String> = args.values_from_str("--header")?;
    let in_turn: Option<String> = args.opt_value_from_str("--in-turn")?;
    let threads = args.opt_value_from_str("--threads")?.unwrap_or(1);
    let url: String = args.free_from_str()?;
    if let Some(extra) = args.finish().first() {
        return Err(format!("unknown argument {}", extra.to_string_lossy()).into());
    }
    if connections == 0 || rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err("--connections and --rate must be greater than 0".into());
    }
    if threads == 0 || threads > connections {
        return Err("--threads must be at least 1 and at most --connections".into());
    }
    let (is_tls, host, path) = split_url(&url)?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let tls = is_tls
        .then(|| stream::TlsOptions::new(name, resume, is_12))
        .transpose()?;
    let address = if host.contains(':') {
        Address::parse(host)?
    } else {
        Address::parse(&format!("{host}:{}", if is_tls { 443 } else { 80 }))?
    };
    let in_turn = in_turn.map(std::fs::read_to_string).transpose()?;
    let lines: Vec<Option<&str>> = match &in_turn {
        Some(text) => text.lines().map(Some).collect(),
        None => vec![None],
    };
    if lines.is_empty() {
        return Err("the file of --in-turn has no lines".into());
    }
    let request = |line: &Option<&str>| {
        let headers = headers.iter().map(String::as_str).chain(*line);
        request_head(host, path, upload_bytes, new_connections, headers).into_bytes()
    };
    Ok(Some(Options {
        address,
        requests: lines.iter().map(request).collect(),
        upload_bytes,
        connections,
        rate,
        poisson,
        measured,
        warmup,
        new_connections,
        idle,
        settle,
        tls,
        threads,
        thread: 0,
    }))
}

/// Whether the URL uses TLS, its host with the port, and its path.
fn split_url(url: &str) -> Result<(bool, &str, &str), String> {
    let (is_tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => {
            return Err(format!(
                "{url}: the URL must start with http:// or https://"
            ));
        }
    };
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    Ok((is_tls, host, path))
}

fn request_head<'h>(
    host: &str,
    path: &str,
    upload_bytes: u64,
    close: bool,
    headers: impl Iterator<Item = &'h str>,
) -> String {
    let method = if upload_bytes > 0 { "POST" } else { "GET" };
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pace\r\nAccept: */*\r\n");
    if upload_bytes > 0 {
        head.push_str(&format!(
            "Content-Type: application/octet-stream\r\nContent-Length: {upload_bytes}\r\n"
        ));
    }
    if close {
        head.push_str("Connection: close\r\n");
    }
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}
