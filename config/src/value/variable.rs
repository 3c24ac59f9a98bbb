//! Variables: what a request, its client and the attempt at hand fill into a text.

use std::fmt;

use crate::text::problem::Problem;
use crate::value::named_part::{NamedPart, PartWords};

/// A variable. A request that has nothing for it makes it an empty text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// `{client_ip}`: the client's address, which `trusted_proxies` may name.
    ClientIp,
    /// `{client_port}`: the client's port; empty if a trusted proxy names the client.
    ClientPort,
    /// `{host}`: the request's host in lower case, without a port.
    Host,
    /// `{method}`: the request's method.
    Method,
    /// `{path}`: the request's path, with its leading slash.
    Path,
    /// `{query}`: the request's query with its question mark, or nothing.
    Query,
    /// `{scheme}`: `https` or `http`, as the client used it.
    Scheme,
    /// `{request_id}`: the identifier of the request in the access log.
    RequestId,
    /// `{header:NAME}`: the first field of this name, in lower case, as the client sent it.
    Header(String),
    /// `{cookie:NAME}`: the first cookie of this name.
    Cookie(String),
    /// `{param:NAME}`: the segment of the path that this parameter of the match takes.
    Param(String),
    /// `{tls_version}`: the version of TLS between client and Weir, such as `TLSv1.3`.
    TlsVersion,
    /// `{client_cert:subject}`: the subject of the client's certificate.
    ClientCertSubject,
    /// `{upstream}`: the name of the upstream.
    Upstream,
    /// `{endpoint}`: the address of the endpoint.
    Endpoint,
    /// `{claim:NAME}`: this claim of the client's token.
    Claim(String),
}

/// Variables without a name of their own behind a colon.
const PLAIN: [(&str, Variable); 11] = [
    ("client_ip", Variable::ClientIp),
    ("client_port", Variable::ClientPort),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
    ("tls_version", Variable::TlsVersion),
    ("upstream", Variable::Upstream),
    ("endpoint", Variable::Endpoint),
];

const WORDS: PartWords<Variable> = PartWords {
    plain: &PLAIN,
    families: &[
        ("header", "header:User-Agent"),
        ("cookie", "cookie:session"),
        ("param", "param:id"),
        ("claim", "claim:sub"),
        ("client_cert", "client_cert:subject"),
        ("env", "env:REGION"),
    ],
    foreign: &[
        (
            &[
                "remote_addr",
                "remote_ip",
                "remote_host",
                "ip",
                "src",
                "client",
            ],
            "client_ip",
        ),
        (&["remote_port", "port", "src_port"], "client_port"),
        (
            &["server_name", "hostname", "http_host", "authority"],
            "host",
        ),
        (&["request_method", "verb"], "method"),
        (&["uri", "request_uri", "url", "path_info"], "path"),
        (&["args", "query_string", "qs"], "query"),
        (&["proto", "protocol", "request_proto"], "scheme"),
        (&["id", "req_id", "uuid", "unique_id"], "request_id"),
        (&["server", "backend", "upstream_addr"], "endpoint"),
    ],
    write: |word| format!("{{{word}}}"),
};

/// Variables of nginx, and what to write in their place.
const NGINX: [(&str, &str); 17] = [
    ("args", "{query}"),
    ("binary_remote_addr", "{client_ip}"),
    ("host", "{host}"),
    ("http_host", "{host}"),
    ("is_args", "{query}"),
    ("query_string", "{query}"),
    ("remote_addr", "{client_ip}"),
    ("remote_port", "{client_port}"),
    ("request_id", "{request_id}"),
    ("request_method", "{method}"),
    ("request_uri", "{path}{query}"),
    ("scheme", "{scheme}"),
    ("server_name", "{host}"),
    ("ssl_client_s_dn", "{client_cert:subject}"),
    ("ssl_protocol", "{tls_version}"),
    ("upstream_addr", "{endpoint}"),
    ("uri", "{path}"),
];

/// The first variable of nginx in a text, with its `$`, and what to write in its place. Weir takes it for text.
pub(crate) fn find_nginx_variable(text: &str) -> Option<(&str, String)> {
    text.match_indices('$').find_map(|(at, _)| {
        let name = &text[at + 1..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &name[..name.find(|c| !is_part(c)).unwrap_or(name.len())];
        let known = NGINX.iter().find(|(theirs, _)| *theirs == name);
        let ours = match known {
            Some((_, ours)) => (*ours).to_owned(),
            None => nginx_family(name)?,
        };
        Some((&text[at..at + 1 + name.len()], ours))
    })
}

/// What to write for `http_x_tenant` or `cookie_session` of nginx.
fn nginx_family(name: &str) -> Option<String> {
    let (family, name) = name.split_once('_')?;
    match family {
        _ if name.is_empty() => None,
        "http" => Some(format!("{{header:{}}}", name.replace('_', "-"))),
        "cookie" => Some(format!("{{cookie:{name}}}")),
        _ => None,
    }
}

impl Variable {
    /// Reads what stands between the braces. `{env:NAME}` is no variable of a request: callers read it before.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let Some((family, name)) = text.split_once(':') else {
            let found = PLAIN.iter().find(|(known, _)| *known == text);
            return found
                .map(|(_, variable)| variable.clone())
                .ok_or_else(|| unknown(text));
        };
        if (family, name) == ("client_cert", "subject") {
            return Ok(Self::ClientCertSubject);
        }
        if family == "client_cert" {
            return Err(no_variable(text).help("write {client_cert:subject}"));
        }
        if PLAIN.iter().any(|(known, _)| *known == family) {
            let message = format!("`{{{family}}}` has no name behind a colon");
            return Err(Problem::new(message).help(format!("write {{{family}}}")));
        }
        let part = NamedPart::parse(family, name).ok_or_else(|| unknown(text))??;
        match part {
            NamedPart::Header(name) => Ok(Self::Header(name)),
            NamedPart::Cookie(name) => Ok(Self::Cookie(name)),
            NamedPart::Param(name) => Ok(Self::Param(name)),
            NamedPart::Claim(name) => Ok(Self::Claim(name)),
            NamedPart::Query(_) => Err(unknown(text)),
        }
    }
}

fn no_variable(text: &str) -> Problem {
    Problem::new(format!("there is no variable `{{{text}}}`"))
}

/// That no variable is called `text`, and what was probably meant.
fn unknown(text: &str) -> Problem {
    let is_foreign = WORDS
        .foreign
        .iter()
        .any(|(theirs, _)| theirs.contains(&text));
    match nginx_family(text).filter(|_| !is_foreign) {
        Some(ours) => no_variable(text).help(format!("write {ours}")),
        None => no_variable(text).help(WORDS.advise(text)),
    }
}

impl fmt::Display for Variable {
    /// Writes the variable as a file would, braces included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "{{header:{name}}}"),
            Self::Cookie(name) => write!(f, "{{cookie:{name}}}"),
            Self::Param(name) => write!(f, "{{param:{name}}}"),
            Self::Claim(name) => write!(f, "{{claim:{name}}}"),
            Self::ClientCertSubject => f.write_str("{client_cert:subject}"),
            plain => {
                let known = PLAIN.iter().find(|(_, variable)| variable == plain);
                write!(f, "{{{}}}", known.map_or("", |(name, _)| name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_reads_what_it_writes() {
        let named = [
            "header:x-a",
            "cookie:Sid",
            "param:id",
            "claim:https://a/b",
            "client_cert:subject",
        ];
        let plain = PLAIN.iter().map(|(name, _)| *name);
        for text in plain.chain(named) {
            let variable = Variable::parse(text).expect(text);
            assert_eq!(variable.to_string(), format!("{{{text}}}"));
        }
        assert_eq!(
            Variable::parse("header:X-A"),
            Ok(Variable::Header("x-a".to_owned()))
        );
    }

    #[test]
    fn advice() {
        for (text, expected) in [
            ("client_pi", "did you mean {client_ip}?"),
            ("heder:X-A", "did you mean {header:X-A}?"),
            (
                "header",
                "it has a name behind a colon, such as {header:User-Agent}",
            ),
            ("remote_addr", "write {client_ip}"),
            ("host:x", "write {host}"),
            ("client_cert:issuer", "write {client_cert:subject}"),
        ] {
            let problem = Variable::parse(text).expect_err(text);
            assert_eq!(problem.help.as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            ":",
            "header:",
            "header:a b",
            "cookie:",
            "param:A",
            "claim:",
            "Host",
            "xyzzy",
        ] {
            assert!(Variable::parse(text).is_err(), "{text}");
        }
    }
}
