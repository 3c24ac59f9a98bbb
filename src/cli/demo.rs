//! `weir demo [LISTEN]`.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::thread;

use lexopt::{Parser, ValueExt};
use weir_config::{
    AccessLog, Address, Config, Cores, Endpoint, EndpointAddress, ListenTls, Listener, LogFormat,
    LogTarget,
};

use super::proxy::{parse, parse_cores};
use super::{CommandError, CommandResult, NextArgument, help, next, print, serve, unexpected};
use crate::control::demo::DemoEndpoints;
use crate::control::{Options, Source, Started, count};
use crate::tls;

/// The demo's address unless an argument gives another.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The address of its TLS listener.
const SECURE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// The address of its admin listener.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let (mut listen, mut cores) = (None, Cores::Auto);
    loop {
        match next(args)? {
            NextArgument::Help => return print(help::DEMO),
            NextArgument::Long(name) if name == "cores" => {
                cores = parse_cores(&args.value()?.string()?)?
            }
            NextArgument::Long(name) => {
                return Err(CommandError::Usage(format!(
                    "`demo` has no option --{name}"
                )));
            }
            NextArgument::Value(value) if listen.is_none() => {
                listen = Some(parse("LISTEN", &value.string()?)?)
            }
            NextArgument::Value(value) => return Err(unexpected(&value)),
            NextArgument::End => break,
        }
    }
    let demo = DemoEndpoints::bind().map_err(|error| {
        CommandError::Failed(format!("cannot bind the demo's endpoints: {error}"))
    })?;
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
    let admin = free(ADMIN)?;
    let certificate = Certificate::make()
        .map_err(|error| CommandError::Failed(format!("cannot make a certificate: {error}")))?;
    let mut config = Config {
        cores,
        admin: Some(Address::Tcp(admin).into()),
        access_log: Some(AccessLog {
            format: LogFormat::Text,
            ..LogTarget::Stdout.into()
        }),
        ..Config::quick(listen.unwrap_or(Address::Tcp(LISTEN)), endpoints)
    };
    let mut secure = Listener::new(Address::Tcp(free(SECURE)?));
    secure.tls = Some(certificate.tls());
    config.listeners.push(secure);
    let ca = certificate.cert.display().to_string();
    let ready = move |started: &Started| {
        let text = welcome(started, &shown, admin, &ca);
        // A closed or stalled standard output does not stop the demo.
        thread::spawn(move || io::stdout().write_all(text.as_bytes()));
    };
    serve(Options {
        source: Source::Given(Box::new(config)),
        demo: Some(demo),
        explain: super::explain::explain_for_api,
        ready: Box::new(ready),
    })
}

/// The usual address, or one with a free port.
fn free(usual: SocketAddr) -> Result<SocketAddr, CommandError> {
    let free = TcpListener::bind(usual).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    free.and_then(|free| free.local_addr())
        .map_err(|error| CommandError::Failed(format!("cannot bind a port of loopback: {error}")))
}

/// A certificate for loopback. Dropping it deletes its files.
struct Certificate {
    dir: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn make() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("weir-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let made = Self {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            dir,
        };
        let (cert, key) = tls::self_signed(&["localhost", "127.0.0.1"])?;
        fs::write(&made.cert, cert)?;
        fs::write(&made.key, key)?;
        Ok(made)
    }

    fn tls(&self) -> ListenTls {
        ListenTls::new(self.cert.clone(), self.key.clone())
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // Files that stay behind do no harm, because nothing trusts this certificate.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn welcome(started: &Started, endpoints: &str, admin: SocketAddr, ca: &str) -> String {
    let secure = started.addresses.get(1).map_or("", String::as_str);
    let at = started.addresses.first().map_or("", String::as_str);
    let (cores, features) = (count(started.cores, "core"), &started.features);
    let (flags, base) = match at.strip_prefix("unix:") {
        Some(path) => (format!("--unix-socket {path} "), "http://demo".to_owned()),
        None => (String::new(), format!("http://{at}")),
    };
    format!(
        "
Weir listens on {at} and, with TLS, on {secure}, with {cores} on io_uring ({features}).
It proxies to two endpoints, {endpoints}. Try:

  curl {flags}-i {base}/hello
  curl {flags}'{base}/big?bytes=1000000000' -o /dev/null
  curl --cacert {ca} -i https://{secure}/hello
  curl -s http://{admin}/metrics | grep weir_route

There are also /slow?ms=500, /status?code=503 and /echo. The access log follows. Ctrl-C stops the demo.

"
    )
}
