//! Who may use the API over TCP.
//!
//! The token protects the API. The other checks keep out web pages in a browser on the same machine or network: a page can
//! make the browser send requests to any address (`Origin` shows that), and by DNS rebinding its own host name can resolve
//! to this listener (`Host` shows that).

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};

use super::AdminToken;
use super::reply::Reply;
use crate::control::limits::ADMIN_REFUSALS_LOG;
use crate::obs::process;

/// Who may use the API.
pub(super) struct Access<'a> {
    pub(super) admin: Option<&'a weir_config::Admin>,
    pub(super) token: Option<&'a AdminToken>,
}

/// The client of a request to the API.
pub(super) struct Caller<'a> {
    pub(super) client: IpAddr,
    pub(super) headers: &'a HeaderMap,
}

/// Why a caller may not use the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The configuration has no token.
    NoToken,
    /// `allow` does not list the client.
    Client,
    /// Host is no address, or there are several.
    Host,
    /// A web page of another origin asks.
    Origin,
    /// The token is missing or wrong.
    Token,
}

impl Access<'_> {
    /// Checks whether the caller may use the API.
    ///
    /// # Errors
    /// The first check that fails; the token comes last.
    pub(super) fn check(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        let token = self.token.ok_or(Refusal::NoToken)?;
        if !self.admin.is_some_and(|admin| admin.admits(caller.client)) {
            return Err(Refusal::Client);
        }
        let host = only(caller.headers, HOST).filter(|host| is_address(host));
        let host = host.ok_or(Refusal::Host)?;
        if caller.headers.contains_key(ORIGIN) {
            let origin = only(caller.headers, ORIGIN);
            let own = origin.and_then(|origin| origin.strip_prefix("http://"));
            if !own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
                return Err(Refusal::Origin);
            }
        }
        let shown = only(caller.headers, AUTHORIZATION).and_then(bearer);
        match shown.is_some_and(|shown| token.is(shown.as_bytes())) {
            true => Ok(()),
            false => Err(Refusal::Token),
        }
    }
}

/// Logs wrong tokens at most every [`ADMIN_REFUSALS_LOG`], because a client that tries many must not fill the log.
#[derive(Default)]
pub(crate) struct RefusalLog {
    logged: Cell<Option<Instant>>,
    unlogged: Cell<u64>,
}

impl RefusalLog {
    /// Notes a refusal. Only wrong tokens are logged, because they may be an attack.
    pub(super) fn note(&self, refusal: Refusal, client: IpAddr, now: Instant) {
        if refusal != Refusal::Token {
            return;
        }
        let count = self.unlogged.get() + 1;
        let logged = self.logged.get();
        if logged.is_some_and(|logged| now.duration_since(logged) < ADMIN_REFUSALS_LOG) {
            return self.unlogged.set(count);
        }
        self.logged.set(Some(now));
        self.unlogged.set(0);
        process::warn(format_args!(
            "admin API: refused {} without the right token, the last from {client}",
            crate::control::count(count as usize, "request")
        ));
    }
}

/// The value of a field that must come once.
fn only(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The token of `Bearer TOKEN` (RFC 6750).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// Whether a Host is an IP address or `localhost`. No web page can have such a host name but one from this machine.
fn is_address(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match in_brackets {
        Some(name) => name.parse::<Ipv6Addr>().is_ok(),
        None => {
            name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok()
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let (status, code, message) = match refusal {
            Refusal::NoToken => (
                StatusCode::NOT_FOUND,
                "no_token",
                "over TCP, the API exists only with a token: set `admin.token_file`, or use a Unix socket",
            ),
            Refusal::Client => (
                StatusCode::FORBIDDEN,
                "client_denied",
                "this address may not use the API; `admin.allow` lists those that may",
            ),
            Refusal::Host => (
                StatusCode::FORBIDDEN,
                "host_denied",
                "Host must be an IP address or `localhost`",
            ),
            Refusal::Origin => (
                StatusCode::FORBIDDEN,
                "origin_denied",
                "web pages of other origins may not use the API",
            ),
            Refusal::Token => (
                StatusCode::UNAUTHORIZED,
                "token_wrong",
                "send `Authorization: Bearer TOKEN` with the token of `admin.token_file`",
            ),
        };
        Self::error(status, code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::AdminToken;

    const TOKEN: &str = "0123456789abcdef";

    fn check(
        token: Option<&AdminToken>,
        client: &str,
        fields: &[(&str, &str)],
    ) -> Result<(), Refusal> {
        let address: weir_config::Address = "127.0.0.1:9901".parse().expect("an address");
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: hyper::header::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let access = Access {
            admin: Some(&address.into()),
            token,
        };
        access.check(&Caller {
            client: client.parse().expect("an IP"),
            headers: &headers,
        })
    }

    #[test]
    fn a_caller_needs_the_token_an_address_and_no_foreign_origin() {
        let token = AdminToken::of_text(TOKEN);
        let right = format!("Bearer {TOKEN}");
        let good = [("host", "127.0.0.1:9901"), ("authorization", &*right)];
        let check = |client: &str, fields: &[(&str, &str)]| check(Some(&token), client, fields);
        assert_eq!(check("127.0.0.1", &good), Ok(()));
        assert_eq!(check("::ffff:127.0.0.1", &good), Ok(()));
        assert_eq!(check("10.0.0.1", &good), Err(Refusal::Client));
        for host in [
            "localhost",
            "LOCALHOST:9901",
            "[::1]:9901",
            "[::1]",
            "10.0.0.1",
        ] {
            let fields = [("host", host), good[1]];
            assert_eq!(check("127.0.0.1", &fields), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9901",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.0.0.1:x",
            "[::1",
            "::1",
            "",
            "127.1",
        ] {
            let fields = [("host", host), good[1]];
            assert_eq!(check("127.0.0.1", &fields), Err(Refusal::Host), "{host}");
        }
        let twice = [good[0], good[0], good[1]];
        assert_eq!(check("127.0.0.1", &twice), Err(Refusal::Host));
        for (origin, wanted) in [
            ("http://127.0.0.1:9901", Ok(())),
            ("http://127.0.0.1:8080", Err(Refusal::Origin)),
            ("https://127.0.0.1:9901", Err(Refusal::Origin)),
            ("http://evil.example", Err(Refusal::Origin)),
            ("null", Err(Refusal::Origin)),
        ] {
            let fields = [good[0], good[1], ("origin", origin)];
            assert_eq!(check("127.0.0.1", &fields), wanted, "{origin}");
        }
        for credentials in [
            "Bearer 0123456789abcdeF",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            let fields = [good[0], ("authorization", credentials)];
            assert_eq!(check("127.0.0.1", &fields), Err(Refusal::Token));
        }
        assert_eq!(check("127.0.0.1", &good[..1]), Err(Refusal::Token));
    }

    #[test]
    fn without_a_token_there_is_no_api_over_tcp() {
        let fields = [
            ("host", "127.0.0.1"),
            ("authorization", "Bearer 0123456789abcdef"),
        ];
        assert_eq!(check(None, "127.0.0.1", &fields), Err(Refusal::NoToken));
    }
}
