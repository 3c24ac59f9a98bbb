//! What the checks of one endpoint connect to and ask.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, TE};
use hyper::{Request, Uri, Version};
use weir_config::{CheckKind, CheckMethod, HealthCheck};
use weir_proto_h1::{Limits, Method};

use super::grpc_health;
use crate::conn::proxy_protocol;
use crate::io::Address;
use crate::plan::{EndpointSpec, HealthPlan, Protocol, UpstreamPlan};
use crate::tls::TlsName;

/// The User-Agent of checks.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"), " (health check)");

/// What the checks of one endpoint connect to and ask.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CheckTarget {
    /// The settings of the upstream's checks.
    pub(super) plan: Arc<HealthPlan>,
    /// Where they connect to.
    pub(super) address: Address,
    /// HTTP/2 in the clear. With TLS, the handshake decides.
    pub(super) is_h2c: bool,
    /// The name that the certificate must have; `None` without TLS.
    pub(super) tls_name: Option<TlsName>,
    /// They speak TLS, also if no name is known.
    pub(super) is_tls: bool,
    /// The host of requests.
    authority: String,
    /// The request over HTTP/1.1; empty if it would be none.
    pub(super) http1_request: Vec<u8>,
    /// Limits of answers over HTTP/1.1.
    pub(super) limits: Limits,
    /// The first bytes of every connection: a PROXY header, or none.
    pub(super) preamble: Vec<u8>,
}

impl CheckTarget {
    /// The checks of an endpoint; `None` if its upstream has none.
    pub(super) fn new(upstream: &UpstreamPlan, endpoint: &EndpointSpec) -> Option<Self> {
        let plan = upstream.health.clone()?;
        let check = &plan.check;
        let mut address = endpoint.address.clone();
        if let (Some(port), Address::Ip(ip)) = (check.port, &mut address) {
            ip.set_port(port);
        }
        let speaks_tls = endpoint.tls_name.is_some();
        let is_tls = check.tls.unwrap_or(speaks_tls);
        let host = host_of(&endpoint.name);
        let tls_name = || {
            let own = endpoint.tls_name.clone().or_else(|| plan.tls_name.clone());
            own.or_else(|| TlsName::parse(name_of(host)?))
        };
        let is_grpc = matches!(check.kind, CheckKind::Grpc(_));
        let is_http2 = endpoint.protocol == Protocol::Http2;
        let authority = match &check.host {
            Some(host) => host.clone(),
            None => authority(host, check.port, is_tls),
        };
        Some(Self {
            http1_request: http1_request(check, &authority),
            limits: upstream.limits,
            tls_name: is_tls.then(tls_name).flatten(),
            is_h2c: !is_tls && (is_grpc || (is_http2 && !speaks_tls)),
            authority,
            preamble: upstream.proxy_protocol.map_or_else(Vec::new, |version| {
                proxy_protocol::write(version, None, None)
            }),
            address,
            is_tls,
            plan,
        })
    }

    /// How long a check may take.
    pub(super) fn timeout(&self) -> Duration {
        self.plan.check.timeout
    }

    /// The method of an HTTP check.
    pub(super) fn method(&self) -> Method {
        match &self.plan.check.kind {
            CheckKind::Http(http) => Method::from_token(http.method.as_str().as_bytes()),
            CheckKind::Grpc(_) | CheckKind::Tcp => Method::Post,
        }
    }

    /// The request over HTTP/2.
    ///
    /// # Errors
    /// The settings make no request, which reading the file would have found.
    pub(super) fn http2_request(&self) -> Result<Request<Full<Bytes>>, String> {
        let check = &self.plan.check;
        let (method, path, body) = match &check.kind {
            CheckKind::Http(http) => (http.method.as_str(), http.target.as_str(), Bytes::new()),
            CheckKind::Grpc(service) => {
                let message = grpc_health::request(service);
                ("POST", grpc_health::PATH, message.into())
            }
            CheckKind::Tcp => return Err("a connection has no request".to_owned()),
        };
        let scheme = if self.is_tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(&*self.authority);
        let uri = uri.path_and_query(path).build();
        let mut request = Request::builder()
            .method(method)
            .uri(uri.map_err(|error| error.to_string())?)
            .version(Version::HTTP_2);
        if matches!(check.kind, CheckKind::Grpc(_)) {
            request = request
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers");
        }
        for (name, value) in fields(check) {
            request = request.header(name, value.as_bytes());
        }
        let request = request.body(Full::new(body));
        request.map_err(|error| error.to_string())
    }
}

/// The fields of a request besides its host.
fn fields(check: &HealthCheck) -> impl Iterator<Item = (&str, &str)> {
    let written = || {
        check
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
    };
    let has_agent = written().any(|(name, _)| name == "user-agent");
    let agent = (!has_agent).then_some(("user-agent", AGENT));
    agent.into_iter().chain(written())
}

fn http1_request(check: &HealthCheck, authority: &str) -> Vec<u8> {
    let CheckKind::Http(http) = &check.kind else {
        return Vec::new();
    };
    let (method, target) = (http.method.as_str(), &http.target);
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {authority}\r\n");
    for (name, value) in fields(check) {
        // Writing to a string cannot fail.
        let _ = write!(request, "{name}: {value}\r\n");
    }
    //= rfc9110#8.6
    // A POST without a body says so.
    if http.method == CheckMethod::Post {
        request.push_str("content-length: 0\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// The host and port of an endpoint as the file has them. An address that a host name resolves to follows an `@`.
fn host_of(endpoint: &str) -> &str {
    let after_scheme = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, host)| host);
    after_scheme
        .split_once('@')
        .map_or(after_scheme, |(host, _)| host)
}

/// The host without its port; `None` for a Unix socket.
fn name_of(host: &str) -> Option<&str> {
    let (name, _) = host.rsplit_once(':')?;
    (!host.starts_with("unix:")).then(|| name.trim_matches(['[', ']']))
}

/// The host of requests to an endpoint, without a port that follows from the scheme.
fn authority(host: &str, port: Option<u16>, is_tls: bool) -> String {
    let default = if is_tls { 443 } else { 80 };
    match host.rsplit_once(':').filter(|_| !host.starts_with("unix:")) {
        Some((name, written)) => match port.or_else(|| written.parse().ok()) {
            Some(port) if port != default => format!("{name}:{port}"),
            _ => name.to_owned(),
        },
        // A Unix socket has no name.
        None => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_request_is_the_endpoint_as_the_file_has_it() {
        for (endpoint, port, is_tls, wanted) in [
            ("10.0.0.1:8080", None, false, "10.0.0.1:8080"),
            ("10.0.0.1:80", None, false, "10.0.0.1"),
            ("10.0.0.1:8080", Some(9090), false, "10.0.0.1:9090"),
            ("https://app.internal:443", None, true, "app.internal"),
            ("h2c://[::1]:9000", None, false, "[::1]:9000"),
            ("app:8080@10.0.0.7", None, false, "app:8080"),
            ("unix:/run/app.sock", None, false, "localhost"),
        ] {
            let host = host_of(endpoint);
            assert_eq!(authority(host, port, is_tls), wanted, "{endpoint}");
        }
        assert_eq!(name_of("[::1]:9000"), Some("::1"));
        assert_eq!(name_of("unix:/run/a.sock"), None);
    }
}
