//! The ways in which endpoints read paths.
//!
//! Endpoints differ in whether `%2F` separates segments, whether `;` begins parameters, and whether they merge slashes
//! before or after they resolve dot segments. A [`Reading`] is one such way. `config/paths.md` lists the programs.

use std::fmt;
use std::mem;

use weir_proto_h1::path::{
    OVERLONG_OCTETS_MAX, PathAmbiguities, decode_octet, decode_overlong, is_unreserved,
};

/// How often an endpoint that decodes until nothing changes decodes at most.
const DECODINGS_MAX: u8 = 5;

/// A way to read paths. Every reading decodes unreserved characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// `%2F` separates segments.
    slash: bool,
    /// `%5C` separates segments.
    backslash: bool,
    /// Longer UTF-8 forms stand for their ASCII character, up to this many octets.
    overlong: u8,
    /// How often the endpoint decodes the decoded path again.
    decoded_again: u8,
    parameters: Parameters,
    /// Dot segments are resolved before slashes are merged: `/a//../b` is `/a/b`.
    merges_late: bool,
}

/// What `;` means to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Parameters {
    /// An ordinary character.
    #[default]
    Kept,
    /// The start of parameters, which the endpoint cuts off before it decodes, as servlets do.
    CutFirst,
    /// The start of parameters, which the endpoint cuts off after it decodes: `%3B` starts them too, and a decoded
    /// slash ends them.
    CutLast,
    /// The start of parameters, which the endpoint cuts off after it resolves dot segments, so `..;` is not one.
    CutAfterDots,
}

/// The readings in use that may differ for a path with these ambiguities. There are fewer if the route trusts encoded
/// slashes to be characters.
pub fn readings(
    ambiguities: PathAmbiguities,
    trusts_slashes: bool,
) -> impl Iterator<Item = Reading> {
    let (slash, backslash) = (
        ambiguities.has(PathAmbiguities::ENCODED_SLASH) && !trusts_slashes,
        ambiguities.has(PathAmbiguities::ENCODED_BACKSLASH) && !trusts_slashes,
    );
    let overlong = ambiguities.has(PathAmbiguities::OVERLONG);
    let semicolon = ambiguities.has(PathAmbiguities::SEMICOLON);
    // Decoders differ in the forms that they know. One decoder's character is part of a name to another.
    let of_overlong = |octets| overlong.then_some((!trusts_slashes, !trusts_slashes, octets));
    let separators = [
        Some((false, false, 0)),
        slash.then_some((true, false, 0)),
        backslash.then_some((false, true, 0)),
        (slash && backslash).then_some((true, true, 0)),
        of_overlong(2),
        of_overlong(4),
        of_overlong(OVERLONG_OCTETS_MAX),
    ];
    let parameters = [
        Some(Parameters::Kept),
        semicolon.then_some(Parameters::CutFirst),
        semicolon.then_some(Parameters::CutLast),
        semicolon.then_some(Parameters::CutAfterDots),
    ];
    let separators = separators.into_iter().flatten();
    separators.flat_map(move |(slash, backslash, overlong)| {
        let parameters = parameters.into_iter().flatten();
        parameters.flat_map(move |parameters| {
            [false, true].map(|merges_late| Reading {
                slash,
                backslash,
                overlong,
                decoded_again: 0,
                parameters,
                merges_late,
            })
        })
    })
}

/// The readings of endpoints that decode twice, or until nothing changes. The path does not show what such an endpoint
/// finds in the end, so these readings come with every other choice.
pub fn lax_readings(trusts_slashes: bool) -> impl Iterator<Item = Reading> {
    let of_separators = move |(slash, backslash, overlong)| Reading {
        slash: slash && !trusts_slashes,
        backslash: backslash && !trusts_slashes,
        overlong,
        ..Reading::LITERAL
    };
    let separators = [
        (true, false, 0),
        (true, true, 0),
        (true, true, OVERLONG_OCTETS_MAX),
    ];
    separators.map(of_separators).into_iter().flat_map(|by| {
        let parameters = [Parameters::Kept, Parameters::CutLast].into_iter();
        parameters.flat_map(move |parameters| {
            let decodings = [1, DECODINGS_MAX - 1].into_iter();
            decodings.flat_map(move |decoded_again| {
                [false, true].map(|merges_late| Reading {
                    parameters,
                    decoded_again,
                    merges_late,
                    ..by
                })
            })
        })
    })
}

impl Reading {
    /// The reading that routes are matched in.
    pub const LITERAL: Self = Self {
        slash: false,
        backslash: false,
        overlong: 0,
        decoded_again: 0,
        parameters: Parameters::Kept,
        merges_late: false,
    };

    /// Writes `path` as this reading sees it to `out`, in the form that routes are matched against. Returns whether it
    /// resolved a dot segment. Overwrites both buffers.
    pub fn read(self, path: &[u8], decoded: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        self.decode(path, self.decoded_again == 0, decoded);
        for more in (0..self.decoded_again).rev() {
            mem::swap(decoded, out);
            self.decode(out, more == 0, decoded);
            if decoded.len() == out.len() {
                break;
            }
        }
        self.resolve(decoded, out)
    }

    /// Decodes once. If another pass follows, percent signs that it needs stay decoded.
    fn decode(self, path: &[u8], is_last: bool, out: &mut Vec<u8>) {
        out.clear();
        let mut rest = path;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match byte {
                b'%' => self.decode_one(rest, tail, is_last, out),
                b';' if self.parameters == Parameters::CutFirst => {
                    let end = tail.iter().position(|&byte| byte == b'/');
                    tail.get(end.unwrap_or(tail.len())..).unwrap_or_default()
                }
                _ => {
                    out.push(byte);
                    tail
                }
            };
        }
    }

    /// Decodes the octet that `text` begins with, at its percent sign. Returns the rest.
    fn decode_one<'p>(
        self,
        text: &'p [u8],
        tail: &'p [u8],
        is_last: bool,
        out: &mut Vec<u8>,
    ) -> &'p [u8] {
        let Some((octet, after)) = decode_octet(text) else {
            out.push(b'%');
            return tail;
        };
        let overlong = decode_overlong(octet, after, self.overlong);
        let (octet, after) = overlong.unwrap_or((octet, after));
        match octet {
            b'/' if self.slash => out.push(b'/'),
            b'\\' if self.backslash => out.push(b'/'),
            b';' if self.parameters == Parameters::CutLast => out.push(b';'),
            b'%' if !is_last && is_hexadecimal(after) => out.push(b'%'),
            _ if is_unreserved(octet) => out.push(octet),
            _ => {
                let digit = |value: u8| value + if value < 10 { b'0' } else { b'A' - 10 };
                out.extend_from_slice(&[b'%', digit(octet >> 4), digit(octet & 0xf)]);
            }
        }
        after
    }

    //= rfc3986#5.2.4
    // "." is removed. ".." removes the segment before it too, and never leaves the root.
    fn resolve(self, decoded: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let mut has_dots = false;
        let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            let cut = |by| match self.parameters == by {
                true => segment
                    .split(|&byte| byte == b';')
                    .next()
                    .unwrap_or_default(),
                false => segment,
            };
            match cut(Parameters::CutLast) {
                b"." => has_dots = true,
                b".." => {
                    has_dots = true;
                    let parent = out.iter().rposition(|&byte| byte == b'/');
                    out.truncate(parent.unwrap_or(0));
                }
                name => {
                    let name = match self.parameters {
                        Parameters::CutAfterDots => cut(Parameters::CutAfterDots),
                        _ => name,
                    };
                    if !name.is_empty() || self.merges_late && !is_last {
                        out.push(b'/');
                        out.extend_from_slice(name);
                        continue;
                    }
                }
            }
            if is_last {
                out.push(b'/');
            }
        }
        out.dedup_by(|next, before| (*next, *before) == (b'/', b'/'));
        has_dots
    }
}

fn is_hexadecimal(text: &[u8]) -> bool {
    matches!(text, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

impl fmt::Display for Reading {
    /// Completes "an endpoint that".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separators = match (self.slash, self.backslash) {
            (true, true) => "decodes %2F and %5C into separators",
            (true, false) => "decodes %2F into a slash",
            (false, true) => "decodes %5C into a separator",
            (false, false) => "",
        };
        let parameters = match self.parameters {
            Parameters::Kept => "",
            Parameters::CutFirst | Parameters::CutLast => "cuts off what follows a semicolon",
            Parameters::CutAfterDots => "cuts off parameters after resolving dot segments",
        };
        let parts = [
            match self.decoded_again {
                0 => "",
                1 => "decodes twice",
                _ => "decodes until nothing changes",
            },
            if self.overlong > 0 {
                "accepts overlong UTF-8"
            } else {
                ""
            },
            separators,
            parameters,
            if self.merges_late {
                "resolves dot segments before it merges slashes"
            } else {
                ""
            },
        ];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return f.write_str("resolves dot segments");
        }
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reading: Reading, path: &str) -> String {
        let (mut decoded, mut out) = (Vec::new(), Vec::new());
        reading.read(path.as_bytes(), &mut decoded, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn each_reading_follows_its_rules() {
        let literal = Reading::LITERAL;
        let slash = Reading {
            slash: true,
            ..literal
        };
        let backslash = Reading {
            backslash: true,
            ..literal
        };
        let late = Reading {
            merges_late: true,
            ..literal
        };
        let cut_first = Reading {
            parameters: Parameters::CutFirst,
            ..literal
        };
        let cut_last = Reading {
            slash: true,
            parameters: Parameters::CutLast,
            ..literal
        };
        let cut_after_dots = Reading {
            parameters: Parameters::CutAfterDots,
            ..literal
        };
        let overlong = Reading {
            overlong: 4,
            slash: true,
            backslash: true,
            ..literal
        };
        let longest = Reading {
            overlong: OVERLONG_OCTETS_MAX,
            ..overlong
        };
        let twice = Reading {
            decoded_again: 1,
            ..slash
        };
        let always = Reading {
            decoded_again: DECODINGS_MAX - 1,
            ..cut_last
        };
        for (reading, path, expected) in [
            (literal, "/", "/"),
            (literal, "/a//b/", "/a/b/"),
            (literal, "/a//../b", "/b"),
            (literal, "/a/%2E%2e/b/.", "/b/"),
            (literal, "/a/..", "/"),
            (literal, "/../..", "/"),
            (literal, "/a%2f..%5c;b%c0%af", "/a%2F..%5C;b%C0%AF"),
            (literal, "/%7e%20", "/~%20"),
            (late, "/a//../b", "/a/b"),
            (late, "//../b//", "/b/"),
            (late, "/admin//../users", "/admin/users"),
            (cut_after_dots, "/users/..;x/admin;x", "/users/../admin"),
            (cut_after_dots, "/a;x/b/../c;y/;z", "/a/c/"),
            (slash, "/a%2f..%2Fb", "/b"),
            (slash, "/a%5C..%5Cb", "/a%5C..%5Cb"),
            (backslash, "/a%5C..%5Cb", "/b"),
            (cut_first, "/a/..;/b;c/;d", "/b/"),
            (cut_first, "/a;x%2F../b", "/a/b"),
            (cut_first, "/a%3B/b", "/a%3B/b"),
            (cut_last, "/a;x%2F../b", "/b"),
            (cut_last, "/a%3Bx/.;y/b", "/a/b"),
            (overlong, "/a/%c0%ae%c0%ae/b", "/b"),
            (overlong, "/a%c0%afb%e0%80%af%f0%80%80%afc", "/a/b/c"),
            (overlong, "/a%c1%9cb%c0%2fc", "/a/b/c"),
            (overlong, "/%e0%b8%81", "/%E0%B8%81"),
            (overlong, "/%f8%80%80%80%ae%c0%afb", "/%F8%80%80%80%AE/b"),
            (longest, "/%f8%80%80%80%ae%fc%80%80%80%80%afb", "/b"),
            (overlong, "/a%c0./%c0./%c0/b", "/a./b"),
            (twice, "/a/%252e%252e/b", "/b"),
            (twice, "/a/%25252e%25252e/b", "/a/%252e%252e/b"),
            (twice, "/a%252f..;/b", "/a/..;/b"),
            (always, "/a/%25252e%25252e/b", "/b"),
            (always, "/a%25252f%25%32%65%2e/%2525", "/%25"),
            (always, "/100%25", "/100%25"),
            (always, "/100%2525%25252", "/100%25%252"),
        ] {
            assert_eq!(read(reading, path), expected, "{path} by {reading:?}");
        }
    }
}
