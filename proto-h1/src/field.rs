//! The field names that Weir handles, as small numbers.

pub use crate::scan::is_token;

macro_rules! fields {
    ($($id:ident = $name:literal,)*) => {
        /// A known field name, or [`FieldId::Other`]. Below 64, so that a set of them fits in a
        /// word.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FieldId {
            /// Any name that is not in this list.
            #[default]
            Other = 0,
            $(#[doc = concat!("`", $name, "`")] $id,)*
        }

        const IDS: &[FieldId] = &[FieldId::Other, $(FieldId::$id,)*];
        const NAMES: &[&str] = &["", $($name,)*];
    };
}

fields! {
    Host = "Host",
    ContentLength = "Content-Length",
    TransferEncoding = "Transfer-Encoding",
    Connection = "Connection",
    KeepAlive = "Keep-Alive",
    ProxyConnection = "Proxy-Connection",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    Te = "TE",
    Trailer = "Trailer",
    Upgrade = "Upgrade",
    Http2Settings = "HTTP2-Settings",
    Expect = "Expect",
    Via = "Via",
    Forwarded = "Forwarded",
    XForwardedFor = "X-Forwarded-For",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedHost = "X-Forwarded-Host",
    XRealIp = "X-Real-IP",
    XRequestId = "X-Request-ID",
    Authorization = "Authorization",
    WwwAuthenticate = "WWW-Authenticate",
    Cookie = "Cookie",
    SetCookie = "Set-Cookie",
    Server = "Server",
    Date = "Date",
    ContentType = "Content-Type",
    ContentEncoding = "Content-Encoding",
    ContentRange = "Content-Range",
    ContentLanguage = "Content-Language",
    ContentLocation = "Content-Location",
    UserAgent = "User-Agent",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AcceptRanges = "Accept-Ranges",
    CacheControl = "Cache-Control",
    Pragma = "Pragma",
    Age = "Age",
    Expires = "Expires",
    Etag = "ETag",
    LastModified = "Last-Modified",
    Vary = "Vary",
    IfMatch = "If-Match",
    IfNoneMatch = "If-None-Match",
    IfModifiedSince = "If-Modified-Since",
    IfUnmodifiedSince = "If-Unmodified-Since",
    IfRange = "If-Range",
    Range = "Range",
    Location = "Location",
    Origin = "Origin",
    Referer = "Referer",
    RetryAfter = "Retry-After",
    MaxForwards = "Max-Forwards",
    Allow = "Allow",
    Link = "Link",
    ProxyStatus = "Proxy-Status",
    Traceparent = "Traceparent",
    Tracestate = "Tracestate",
    SecWebSocketKey = "Sec-WebSocket-Key",
    SecWebSocketVersion = "Sec-WebSocket-Version",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketProtocol = "Sec-WebSocket-Protocol",
}

impl FieldId {
    /// Finds the id of a field name in any case.
    #[inline]
    #[must_use]
    pub fn from_name(name: &[u8]) -> Self {
        Self::at_front(name, name.len())
    }

    /// Finds the id of the name in the first `len` bytes of `bytes`. This is cheaper if more bytes
    /// follow the name.
    #[inline]
    pub(crate) fn at_front(bytes: &[u8], len: usize) -> Self {
        let ends = ends(bytes, len);
        let slot = usize::from(hash(ends));
        let Some(known) = SLOTS
            .get(slot)
            .and_then(|&id| PATTERNS.get(usize::from(id)))
        else {
            return Self::Other;
        };
        if known.is(bytes, len, ends) {
            known.id
        } else {
            Self::Other
        }
    }

    /// The name as registered; empty for [`FieldId::Other`].
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or_default()
    }

    /// Every known name.
    pub fn all() -> impl Iterator<Item = Self> {
        IDS.iter().copied().skip(1)
    }
}

/// A set of known names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u64);

impl FieldSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// The set of these names.
    #[must_use]
    pub const fn of(ids: &[FieldId]) -> Self {
        let mut bits = 0;
        let mut rest = ids;
        while let [id, tail @ ..] = rest {
            bits |= 1 << *id as u8;
            rest = tail;
        }
        Self(bits)
    }

    /// Whether the set has a name.
    #[inline]
    #[must_use]
    pub const fn has(self, id: FieldId) -> bool {
        self.0 >> id as u8 & 1 != 0
    }

    #[inline]
    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Adds a name.
    #[inline]
    pub const fn add(&mut self, id: FieldId) {
        self.0 |= 1 << id as u8;
    }

    /// Adds `id` if `other` has it.
    #[inline]
    pub(crate) const fn add_if(&mut self, id: FieldId, other: Self) {
        self.0 |= other.0 & 1 << id as u8;
    }

    #[inline]
    pub(crate) const fn drop(&mut self, id: FieldId) {
        self.0 &= !(1 << id as u8);
    }

    #[inline]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of both sets.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A known name, prepared for comparison: its words in lower case, and masks that lower only the
/// letters of a candidate.
#[derive(Clone, Copy)]
struct NamePattern {
    id: FieldId,
    len: u8,
    first: FoldedWord,
    middle: FoldedWord,
    last: FoldedWord,
}

#[derive(Clone, Copy)]
struct FoldedWord {
    lower: u64,
    mask: u64,
}

impl FoldedWord {
    #[expect(
        clippy::indexing_slicing,
        reason = "evaluated at compile time, which checks the bounds"
    )]
    const fn of(wire: u64) -> Self {
        let mut bytes = wire.to_le_bytes();
        let mut mask = [0; 8];
        let mut at = 0;
        while at < 8 {
            if bytes[at].is_ascii_alphabetic() {
                mask[at] = 0x20;
                bytes[at] |= 0x20;
            }
            at += 1;
        }
        Self {
            lower: u64::from_le_bytes(bytes),
            mask: u64::from_le_bytes(mask),
        }
    }

    #[inline]
    const fn is(self, wire: u64) -> bool {
        wire | self.mask == self.lower
    }
}

impl NamePattern {
    const fn of(id: FieldId, name: &[u8]) -> Self {
        assert!(name.len() <= 24, "a known name fits in three words");
        let (first, last) = ends(name, name.len());
        let (first, middle, last) = (
            FoldedWord::of(first),
            FoldedWord::of(middle(name)),
            FoldedWord::of(last),
        );
        Self {
            id,
            len: name.len() as u8,
            first,
            middle,
            last,
        }
    }

    #[inline]
    fn is(&self, bytes: &[u8], len: usize, (first, last): (u64, u64)) -> bool {
        usize::from(self.len) == len
            && self.first.is(first)
            && self.last.is(last)
            && (len <= 16 || self.middle.is(middle(bytes)))
    }
}

/// The first and the last eight bytes of a name. For a shorter name, both are the whole name padded
/// with zeros.
#[inline]
const fn ends(bytes: &[u8], len: usize) -> (u64, u64) {
    if len < 8 {
        let word = match bytes.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk) & !(u64::MAX << (8 * len)),
            None => short(bytes, len),
        };
        return (word, word);
    }
    match (bytes.first_chunk::<8>(), bytes.split_at_checked(len)) {
        (Some(first), Some((name, _))) => match name.last_chunk::<8>() {
            Some(last) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            None => (0, 0),
        },
        _ => (0, 0),
    }
}

/// A name of less than eight bytes at the end of its buffer.
#[cold]
const fn short(bytes: &[u8], len: usize) -> u64 {
    let (mut word, mut shift, mut rest) = (0, 0, bytes);
    while let [byte, tail @ ..] = rest {
        if shift == 8 * len {
            break;
        }
        word |= (*byte as u64) << shift;
        shift += 8;
        rest = tail;
    }
    word
}

/// Bytes 8 to 15 of a name, if it has so many.
#[inline]
const fn middle(name: &[u8]) -> u64 {
    match name.split_at_checked(8) {
        Some((_, rest)) => match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => 0,
        },
        None => 0,
    }
}

/// Gives each known name a slot of its own. `SPREAD` was found by trial; `SLOTS` checks it.
#[inline]
const fn hash((first, last): (u64, u64)) -> u8 {
    const FOLD: u64 = u64::from_le_bytes([0x20; 8]);
    const SPREAD: u64 = 0x473d_e855_8aa9_7467;
    let folded = (first | FOLD).wrapping_add((last | FOLD) << 1);
    (folded.wrapping_mul(SPREAD) >> 56) as u8
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
const PATTERNS: [NamePattern; NAMES.len()] = {
    let mut known = [NamePattern::of(FieldId::Other, b""); NAMES.len()];
    let mut at = 1;
    while at < NAMES.len() {
        known[at] = NamePattern::of(IDS[at], NAMES[at].as_bytes());
        at += 1;
    }
    known
};

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
const SLOTS: [u8; 256] = {
    let mut slots = [0; 256];
    let mut at = 1;
    while at < NAMES.len() {
        let slot = hash(ends(NAMES[at].as_bytes(), NAMES[at].len())) as usize;
        assert!(
            slots[slot] == 0,
            "two names share a slot: choose another SPREAD"
        );
        slots[slot] = at as u8;
        at += 1;
    }
    slots
};

const _: () = assert!(NAMES.len() <= 64, "a set of ids fits in a word");

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_name_is_found_in_any_case() {
        for id in FieldId::all() {
            let name = id.name();
            assert_eq!(FieldId::from_name(name.as_bytes()), id, "{name}");
            assert_eq!(
                FieldId::from_name(name.to_ascii_lowercase().as_bytes()),
                id,
                "{name}"
            );
            assert_eq!(
                FieldId::from_name(name.to_ascii_uppercase().as_bytes()),
                id,
                "{name}"
            );
        }
    }

    /// A known name with one byte changed is not known, unless only its case changed.
    #[test]
    fn near_misses_are_unknown() {
        for id in FieldId::all() {
            for place in 0..id.name().len() {
                for byte in 0..=255u8 {
                    let mut name: Vec<u8> = id.name().as_bytes().into();
                    name[place] = byte;
                    let same = name.eq_ignore_ascii_case(id.name().as_bytes());
                    let expect = if same { id } else { FieldId::from_name(&name) };
                    assert_eq!(FieldId::from_name(&name), expect);
                    assert_eq!(FieldId::from_name(&name) == id, same, "{name:?}");
                }
            }
            assert_eq!(
                FieldId::from_name(&id.name().as_bytes()[1..]),
                FieldId::Other
            );
        }
        assert_eq!(FieldId::from_name(b""), FieldId::Other);
        assert_eq!(FieldId::from_name(b"X"), FieldId::Other);
        assert_eq!(FieldId::from_name(&[b'a'; 300]), FieldId::Other);
    }
}
