//! The path that goes upstream, and the check that no endpoint reads it as the path of another route.
//!
//! Weir chooses a route by one reading of the path, and the endpoint may have another. If the path led to another route
//! in the endpoint's reading, a request could slip past a route that denies access. So every reading in use must lead
//! to the same route. `config/paths.md` has the rules.

use weir_proto_h1::path::{PathAmbiguities, is_plain, normalize_path};

use super::{Plan, RouteId, RoutePlan, RouteTarget};
use crate::limits::PATH_BYTES_READ_MAX;
use crate::route::{Reading, RequestView, RouteLookup, lax_readings, readings};
use weir_config::EncodedSlash;

/// Passes over a path that is decoded more than once. A path that is encoded more than twice shrinks with each pass.
const LAX_PASSES: usize = 2;

/// Buffers for comparing readings of paths.
#[derive(Debug, Default)]
pub(super) struct PathBuffers {
    decoded: Vec<u8>,
    read: Vec<u8>,
    rewritten: Vec<u8>,
    expected: Vec<u8>,
}

/// Why Weir refuses a request although a route matches its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathObjection {
    /// The route refuses encoded slashes.
    EncodedSlash,
    /// The path is long and has many readings, so comparing them would cost too much.
    TooOdd,
    /// In this reading, another route takes the path, or no route does, or it depends on claims that are not known yet.
    Read {
        /// The reading.
        by: Reading,
        /// The path in this reading.
        path: Vec<u8>,
        /// The route of that path.
        found: RouteLookup,
    },
    /// In this reading, the rewritten path differs from the rewrite of the path in the same reading: it has dot
    /// segments, or separators within what was one segment.
    Rewritten {
        /// The reading.
        by: Reading,
    },
    /// The location of the redirect has a dot segment.
    Redirected,
}

impl Plan {
    /// Writes to `sent` the path that a request goes upstream with, if the route changes it, or the location that the
    /// route redirects to.
    ///
    /// # Errors
    /// In some reading, the path does not lead to that route.
    #[inline]
    pub(super) fn settle_path(
        &self,
        (id, pattern): (RouteId, usize),
        view: &RequestView<'_>,
        sent: &mut Vec<u8>,
        buffers: &mut PathBuffers,
    ) -> Result<(), PathObjection> {
        let Some(route) = self.route(id) else {
            return Ok(());
        };
        match &route.target {
            RouteTarget::Respond(_) => Ok(()),
            RouteTarget::Redirect(redirect) => {
                redirect.location(view, pattern, sent);
                match has_dot_segment(path_of(sent), &mut buffers.read) {
                    true => Err(PathObjection::Redirected),
                    false => Ok(()),
                }
            }
            RouteTarget::Upstream(_) | RouteTarget::Split(_) => {
                if !view.ambiguities.is_empty() {
                    self.compare_readings(id, route, view, buffers)?;
                }
                match &route.rewrite {
                    Some(_) => rewrite(route, pattern, view, sent, buffers),
                    None if view.ambiguities.has(PathAmbiguities::DOT_SEGMENT) => {
                        sent.extend_from_slice(view.path);
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Checks that every reading of the path leads to the same route.
    #[cold]
    fn compare_readings(
        &self,
        id: RouteId,
        route: &RoutePlan,
        view: &RequestView<'_>,
        buffers: &mut PathBuffers,
    ) -> Result<(), PathObjection> {
        let separators = PathAmbiguities::ENCODED_SLASH | PathAmbiguities::ENCODED_BACKSLASH;
        if route.encoded_slash == EncodedSlash::Refuse && view.ambiguities.has(separators) {
            return Err(PathObjection::EncodedSlash);
        }
        let trusts_slashes = route.encoded_slash == EncodedSlash::Keep;
        let has_dots = view.ambiguities.has(PathAmbiguities::DOT_SEGMENT);
        let PathBuffers { decoded, read, .. } = buffers;
        // If there are dot segments, the endpoint gets the normal form of the path, but the client may have meant
        // another reading of the path as it came. Both count.
        let paths = [Some(view.received_path), has_dots.then_some(view.path)];
        // The other route that takes the path, and whether a dot segment led there.
        let mut find = |by: Reading, path: &[u8]| {
            let has_dots = by.read(path, decoded, read);
            if read.as_slice() == view.path {
                return None;
            }
            let path = read.as_slice();
            let found = self.table.find(&RequestView { path, ..*view });
            let is_same = found.route().is_some_and(|other| self.is_alike(id, other));
            (!is_same).then_some((found, has_dots))
        };
        let again = view.ambiguities.has(PathAmbiguities::ENCODED_PERCENT);
        let lax = || lax_readings(trusts_slashes).filter(|_| again);
        let lengths: usize = paths.into_iter().flatten().map(<[u8]>::len).sum();
        let bytes = readings(view.ambiguities, trusts_slashes).count() * lengths
            + lax().count() * LAX_PASSES * view.received_path.len();
        if bytes > PATH_BYTES_READ_MAX {
            return Err(PathObjection::TooOdd);
        }
        for by in readings(view.ambiguities, trusts_slashes) {
            for path in paths.into_iter().flatten() {
                if let Some((found, _)) = find(by, path) {
                    let path = read.clone();
                    return Err(PathObjection::Read { by, path, found });
                }
            }
        }
        // Few endpoints read like this, and such paths are often harmless. So only a route that denies access counts, or
        // that lets others in than this one, and a dot segment that leads out of the route, which no client encodes twice by accident.
        let authority = after_authority(view.received_path).map(|path| (Reading::LITERAL, path));
        let lax = lax().map(|by| (by, view.received_path));
        for (by, path) in lax.chain(authority) {
            if let Some((found, has_dots)) = find(by, path)
                && (found.needs_claims()
                    || self.forbids(&found, route)
                    || (has_dots && by != Reading::LITERAL))
            {
                let path = read.clone();
                return Err(PathObjection::Read { by, path, found });
            }
        }
        Ok(())
    }

    /// Whether two routes do the same with a request ([`RoutePlan::is_alike`]).
    fn is_alike(&self, id: RouteId, other: RouteId) -> bool {
        let same = |(one, other): (&RoutePlan, &RoutePlan)| one.is_alike(other);
        id == other || self.route(id).zip(self.route(other)).is_some_and(same)
    }

    /// Whether the other route may refuse a request that `route` lets pass.
    fn forbids(&self, found: &RouteLookup, route: &RoutePlan) -> bool {
        let other = found.route().and_then(|id| self.route(id));
        other.is_some_and(|other| {
            other.forbids || (other.guard.is_some() && other.guard != route.guard)
        })
    }
}

/// Rewrites the path. In every reading, the rewritten path must equal the rewrite of the path in that reading and have
/// no dot segments: `/files/{rest}` promises that the endpoint gets only paths under `/files/`.
fn rewrite(
    route: &RoutePlan,
    pattern: usize,
    view: &RequestView<'_>,
    sent: &mut Vec<u8>,
    buffers: &mut PathBuffers,
) -> Result<(), PathObjection> {
    let Some(rewrite) = &route.rewrite else {
        return Ok(());
    };
    let base = view.settled_path();
    rewrite.apply(pattern, base, sent);
    if view.ambiguities.is_empty() && is_plain(sent) {
        return Ok(());
    }
    compare_rewritten(route, pattern, view, sent, buffers)
}

#[cold]
fn compare_rewritten(
    route: &RoutePlan,
    pattern: usize,
    view: &RequestView<'_>,
    sent: &[u8],
    buffers: &mut PathBuffers,
) -> Result<(), PathObjection> {
    let PathBuffers {
        decoded,
        read,
        rewritten,
        expected,
    } = buffers;
    let refused = |by| Err(PathObjection::Rewritten { by });
    let (Some(rewrite), Ok(normal)) = (&route.rewrite, normalize_path(sent, read)) else {
        return refused(Reading::LITERAL);
    };
    let ambiguities = view.ambiguities | normal.ambiguities;
    if ambiguities.is_empty() {
        return Ok(());
    }
    let trusts_slashes = route.encoded_slash == EncodedSlash::Keep;
    let again = ambiguities.has(PathAmbiguities::ENCODED_PERCENT);
    let lax = || lax_readings(trusts_slashes).filter(|_| again);
    let lengths = view.settled_path().len() + 2 * sent.len();
    let bytes = readings(ambiguities, trusts_slashes).count() * lengths
        + lax().count() * LAX_PASSES * sent.len();
    if bytes > PATH_BYTES_READ_MAX {
        return Err(PathObjection::TooOdd);
    }
    for by in readings(ambiguities, trusts_slashes) {
        by.read(view.settled_path(), decoded, read);
        rewritten.clear();
        rewrite.apply(pattern, read, rewritten);
        let has_dots = by.read(rewritten, decoded, expected);
        by.read(sent, decoded, read);
        if has_dots || read != expected {
            return refused(by);
        }
    }
    match lax().find(|by| by.read(sent, decoded, read)) {
        Some(by) => refused(by),
        None => Ok(()),
    }
}

/// The rest of a path with two leading slashes if it is read as a relative reference (RFC 3986, section 4.2), which
/// begins with an authority: `new URL("//a/b", base)` has the path `/b`.
fn after_authority(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"//")?;
    let slash = rest.iter().position(|&byte| byte == b'/');
    Some(slash.map_or(&b"/"[..], |slash| rest.get(slash..).unwrap_or_default()))
}

/// The path of a location, without scheme, authority and query.
fn path_of(location: &[u8]) -> &[u8] {
    let is_end = |byte: &u8| matches!(byte, b'?' | b'#');
    let before_query = location.split(is_end).next().unwrap_or_default();
    let scheme = before_query.windows(3).position(|part| part == b"://");
    let after_scheme = scheme.and_then(|at| before_query.get(at + 3..));
    after_scheme.map_or(before_query, |rest| {
        let slash = rest.iter().position(|&byte| byte == b'/');
        slash.and_then(|at| rest.get(at..)).unwrap_or_default()
    })
}

/// Whether a path has dot segments that clients would resolve.
fn has_dot_segment(path: &[u8], out: &mut Vec<u8>) -> bool {
    if is_plain(path) {
        return false;
    }
    let normal = normalize_path(path, out);
    normal.is_ok_and(|normal| normal.ambiguities.has(PathAmbiguities::DOT_SEGMENT))
}
