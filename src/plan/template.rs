//! Rewrites and redirects: paths and locations built from a request.

use weir_config::{Match, PathMatch, PlaceholderText, Segment, TextPiece};
use weir_proto_h1::path::{decode_octet, is_unreserved};

use crate::policy::segment;
use crate::route::RequestView;

/// How a route changes the path of requests that go upstream. The query stays as it is.
#[derive(Clone, Debug)]
pub struct Rewrite(PathChange);

#[derive(Clone, Debug)]
enum PathChange {
    /// Replaces the first bytes of the normal path.
    Prefix { bytes: usize, with: Box<[u8]> },
    /// Builds a new path.
    Path(Template),
}

impl Rewrite {
    /// Compiles the rewrite of a route with this match.
    ///
    /// # Errors
    /// A placeholder that means nothing here.
    pub(super) fn compile(rewrite: &weir_config::Rewrite, matches: &Match) -> Result<Self, String> {
        Ok(Self(match rewrite {
            weir_config::Rewrite::Prefix { prefix, with } => PathChange::Prefix {
                bytes: prefix.len(),
                with: with.as_bytes().into(),
            },
            weir_config::Rewrite::Path(pattern) => {
                let misplaced =
                    |piece: &&TextPiece| matches!(piece, TextPiece::Host | TextPiece::Query);
                if let Some(piece) = pattern.0.iter().find(misplaced) {
                    return Err(format!(
                        "{piece:?} cannot be part of a path; the query is kept as it is"
                    ));
                }
                PathChange::Path(Template::compile(pattern, matches)?)
            }
        }))
    }

    /// Appends the new path to `out`.
    ///
    /// `path` matches this pattern of the route and has no dot segments. The rewrite keeps the bytes of the parts that
    /// it takes over. Empty segments do not count as segments. The new path begins with exactly one slash, because an
    /// authority would follow two.
    pub fn apply(&self, pattern: usize, path: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        match &self.0 {
            PathChange::Prefix { bytes, with } => {
                out.extend_from_slice(with);
                out.extend_from_slice(after_normal_bytes(path, *bytes));
            }
            PathChange::Path(template) => template.fill(pattern, b"", path, b"", out),
        }
        match leading_slashes(out.get(start..).unwrap_or_default()) {
            0 => out.insert(start, b'/'),
            slashes => drop(out.drain(start..start + slashes - 1)),
        }
    }
}

/// A redirect.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    template: Template,
    /// Whether the location is a path on the same host. No request may turn it into another host.
    is_local: bool,
}

impl Redirect {
    /// Compiles the redirect of a route with this match.
    ///
    /// # Errors
    /// A placeholder that means nothing here.
    pub(super) fn compile(
        redirect: &weir_config::Redirect,
        matches: &Match,
    ) -> Result<Self, String> {
        let is_local = match redirect.location.0.first() {
            Some(TextPiece::Text(text)) => text.starts_with('/') && !text.starts_with("//"),
            Some(TextPiece::Path) => true,
            _ => false,
        };
        Ok(Self {
            status: redirect.status,
            template: Template::compile(&redirect.location, matches)?,
            is_local,
        })
    }

    /// Appends the location for a request that matches this pattern of the route.
    pub fn location(&self, view: &RequestView<'_>, pattern: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.template
            .fill(pattern, view.host, view.settled_path(), view.query, out);
        // "//host" would be another host, and browsers read "/\" the same way.
        if self.is_local {
            let location = out.get(start..).unwrap_or_default();
            let doubled = leading_slashes(location).saturating_sub(1);
            out.drain(start..start + doubled);
        }
    }
}

/// Text with placeholders, compiled once for each path pattern of the route, because a name stands for another part of
/// the path in each.
#[derive(Clone, Debug)]
struct Template(Box<[Box<[Part]>]>);

#[derive(Clone, Debug)]
enum Part {
    Text(Box<[u8]>),
    Host,
    Path,
    /// The query with its question mark.
    Query,
    /// The rest after this many bytes of the normal path.
    AfterBytes(usize),
    /// The rest after this many segments and a slash.
    AfterSegments(usize),
    /// The segment at this place, from 0.
    Segment(usize),
}

impl Template {
    fn compile(pattern: &PlaceholderText, matches: &Match) -> Result<Self, String> {
        let parts = |path: &PathMatch| {
            let parts = pattern.0.iter().map(|piece| Part::compile(piece, path));
            parts.collect::<Result<_, _>>()
        };
        let all = matches.paths.iter().map(parts);
        all.collect::<Result<_, _>>().map(Self)
    }

    fn fill(&self, pattern: usize, host: &[u8], path: &[u8], query: &[u8], out: &mut Vec<u8>) {
        for part in self.0.get(pattern).into_iter().flatten() {
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
                    out.extend_from_slice(after_segments(path, *count));
                }
                Part::Segment(place) => out.extend_from_slice(segment(path, *place)),
            }
        }
    }
}

impl Part {
    fn compile(piece: &TextPiece, path: &PathMatch) -> Result<Self, String> {
        Ok(match piece {
            TextPiece::Text(text) => Self::Text(text.as_bytes().into()),
            TextPiece::Host => Self::Host,
            TextPiece::Path => Self::Path,
            TextPiece::Query => Self::Query,
            TextPiece::Rest => match path {
                PathMatch::Prefix(prefix) => Self::AfterBytes(prefix.len()),
                PathMatch::Template {
                    segments,
                    open: true,
                } => Self::AfterSegments(segments.len()),
                _ => return Err("`{rest}` needs a star at the end of the match".to_owned()),
            },
            TextPiece::Parameter(name) => {
                let segments = match path {
                    PathMatch::Template { segments, .. } => segments.as_slice(),
                    _ => &[],
                };
                let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(other) if other == name);
                let place = segments.iter().position(is_it);
                Self::Segment(place.ok_or_else(|| format!("the match has no `{{{name}}}`"))?)
            }
        })
    }
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

fn leading_slashes(text: &[u8]) -> usize {
    let is_separator = |byte: &&u8| matches!(byte, b'/' | b'\\');
    text.iter().take_while(is_separator).count()
}

/// The rest after the leading slashes.
fn after_slashes(text: &[u8]) -> &[u8] {
    let slashes = text.iter().take_while(|byte| is_slash(byte)).count();
    text.get(slashes..).unwrap_or_default()
}

/// The rest after the bytes of `path` that become `count` bytes in normal form.
fn after_normal_bytes(path: &[u8], count: usize) -> &[u8] {
    let mut rest = path;
    for _ in 0..count {
        rest = match (rest, decode_octet(rest)) {
            ([], _) => break,
            (_, Some((octet, after))) if is_unreserved(octet) => after,
            ([b'/', after @ ..], _) => after_slashes(after),
            ([_, after @ ..], _) => after,
        };
    }
    rest
}

/// The rest after this many segments and the slashes behind them.
fn after_segments(path: &[u8], count: usize) -> &[u8] {
    let mut rest = after_slashes(path);
    for _ in 0..count {
        let end = rest.iter().position(is_slash).unwrap_or(rest.len());
        rest = after_slashes(rest.get(end..).unwrap_or_default());
    }
    rest
}
