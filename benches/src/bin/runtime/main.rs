//! The same two small servers on several runtimes, to measure what a runtime itself costs.
//!
//! `echo` answers every receive with one fixed response; `relay` passes bytes both ways between a
//! client and an endpoint. One thread each. `scripts/runtimes` compares them, and glommio too, which
//! lives in `benches/glommio`.

#![forbid(unsafe_code)]

mod on_epoll;
mod on_monoio;

use std::error::Error;
use std::net::SocketAddr;

use weir_benches::net;

use crate::on_monoio::Flags;

const HELP: &str = "\
runtime: one small server on one of several runtimes

usage: runtime RUNTIME echo|relay --listen IP:PORT [--to IP:PORT]

  RUNTIME   epoll             plain epoll, edge-triggered
            monoio            SINGLE_ISSUER, COOP_TASKRUN, TASKRUN_FLAG (what Weir uses)
            monoio-plain      no ring flags (monoio's own default)
            monoio-defer      SINGLE_ISSUER, DEFER_TASKRUN
  --to      where a relay connects, one connection for each client
";

/// What `echo` answers: as much as a small HTTP response.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n\
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// What every server receives into.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
pub(crate) const RING_ENTRIES: u32 = 4096;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
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
    let work: String = args.free_from_str()?;
    let work = match (work.as_str(), to) {
        ("echo", None) => Work::Echo,
        ("relay", Some(to)) => Work::Relay { to },
        _ => return Err(HELP.into()),
    };
    let _ = net::raise_open_files();
    match runtime.as_str() {
        "epoll" => on_epoll::serve(listen, work),
        "monoio" => on_monoio::serve(listen, work, Flags::Coop),
        "monoio-plain" => on_monoio::serve(listen, work, Flags::None),
        "monoio-defer" => on_monoio::serve(listen, work, Flags::Defer),
        _ => Err(format!("no runtime {runtime}\n\n{HELP}").into()),
    }
}
