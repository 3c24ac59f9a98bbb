//! The same two small servers on several runtimes, to measure the cost of the runtime itself.
//!
//! `echo` sends a fixed response for every receive. `relay` forwards bytes in both directions
//! between a client and an endpoint. Each runs on one thread. `scripts/runtimes` compares them, and
//! glommio's from `benches/glommio`.

#![forbid(unsafe_code)]

mod on_epoll;
mod on_monoio;

use std::error::Error;
use std::net::SocketAddr;

use weir_benches::net;

use crate::on_monoio::RingFlags;

const HELP: &str = "\
runtime: one small server on one of several runtimes

usage: runtime RUNTIME echo|relay --listen IP:PORT [--to IP:PORT]

  RUNTIME   epoll             plain epoll, edge-triggered
            monoio            SINGLE_ISSUER, COOP_TASKRUN, TASKRUN_FLAG (what Weir uses)
            monoio-plain      no ring flags (monoio's own default)
            monoio-defer      SINGLE_ISSUER, DEFER_TASKRUN
  --to      the endpoint of a relay, which opens one connection for each client
";

/// The response of `echo`, as large as a small HTTP response.
pub(crate) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n\
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// The receive buffer of every server.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
pub(crate) const RING_ENTRIES: u32 = 4096;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    Echo,
    Relay { to: SocketAddr },
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{HELP}");
        return Ok(());
    }
    let listen: SocketAddr = args.value_from_str("--listen")?;
    let to = args.opt_value_from_str("--to")?;
    let runtime: String = args.free_from_str()?;
    let service: String = args.free_from_str()?;
    let service = match (service.as_str(), to) {
        ("echo", None) => Service::Echo,
        ("relay", Some(to)) => Service::Relay { to },
        _ => return Err(HELP.into()),
    };
    let _ = net::raise_open_files();
    match runtime.as_str() {
        "epoll" => on_epoll::serve(listen, service),
        "monoio" => on_monoio::serve(listen, service, RingFlags::Coop),
        "monoio-plain" => on_monoio::serve(listen, service, RingFlags::None),
        "monoio-defer" => on_monoio::serve(listen, service, RingFlags::Defer),
        _ => Err(format!("unknown runtime {runtime}\n\n{HELP}").into()),
    }
}
