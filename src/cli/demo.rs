//! `weir demo [LISTEN]`.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use lexopt::{Parser, ValueExt};
use weir_config::{
    AccessLog, Address, Config, Cores, Endpoint, EndpointAddress, LogFormat, LogTarget,
};

use super::proxy::{parse, parse_cores};
use super::{Done, Exit, Next, help, next, print, serve, unexpected};
use crate::control::demo::Demo;
use crate::control::{Options, Source, Started, count};

/// Where the demo listens unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where its metrics are.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

pub(super) fn main(args: &mut Parser) -> Done {
    let (mut listen, mut cores) = (None, Cores::Auto);
    loop {
        match next(args)? {
            Next::Help => return print(help::DEMO),
            Next::Long(name) if name == "cores" => cores = parse_cores(&args.value()?.string()?)?,
            Next::Long(name) => return Err(Exit::Usage(format!("`demo` has no option --{name}"))),
            Next::Value(value) if listen.is_none() => {
                listen = Some(parse("LISTEN", &value.string()?)?)
            }
            Next::Value(value) => return Err(unexpected(&value)),
            Next::End => break,
        }
    }
    let demo = Demo::bind()
        .map_err(|error| Exit::Failed(format!("cannot bind the demo's endpoints: {error}")))?;
    let endpoints: Vec<_> = demo
        .addresses()
        .iter()
        .map(|&address| Endpoint::from(EndpointAddress::Ip(address)))
        .collect();
    let shown = demo
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ");
    let admin = admin()
        .map_err(|error| Exit::Failed(format!("cannot bind the admin listener: {error}")))?;
    let config = Config {
        cores,
        admin: Some(Address::Tcp(admin)),
        access_log: Some(AccessLog {
            to: LogTarget::Stdout,
            format: LogFormat::Text,
        }),
        ..Config::quick(listen.unwrap_or(Address::Tcp(LISTEN)), endpoints)
    };
    let ready = move |started: &Started| {
        // A closed standard output stops nobody from trying the demo.
        let _ = std::io::stdout().write_all(welcome(started, &shown, admin).as_bytes());
    };
    serve(Options {
        source: Source::Given(Box::new(config)),
        demo: Some(demo),
        ready: Box::new(ready),
    })
}

/// The usual admin port, or any other that is free.
fn admin() -> std::io::Result<SocketAddr> {
    let free = TcpListener::bind(ADMIN).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    free.local_addr()
}

fn welcome(started: &Started, endpoints: &str, admin: SocketAddr) -> String {
    let at = started.addresses.first().map_or("", String::as_str);
    let (cores, features) = (count(started.cores, "core"), &started.features);
    let (flags, base) = match at.strip_prefix("unix:") {
        Some(path) => (format!("--unix-socket {path} "), "http://demo".to_owned()),
        None => (String::new(), format!("http://{at}")),
    };
    format!(
        "
Weir listens on {at}, with {cores} on io_uring ({features}).
Behind it are two endpoints, {endpoints}. Try:

  curl {flags}-i {base}/hello
  curl {flags}'{base}/big?bytes=1000000000' -o /dev/null
  curl -s http://{admin}/metrics | grep weir_route

Also /slow?ms=500, /status?code=503 and /echo. Each exchange is logged below. Ctrl-C ends it.

"
    )
}
