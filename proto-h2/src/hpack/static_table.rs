//! The static table (RFC 7541, appendix A).

use weir_proto_h1::FieldId;

use super::name::{NameId, PseudoField};

/// An entry of the static table.
pub(super) struct StaticEntry {
    /// The name, then the value.
    pub(super) text: &'static [u8],
    pub(super) name_len: usize,
    pub(super) name_id: NameId,
}

impl StaticEntry {
    #[inline]
    pub(super) fn name(&self) -> &'static [u8] {
        self.text.get(..self.name_len).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn value(&self) -> &'static [u8] {
        self.text.get(self.name_len..).unwrap_or_default()
    }
}

/// Finds an entry by its index, which starts at 1.
#[inline]
pub(super) fn get(index: usize) -> Option<&'static StaticEntry> {
    FIXED.get(index.wrapping_sub(1))
}

/// The number of entries. The indices of the dynamic table follow.
pub(super) const LEN: usize = FIXED.len();

/// The first index with a known name; 0 if there is none.
#[inline]
pub(super) fn name_index(id: FieldId) -> usize {
    usize::from(NAME_INDEX.get(id as usize).copied().unwrap_or_default())
}

/// The first index with the name of a pseudo-field; 0 if there is none.
#[inline]
pub(super) const fn pseudo_index(pseudo: PseudoField) -> usize {
    match pseudo {
        PseudoField::Authority => 1,
        PseudoField::Method => 2,
        PseudoField::Path => 4,
        PseudoField::Scheme => 6,
        PseudoField::Status => 8,
        PseudoField::Protocol => 0,
    }
}

/// The index of a pseudo-field with this value; 0 if there is none.
#[inline]
pub(super) fn pseudo_field(pseudo: PseudoField, value: &[u8]) -> usize {
    match (pseudo, value) {
        (PseudoField::Method, b"GET") => 2,
        (PseudoField::Method, b"POST") => 3,
        (PseudoField::Path, b"/") => 4,
        (PseudoField::Path, b"/index.html") => 5,
        (PseudoField::Scheme, b"http") => 6,
        (PseudoField::Scheme, b"https") => 7,
        (PseudoField::Status, b"200") => 8,
        (PseudoField::Status, b"204") => 9,
        (PseudoField::Status, b"206") => 10,
        (PseudoField::Status, b"304") => 11,
        (PseudoField::Status, b"400") => 12,
        (PseudoField::Status, b"404") => 13,
        (PseudoField::Status, b"500") => 14,
        _ => 0,
    }
}

/// The index of a name in the table that has no [`FieldId`], in any case; 0 if there is none.
#[inline]
pub(super) fn unlisted_index(name: &[u8]) -> usize {
    let index = match name.len() {
        4 => 37,
        7 => 52,
        14 => 15,
        19 => 25,
        25 => 56,
        27 => 20,
        _ => return 0,
    };
    match get(index) {
        Some(entry) if entry.name().eq_ignore_ascii_case(name) => index,
        _ => 0,
    }
}

macro_rules! fixed {
    ($($name_id:expr, $name:literal $(= $value:literal)?;)*) => {
        static FIXED: [StaticEntry; 61] = [$(StaticEntry {
            text: concat!($name $(, $value)?).as_bytes(),
            name_len: $name.len(),
            name_id: $name_id,
        },)*];
    };
}

const AUTHORITY: NameId = NameId::pseudo(PseudoField::Authority);
const METHOD: NameId = NameId::pseudo(PseudoField::Method);
const PATH: NameId = NameId::pseudo(PseudoField::Path);
const SCHEME: NameId = NameId::pseudo(PseudoField::Scheme);
const STATUS: NameId = NameId::pseudo(PseudoField::Status);
const UNLISTED: NameId = NameId::UNKNOWN;

const fn id(id: FieldId) -> NameId {
    NameId::field(id)
}

fixed! {
    AUTHORITY, ":authority";
    METHOD, ":method" = "GET";
    METHOD, ":method" = "POST";
    PATH, ":path" = "/";
    PATH, ":path" = "/index.html";
    SCHEME, ":scheme" = "http";
    SCHEME, ":scheme" = "https";
    STATUS, ":status" = "200";
    STATUS, ":status" = "204";
    STATUS, ":status" = "206";
    STATUS, ":status" = "304";
    STATUS, ":status" = "400";
    STATUS, ":status" = "404";
    STATUS, ":status" = "500";
    UNLISTED, "accept-charset";
    id(FieldId::AcceptEncoding), "accept-encoding" = "gzip, deflate";
    id(FieldId::AcceptLanguage), "accept-language";
    id(FieldId::AcceptRanges), "accept-ranges";
    id(FieldId::Accept), "accept";
    UNLISTED, "access-control-allow-origin";
    id(FieldId::Age), "age";
    id(FieldId::Allow), "allow";
    id(FieldId::Authorization), "authorization";
    id(FieldId::CacheControl), "cache-control";
    UNLISTED, "content-disposition";
    id(FieldId::ContentEncoding), "content-encoding";
    id(FieldId::ContentLanguage), "content-language";
    id(FieldId::ContentLength), "content-length";
    id(FieldId::ContentLocation), "content-location";
    id(FieldId::ContentRange), "content-range";
    id(FieldId::ContentType), "content-type";
    id(FieldId::Cookie), "cookie";
    id(FieldId::Date), "date";
    id(FieldId::Etag), "etag";
    id(FieldId::Expect), "expect";
    id(FieldId::Expires), "expires";
    UNLISTED, "from";
    id(FieldId::Host), "host";
    id(FieldId::IfMatch), "if-match";
    id(FieldId::IfModifiedSince), "if-modified-since";
    id(FieldId::IfNoneMatch), "if-none-match";
    id(FieldId::IfRange), "if-range";
    id(FieldId::IfUnmodifiedSince), "if-unmodified-since";
    id(FieldId::LastModified), "last-modified";
    id(FieldId::Link), "link";
    id(FieldId::Location), "location";
    id(FieldId::MaxForwards), "max-forwards";
    id(FieldId::ProxyAuthenticate), "proxy-authenticate";
    id(FieldId::ProxyAuthorization), "proxy-authorization";
    id(FieldId::Range), "range";
    id(FieldId::Referer), "referer";
    UNLISTED, "refresh";
    id(FieldId::RetryAfter), "retry-after";
    id(FieldId::Server), "server";
    id(FieldId::SetCookie), "set-cookie";
    UNLISTED, "strict-transport-security";
    id(FieldId::TransferEncoding), "transfer-encoding";
    id(FieldId::UserAgent), "user-agent";
    id(FieldId::Vary), "vary";
    id(FieldId::Via), "via";
    id(FieldId::WwwAuthenticate), "www-authenticate";
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
static NAME_INDEX: [u8; 64] = {
    let mut indices = [0; 64];
    let mut at = FIXED.len();
    while at > 0 {
        indices[FIXED[at - 1].name_id.id as usize] = at as u8;
        at -= 1;
    }
    indices[FieldId::Other as usize] = 0;
    indices
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_at_their_index() {
        for index in 1..=LEN {
            let entry = get(index).unwrap();
            assert_eq!(NameId::of(entry.name()), entry.name_id, "{index}");
            let first = match entry.name_id.pseudo {
                Some(pseudo) => pseudo_index(pseudo),
                None if entry.name_id.code() == 0 => unlisted_index(entry.name()),
                None => name_index(entry.name_id.id),
            };
            if let Some(pseudo) = entry.name_id.pseudo
                && pseudo != PseudoField::Authority
            {
                assert_eq!(pseudo_field(pseudo, entry.value()), index);
            }
            assert!((1..=index).contains(&first));
            assert_eq!(get(first).unwrap().name(), entry.name());
        }
        assert!(get(0).is_none() && get(LEN + 1).is_none());
        assert_eq!(name_index(FieldId::Other), 0);
        assert_eq!(name_index(FieldId::XRequestId), 0);
        assert_eq!(unlisted_index(b"From"), 37);
        assert_eq!(unlisted_index(b"fron"), 0);
    }
}
