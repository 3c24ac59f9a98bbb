//! The origins whose pages may read a route's answers.

use std::cell::RefCell;

use regex_automata::Input;
use regex_automata::meta::Regex;
use weir_config::OriginPattern;

use super::RegexCache;
use crate::limits::{ORIGINS_REGEX_BYTES_MAX, ORIGINS_REGEX_CACHE_BYTES};

/// The longest origin that Weir compares: a scheme, a DNS name of 253 octets and a port. Longer ones are not allowed.
const ORIGIN_BYTES_MAX: usize = 288;

/// A set of origins.
#[derive(Clone, Debug, Default)]
pub struct OriginSet {
    /// Whether every origin is in the set, `null` too.
    is_any: bool,
    has_null: bool,
    /// Origins in canonical form, sorted.
    exact: Box<[Box<[u8]>]>,
    wildcards: Box<[Wildcard]>,
    /// One automaton for all regular expressions.
    regex: Option<Regex>,
    /// What the file says.
    patterns: Box<[OriginPattern]>,
}

/// What stands before and after the star.
type Wildcard = (Box<[u8]>, Box<[u8]>);

impl OriginSet {
    /// Compiles the patterns of a file.
    ///
    /// # Errors
    /// The regular expressions are too large together. The file's own checks find all other mistakes.
    pub fn compile(patterns: &[OriginPattern]) -> Result<Self, String> {
        let mut set = Self {
            patterns: patterns.into(),
            ..Self::default()
        };
        let (mut exact, mut wildcards, mut regexes) = (Vec::new(), Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                OriginPattern::Any => set.is_any = true,
                OriginPattern::Null => set.has_null = true,
                OriginPattern::Exact(origin) => exact.push(origin.as_bytes().into()),
                OriginPattern::Subdomains { before, after } => {
                    wildcards.push((before.as_bytes().into(), after.as_bytes().into()));
                }
                OriginPattern::Regex(regex) => regexes.push(regex.anchored()),
            }
        }
        exact.sort_unstable();
        set.exact = exact.into();
        set.wildcards = wildcards.into();
        if !regexes.is_empty() {
            let config = Regex::config()
                .nfa_size_limit(Some(ORIGINS_REGEX_BYTES_MAX))
                .hybrid_cache_capacity(ORIGINS_REGEX_CACHE_BYTES);
            let regex = Regex::builder().configure(config).build_many(&regexes);
            set.regex = Some(
                regex.map_err(|error| format!("the regular expressions of `origins`: {error}"))?,
            );
        }
        Ok(set)
    }

    /// Whether this set was compiled from these patterns.
    pub fn is_of(&self, patterns: &[OriginPattern]) -> bool {
        *self.patterns == *patterns
    }

    /// Whether every origin is in the set.
    pub fn is_any(&self) -> bool {
        self.is_any
    }

    /// Whether the set has regular expressions, so that [`OriginSet::contains`] needs memory to work in.
    pub fn has_regex(&self) -> bool {
        self.regex.is_some()
    }

    /// The memory in which [`OriginSet::contains`] works.
    pub fn make_cache(&self) -> RegexCache {
        RefCell::new(self.regex.as_ref().map(Regex::create_cache))
    }

    /// Whether the set has this origin, as an `Origin` field gives it. Without the `cache` of this set no regular
    /// expression matches.
    pub fn contains(&self, origin: &[u8], cache: Option<&RegexCache>) -> bool {
        if self.is_any {
            return true;
        }
        if origin == b"null" {
            return self.has_null;
        }
        let mut buffer = [0; ORIGIN_BYTES_MAX];
        let Some(origin) = canonical(origin, &mut buffer) else {
            return false;
        };
        let is_exact = self
            .exact
            .binary_search_by(|each| (**each).cmp(origin))
            .is_ok();
        let is_below = |(before, after): &Wildcard| {
            let rest = origin.strip_prefix(&**before);
            rest.is_some_and(|rest| rest.len() > after.len() && rest.ends_with(after))
        };
        is_exact || self.wildcards.iter().any(is_below) || self.has_match(origin, cache)
    }

    fn has_match(&self, origin: &[u8], cache: Option<&RegexCache>) -> bool {
        let mut cache = cache.map(RefCell::borrow_mut);
        let cache = cache.as_mut().and_then(|cache| cache.as_mut());
        let (Some(regex), Some(cache)) = (&self.regex, cache) else {
            return false;
        };
        let input = Input::new(origin).earliest(true);
        regex.search_half_with(cache, &input).is_some()
    }
}

/// Writes the canonical form of an origin: scheme and host in lower case, no default port. `None` if `origin` is not the
/// origin of a URL with a host.
//= rfc6454#6.2
// The serialization of an origin: scheme, "://", host, and the port if it is not the scheme's default.
fn canonical<'b>(origin: &[u8], buffer: &'b mut [u8; ORIGIN_BYTES_MAX]) -> Option<&'b [u8]> {
    let written = buffer.get_mut(..origin.len())?;
    written.copy_from_slice(origin);
    written.make_ascii_lowercase();
    let written: &[u8] = written;
    let colon = written.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = written.split_at(colon);
    let is_scheme_octet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let is_scheme =
        scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_scheme_octet);
    let authority = rest.strip_prefix(b"://").filter(|_| is_scheme)?;
    let (host, port) = split_port(authority)?;
    let is_default = matches!((scheme, port), (b"http", b":80") | (b"https", b":443"));
    let dropped = if is_default { port.len() } else { 0 };
    let is_whole = is_host(host);
    written.get(..origin.len() - dropped).filter(|_| is_whole)
}

/// Splits `host:port`. The port keeps its colon and is empty if there is none.
fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = authority
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (before, _) = authority.split_at_checked(authority.len() - digits)?;
    if before.last() != Some(&b':') {
        return Some((authority, b""));
    }
    let (host, port) = authority.split_at_checked(before.len() - 1)?;
    (1..=5).contains(&digits).then_some((host, port))
}

/// Whether `host` is a host as origins have it: names, or an IPv6 address in brackets.
fn is_host(host: &[u8]) -> bool {
    if let Some(address) = host.strip_prefix(b"[") {
        let is_octet = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
        return address
            .strip_suffix(b"]")
            .is_some_and(|address| address.iter().all(is_octet));
    }
    let is_octet = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let is_label = |label: &[u8]| !label.is_empty() && label.iter().all(is_octet);
    host.split(|&byte| byte == b'.').all(is_label)
}

#[cfg(test)]
mod tests;
