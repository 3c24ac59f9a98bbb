//! How endpoints read paths.
//!
//! A path means what its reader makes of it: whether `%2F` separates segments, whether `;` begins parameters, whether
//! slashes are merged before or after dot segments are resolved. A [`Reading`] is one such way. `config/paths.md` lists
//! the programs.

use std::fmt;
use std::mem;

use weir_proto_h1::path::{Oddities, decode_octet, decode_overlong, is_unreserved};

/// How often a text is decoded at most by those who decode until nothing changes.
const DECODINGS_MAX: usize = 5;

/// A way to read paths. Percent-encoding of unreserved characters means nothing in any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// `%2F` separates segments.
    slash: bool,
    /// `%5C` separates segments.
    backslash: bool,
    /// Longer UTF-8 forms stand for their ASCII character.
    overlong: bool,
    /// What comes of decoding is decoded again.
    again: bool,
    parameters: Parameters,
    /// Dot segments are resolved before slashes are merged: `/a//../b` is `/a/b`.
    merges_late: bool,
}

/// What `;` means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Parameters {
    /// A character.
    #[default]
    Kept,
    /// The beginning of parameters, which go before anything is decoded, as in servlets.
    CutFirst,
    /// The same after decoding, so that `%3B` begins them too, and a decoded slash ends them.
    CutLast,
}

/// The readings in use that may differ for a path with these oddities. A path whose encoded slashes are to be
/// trusted has fewer.
pub fn readings(oddities: Oddities, trusts_slashes: bool) -> impl Iterator<Item = Reading> {
    let (slash, backslash) = (
        oddities.has(Oddities::ENCODED_SLASH) && !trusts_slashes,
        oddities.has(Oddities::ENCODED_BACKSLASH) && !trusts_slashes,
    );
    let overlong = oddities.has(Oddities::OVERLONG);
    let semicolon = oddities.has(Oddities::SEMICOLON);
    let separators = [
        Some((false, false, false)),
        slash.then_some((true, false, false)),
        backslash.then_some((false, true, false)),
        (slash && backslash).then_some((true, true, false)),
        overlong.then_some((!trusts_slashes, !trusts_slashes, true)),
    ];
    let parameters = [
        Some(Parameters::Kept),
        semicolon.then_some(Parameters::CutFirst),
        semicolon.then_some(Parameters::CutLast),
    ];
    let separators = separators.into_iter().flatten();
    separators.flat_map(move |(slash, backslash, overlong)| {
        let parameters = parameters.into_iter().flatten();
        parameters.flat_map(move |parameters| {
            [false, true].map(|merges_late| Reading {
                slash,
                backslash,
                overlong,
                again: false,
                parameters,
                merges_late,
            })
        })
    })
}

impl Reading {
    /// The one that routes are matched in.
    pub const LITERAL: Self = Self {
        slash: false,
        backslash: false,
        overlong: false,
        again: false,
        parameters: Parameters::Kept,
        merges_late: false,
    };

    /// Decodes until nothing changes and takes everything for a separator that somebody takes for one.
    pub const LAX: Self = Self {
        slash: true,
        backslash: true,
        overlong: true,
        again: true,
        parameters: Parameters::CutLast,
        merges_late: false,
    };

    /// The same, with slashes merged after dot segments are resolved.
    pub const LAX_LATE: Self = Self {
        merges_late: true,
        ..Self::LAX
    };

    /// Writes what `path` stands for into `out`, in the form that routes are matched against. Says whether a dot
    /// segment was resolved. Both buffers are overwritten.
    pub fn read(self, path: &[u8], decoded: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        self.decode(path, decoded);
        if self.again {
            for _ in 1..DECODINGS_MAX {
                mem::swap(decoded, out);
                self.decode(out, decoded);
                if decoded.len() == out.len() {
                    break;
                }
            }
        }
        self.resolve(decoded, out)
    }

    fn decode(self, path: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let mut rest = path;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match byte {
                b'%' => self.decode_one(rest, tail, out),
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

    /// Decodes what `text` begins with, which is a percent sign, and returns what comes after it.
    fn decode_one<'p>(self, text: &'p [u8], tail: &'p [u8], out: &mut Vec<u8>) -> &'p [u8] {
        let Some((octet, after)) = decode_octet(text) else {
            out.push(b'%');
            return tail;
        };
        let overlong = self.overlong.then(|| decode_overlong(octet, after));
        let (octet, after) = overlong.flatten().unwrap_or((octet, after));
        match octet {
            b'/' if self.slash => out.push(b'/'),
            b'\\' if self.backslash => out.push(b'/'),
            b';' if self.parameters == Parameters::CutLast => out.push(b';'),
            b'%' if self.again && is_hexadecimal(after) => out.push(b'%'),
            _ if is_unreserved(octet) => out.push(octet),
            _ => {
                let digit = |value: u8| value + if value < 10 { b'0' } else { b'A' - 10 };
                out.extend_from_slice(&[b'%', digit(octet >> 4), digit(octet & 0xf)]);
            }
        }
        after
    }

    //= rfc3986#5.2.4
    // "." goes, ".." takes the segment before it along and never leaves the root.
    fn resolve(self, decoded: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let mut has_dots = false;
        let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            let segment = match self.parameters {
                Parameters::CutLast => segment.split(|&byte| byte == b';').next(),
                Parameters::Kept | Parameters::CutFirst => Some(segment),
            };
            match segment.unwrap_or_default() {
                b"." => has_dots = true,
                b".." => {
                    has_dots = true;
                    let parent = out.iter().rposition(|&byte| byte == b'/');
                    out.truncate(parent.unwrap_or(0));
                }
                [] if !self.merges_late || is_last => {}
                name => {
                    out.push(b'/');
                    out.extend_from_slice(name);
                    continue;
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
        };
        let parts = [
            if self.again { "decodes twice" } else { "" },
            if self.overlong {
                "takes overlong UTF-8"
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
    fn each_reading_by_its_rules() {
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
        let overlong = Reading {
            overlong: true,
            slash: true,
            backslash: true,
            ..literal
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
            (Reading::LAX, "/a/%252e%252e/b", "/b"),
            (Reading::LAX, "/a%25252f%25%32%65%2e/%2525", "/%25"),
            (Reading::LAX, "/100%25", "/100%25"),
        ] {
            assert_eq!(read(reading, path), expected, "{path} by {reading:?}");
        }
    }
}
