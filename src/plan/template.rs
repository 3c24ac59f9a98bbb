//! Paths and locations built from a request: rewrites and redirects.

use weir_config::{Match, PathMatch, Pattern, Piece, Segment};
use weir_proto_h1::target::{Normal, PathRules, normalize_path};

use crate::route::RequestView;

/// Change of the path on its way upstream. The query stays as it is.
#[derive(Clone, Debug)]
pub struct Rewrite(Change);

#[derive(Clone, Debug)]
enum Change {
    /// The first bytes of the normal path are exchanged.
    Prefix { bytes: usize, with: Box<[u8]> },
    /// The path is built anew.
    Path(Template),
}

impl Rewrite {
    /// Compiles the rewrite of a route with this match.
    ///
    /// # Errors
    /// A sentence about a placeholder that has no meaning here.
    pub(super) fn compile(rewrite: &weir_config::Rewrite, matches: &Match) -> Result<Self, String> {
        Ok(Self(match rewrite {
            weir_config::Rewrite::Prefix { prefix, with } => Change::Prefix {
                bytes: prefix.len(),
                with: with.as_bytes().into(),
            },
            weir_config::Rewrite::Path(pattern) => {
                let misplaced = |piece: &&Piece| matches!(piece, Piece::Host | Piece::Query);
                if let Some(piece) = pattern.0.iter().find(misplaced) {
                    return Err(format!(
                        "{piece:?} cannot be part of a path; the query is kept as it is"
                    ));
                }
                Change::Path(Template::compile(pattern, matches)?)
            }
        }))
    }

    /// Appends the new path to `out`.
    ///
    /// `path` is the path as received, of a request that the route has taken. What is kept of it
    /// keeps its percent-encoding; dot segments and duplicate slashes are resolved first where
    /// there are any, since a cut in them would mean another path. The outcome begins with a slash.
    pub fn apply(&self, path: &[u8], out: &mut Vec<u8>) {
        let mut scratch = Vec::new();
        let path = settled(path, &mut scratch);
        let start = out.len();
        match &self.0 {
            Change::Prefix { bytes, with } => {
                let rest = after_normal_bytes(path, *bytes);
                out.extend_from_slice(with);
                out.extend_from_slice(rest);
            }
            Change::Path(template) => template.fill(b"", path, b"", out),
        }
        if out.get(start) != Some(&b'/') {
            out.insert(start, b'/');
        }
    }
}

/// A redirect.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    template: Template,
    /// Whether the location is a path on the same host, which no request may turn into another.
    is_local: bool,
}

impl Redirect {
    /// Compiles the redirect of a route with this match.
    ///
    /// # Errors
    /// A sentence about a placeholder that has no meaning here.
    pub(super) fn compile(
        redirect: &weir_config::Redirect,
        matches: &Match,
    ) -> Result<Self, String> {
        let is_local = match redirect.location.0.first() {
            Some(Piece::Text(text)) => text.starts_with('/') && !text.starts_with("//"),
            Some(Piece::Path) => true,
            _ => false,
        };
        Ok(Self {
            status: redirect.status,
            template: Template::compile(&redirect.location, matches)?,
            is_local,
        })
    }

    /// Appends the Location of a request that the route has taken.
    pub fn location(&self, view: &RequestView<'_>, out: &mut Vec<u8>) {
        let mut scratch = Vec::new();
        let path = settled(view.head.path_or_root(view.block), &mut scratch);
        let mut location = Vec::new();
        self.template
            .fill(view.host, path, view.query, &mut location);
        // "//host" would be another host, and browsers take "/\" for the same.
        let is_separator = |byte: &&u8| matches!(byte, b'/' | b'\\');
        let slashes = location.iter().take_while(is_separator).count();
        let skipped = if self.is_local {
            slashes.saturating_sub(1)
        } else {
            0
        };
        out.extend(location.iter().skip(skipped));
    }
}

/// Text with places to be filled from a request.
#[derive(Clone, Debug)]
struct Template(Box<[Part]>);

#[derive(Clone, Debug)]
enum Part {
    Text(Box<[u8]>),
    Host,
    Path,
    /// With its question mark.
    Query,
    /// What comes after this many bytes of the normal path.
    AfterBytes(usize),
    /// What comes after this many segments and a slash.
    AfterSegments(usize),
    /// The segment of this place, from 0.
    Segment(usize),
}

impl Template {
    fn compile(pattern: &Pattern, matches: &Match) -> Result<Self, String> {
        let part = |piece: &Piece| {
            Ok(match piece {
                Piece::Text(text) => Part::Text(text.as_bytes().into()),
                Piece::Host => Part::Host,
                Piece::Path => Part::Path,
                Piece::Query => Part::Query,
                Piece::Rest => match &matches.path {
                    PathMatch::Prefix(prefix) => Part::AfterBytes(prefix.len()),
                    PathMatch::Template {
                        segments,
                        open: true,
                    } => Part::AfterSegments(segments.len()),
                    _ => return Err("`{rest}` needs a star at the end of the match".to_owned()),
                },
                Piece::Parameter(name) => {
                    let segments = match &matches.path {
                        PathMatch::Template { segments, .. } => segments.as_slice(),
                        _ => &[],
                    };
                    let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(other) if other == name);
                    let place = segments.iter().position(is_it);
                    Part::Segment(place.ok_or_else(|| format!("the match has no `{{{name}}}`"))?)
                }
            })
        };
        pattern
            .0
            .iter()
            .map(part)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn fill(&self, host: &[u8], path: &[u8], query: &[u8], out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Host => out.extend_from_slice(host),
                Part::Path => out.extend_from_slice(path),
                Part::Query if query.is_empty() => {}
                Part::Query => {
                    out.push(b'?');
                    out.extend_from_slice(query);
                }
                Part::AfterBytes(bytes) => {
                    out.extend_from_slice(after_normal_bytes(path, *bytes));
                }
                Part::AfterSegments(count) => {
                    let rest = path.splitn(count + 2, is_slash).nth(count + 1);
                    out.extend_from_slice(rest.unwrap_or_default());
                }
                Part::Segment(place) => {
                    let segment = path.split(is_slash).nth(place + 1);
                    out.extend_from_slice(segment.unwrap_or_default());
                }
            }
        }
    }
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

/// The path as received where its segments are those of its normal form, else the normal form.
fn settled<'a>(path: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    // What a route was found for has passed the real rules; nothing may be refused again.
    const ALLOW_ALL: PathRules = PathRules {
        allow_encoded_slash: true,
        allow_nul: true,
    };
    match normalize_path(path, ALLOW_ALL, scratch) {
        Ok(Normal::Rewritten) if !has_same_segments(path, scratch) => scratch,
        _ => path,
    }
}

/// Whether only percent-encoding differs between a path and its normal form. Each segment that
/// normalising takes away takes a slash along; only a dot segment at the end of a root may not.
fn has_same_segments(path: &[u8], normal: &[u8]) -> bool {
    let slashes = |path: &[u8]| path.iter().filter(|byte| is_slash(byte)).count();
    slashes(path) == slashes(normal) && path.ends_with(b"/") == normal.ends_with(b"/")
}

/// What follows the bytes of `path` that become `count` bytes in normal form.
fn after_normal_bytes(path: &[u8], count: usize) -> &[u8] {
    let mut rest = path;
    for _ in 0..count {
        rest = match rest {
            [] => break,
            [b'%', high, low, after @ ..] if is_decoded_in_normal_form(*high, *low) => after,
            [_, after @ ..] => after,
        };
    }
    rest
}

//= rfc3986#2.3
// Unreserved characters mean the same encoded or not; the normal form has them plain.
fn is_decoded_in_normal_form(high: u8, low: u8) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return false;
    };
    u8::try_from(high << 4 | low)
        .is_ok_and(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
