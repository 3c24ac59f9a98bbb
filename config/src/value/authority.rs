//! A host and perhaps a port, as Host fields have them.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::value::address::is_host_name;

/// HOST or HOST:PORT, in lower case.
pub(crate) struct AuthorityText;

impl TextKind for AuthorityText {
    type Value = String;
    const NOUN: &'static str = "a host";
    const PATTERN: Option<&'static str> = Some("^([^/:@*\\s]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]+)?$");
    const EXAMPLES: &'static [&'static str] = &["app.internal", "app.internal:8080"];

    fn parse(text: &str) -> Result<String, Problem> {
        let problem = || Problem::new(format!("`{text}` is not a host"));
        if text.contains("://") {
            return Err(problem().help("write it without a scheme: \"app.internal\""));
        }
        let after_literal = text.rfind(']').map_or(0, |at| at + 1);
        let colon = text
            .get(after_literal..)
            .and_then(|rest| rest.find(':'))
            .map(|at| at + after_literal);
        let (host, port) = match colon.map(|at| text.split_at(at)) {
            Some((host, port)) => (host, port.get(1..)),
            None => (text, None),
        };
        let is_port = |port: &str| {
            port.bytes().all(|b| b.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if let Some(port) = port.filter(|port| !is_port(port)) {
            return Err(Problem::new(format!("`{port}` is not a port"))
                .at(host.len() + 1, port.len())
                .help("write a number from 1 to 65535, or leave out the colon"));
        }
        let literal = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_host = match literal {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok() || is_host_name(host),
        };
        match is_host {
            true => Ok(text.to_ascii_lowercase()),
            false => Err(problem().help("write a name or an address, and a port if it needs one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports() {
        for text in [
            "app",
            "App.internal",
            "app.internal:8080",
            "10.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "[2001:db8::1]:443",
        ] {
            assert_eq!(AuthorityText::parse(text), Ok(text.to_ascii_lowercase()));
        }
        for text in [
            "",
            ":80",
            "app:",
            "app:0",
            "app:65536",
            "app:+1",
            "app:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[app]",
            "a b",
            "a\r\nb",
            "a/b",
            "user@app",
            "http://app",
            "*.app",
            "é.example",
            "1.2.3",
        ] {
            assert!(AuthorityText::parse(text).is_err(), "{text:?}");
        }
    }
}
