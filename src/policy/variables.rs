//! Values that a request, its client and the attempt at hand fill in.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use weir_config::{PathMatch, Segment, ValuePiece, ValueTemplate, Variable};
use weir_proto_h1::FieldId;
use weir_proto_h1::edits::ValueWriter;
use weir_proto_h1::path::decode_octet;

use super::certificate_fields::put_subject;
use super::{AttemptFacts, ClaimValue, Facts, StepRequest};

/// What fills in a [`Template`].
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// The request.
    pub request: &'a StepRequest<'a>,
    /// What is known about it and its client.
    pub facts: &'a Facts,
    /// The attempt at hand, if the request goes to an endpoint.
    pub attempt: Option<AttemptFacts<'a>>,
}

/// A value with variables, compiled for one route.
#[derive(Clone, Debug)]
pub struct Template(Box<[Piece]>);

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<[u8]>),
    /// The segment of the path at this place, from 0: one place for each path pattern of the route.
    Segment(Box<[usize]>),
    Variable(Variable),
}

impl Template {
    /// Compiles a value for a route whose match has these paths; none for a value outside of routes.
    ///
    /// # Errors
    /// A parameter that one of the paths does not have.
    pub fn compile(value: &ValueTemplate, paths: &[PathMatch]) -> Result<Self, String> {
        let compile = |piece: &ValuePiece| {
            Ok(match piece {
                ValuePiece::Text(text) | ValuePiece::Env { value: text, .. } => {
                    Piece::Text(text.as_bytes().into())
                }
                ValuePiece::Variable(Variable::Param(name)) => {
                    let places = paths.iter().map(|path| place_of(name, path));
                    let places = places.collect::<Option<_>>();
                    Piece::Segment(places.ok_or_else(|| format!("the match has no `{{{name}}}`"))?)
                }
                ValuePiece::Variable(variable) => Piece::Variable(variable.clone()),
            })
        };
        let pieces = value.0.iter().map(compile);
        pieces.collect::<Result<_, _>>().map(Self)
    }

    /// Writes the value. Bytes that a value may not contain become spaces. A variable that the request has nothing for
    /// is empty.
    pub fn put(&self, from: &Variables<'_>, out: &mut ValueWriter<'_>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.put(text),
                Piece::Segment(places) => {
                    if let Some(place) = places.get(from.request.pattern) {
                        out.put(segment(settled_path(from.request), *place));
                    }
                }
                Piece::Variable(variable) => put_variable(variable, from, out),
            }
        }
    }
}

/// The place of a parameter among the segments of a path pattern.
pub(super) fn place_of(name: &str, path: &PathMatch) -> Option<usize> {
    let PathMatch::Template { segments, .. } = path else {
        return None;
    };
    let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(other) if other == name);
    segments.iter().position(is_it)
}

fn put_variable(variable: &Variable, from: &Variables<'_>, out: &mut ValueWriter<'_>) {
    let Variables {
        request,
        facts,
        attempt,
    } = *from;
    let (head, block) = (request.head, request.block);
    match variable {
        Variable::ClientIp => {
            if let Some(client) = facts.client {
                put_display(client.to_canonical(), out);
            }
        }
        // A trusted proxy names no port.
        Variable::ClientPort => {
            let is_peer = |peer: &std::net::IpAddr| {
                let client = facts.client.map(|client| client.to_canonical());
                client == Some(peer.to_canonical())
            };
            if let Some(peer) = request.peer.filter(|peer| is_peer(&peer.ip())) {
                put_display(peer.port(), out);
            }
        }
        Variable::Host => put_host(head.host(block), out),
        Variable::Method => out.put(head.method_span.get(block)),
        Variable::Path => out.put(settled_path(request)),
        Variable::Query => {
            let query = head.query.get(block);
            if !query.is_empty() {
                out.put(b"?");
                out.put(query);
            }
        }
        Variable::Scheme => out.put(if facts.is_https { b"https" } else { b"http" }),
        Variable::RequestId => out.put(request.id.text(request.given_id, &mut [0; 32])),
        // Over HTTP/2, a request need not have Host: its authority means the same.
        Variable::Header(name) if name == "host" => out.put(head.authority.get(block)),
        Variable::Header(name) => {
            let id = FieldId::from_name(name.as_bytes());
            let first = head.sent_values(id, name.as_bytes(), block).next();
            out.put(first.unwrap_or_default());
        }
        Variable::Cookie(name) => {
            let first = head.cookies(name.as_bytes(), block).next();
            out.put(first.unwrap_or_default());
        }
        Variable::TlsVersion => {
            if let Some(tls) = request.tls {
                out.put(b"TLSv");
                out.put(tls.version().as_bytes());
            }
        }
        Variable::ClientCertSubject => {
            if let Some(identity) = &facts.identity {
                put_subject(out, &identity.subject);
            }
        }
        Variable::Upstream => {
            if let Some(attempt) = attempt {
                out.put(attempt.upstream.as_bytes());
            }
        }
        Variable::Endpoint => {
            if let Some(attempt) = attempt {
                put_display(attempt.endpoint, out);
            }
        }
        Variable::Claim(name) => put_claim(name, facts, out),
        // Compiled to places.
        Variable::Param(_) => {}
    }
}

fn put_claim(name: &str, facts: &Facts, out: &mut ValueWriter<'_>) {
    let Some(claims) = &facts.claims else {
        return;
    };
    let pieces = claims.field(name).into_iter().flat_map(ClaimValue::pieces);
    pieces.for_each(|piece| out.put(piece.as_bytes()));
}

/// Writes what `value` shows.
fn put_display(value: impl std::fmt::Display, out: &mut ValueWriter<'_>) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{value}");
}

/// Writes a host in the form in which routes match it: in lower case, without a final dot.
fn put_host(host: &[u8], out: &mut ValueWriter<'_>) {
    let inside = host
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    let inside = inside.and_then(|inside| std::str::from_utf8(inside).ok());
    if let Some(Ok(address)) = inside.map(str::parse::<Ipv6Addr>) {
        return put_display(format_args!("[{address}]"), out);
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    for chunk in host.chunks(64) {
        let mut lower = [0; 64];
        for (lower, byte) in lower.iter_mut().zip(chunk) {
            *lower = byte.to_ascii_lowercase();
        }
        out.put(lower.get(..chunk.len()).unwrap_or_default());
    }
}

/// The path as redirects have it: as received, or the normal form if there are dot segments, because a part of a path
/// with dot segments would mean another path.
fn settled_path<'a>(request: &StepRequest<'a>) -> &'a [u8] {
    let received = request.head.effective_path(request.block);
    let has_dot_segment = received.split(|byte| *byte == b'/').any(is_dot_segment);
    if has_dot_segment && !request.path.is_empty() {
        request.path
    } else {
        received
    }
}

/// Whether a segment is `.` or `..`, encoded or not.
fn is_dot_segment(segment: &[u8]) -> bool {
    let (mut rest, mut dots) = (segment, 0);
    while !rest.is_empty() {
        rest = match (rest, decode_octet(rest)) {
            ([b'.', after @ ..], _) | (_, Some((b'.', after))) => after,
            _ => return false,
        };
        dots += 1;
    }
    matches!(dots, 1 | 2)
}

/// The segment of a path at this place, from 0. Empty segments do not count.
#[must_use]
pub fn segment(path: &[u8], place: usize) -> &[u8] {
    let mut segments = path
        .split(|byte| *byte == b'/')
        .filter(|segment| !segment.is_empty());
    segments.nth(place).unwrap_or_default()
}

#[cfg(test)]
mod tests;
