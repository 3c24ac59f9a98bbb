//! Which fields a peer may send in a request.
//!
//! Endpoints trust some fields because a proxy in front of them sets these fields: who sent the
//! request, from where, over which protocol, for which path. [`CLAIM_TABLE`] lists their names.
//! Weir removes those that [`FieldPolicy`] does not allow the peer to send.
//!
//! Endpoints behind CGI, WSGI or PHP see names in a folded form, in which `X_Forwarded_For`,
//! `X.Forwarded.For` and `X-Forwarded-For` are the same name. A name with a byte that folds is
//! *odd*. [`OddNamePolicy`] says which odd names pass. A name that folds into a known name, or into
//! one of the table, never passes.

use crate::field::{FieldId, FieldSet};
use crate::head::Head;
use crate::scan;
use crate::trailers::Trailers;

/// What a field in [`CLAIM_TABLE`] claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Claim {
    /// Who sent the request, in the fields that most proxies set: `X-Forwarded-*`.
    XForwarded = 1,
    /// The same, in the field of RFC 7239.
    Forwarded = 2,
    /// Client, protocol or original target, in fields of single products.
    Origin = 4,
    /// The client's certificate.
    Certificate = 8,
    /// The identifier of the exchange.
    RequestId = 16,
    /// Nothing that any peer may claim: CGI turns `Proxy` into `HTTP_PROXY`, which names the proxy
    /// for the endpoint's own requests.
    Nothing = 32,
}

/// A set of claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims(u8);

impl Claims {
    /// No claim.
    pub const NONE: Self = Self(0);

    /// The set of these claims.
    #[must_use]
    pub const fn of(claims: &[Claim]) -> Self {
        let (mut bits, mut rest) = (0, claims);
        while let [claim, tail @ ..] = rest {
            bits |= *claim as u8;
            rest = tail;
        }
        Self(bits)
    }

    /// Returns whether a claim is in the set.
    #[inline]
    #[must_use]
    pub const fn has(self, claim: Claim) -> bool {
        self.0 & claim as u8 != 0
    }
}

/// Names that claim something, in lower case and sorted. A star matches any rest.
pub const CLAIM_TABLE: &[(&str, Claim)] = &[
    ("cf-connecting-*", Claim::Origin),
    ("cf-pseudo-ipv4", Claim::Origin),
    ("cf-visitor", Claim::Origin),
    ("client-ip", Claim::Origin),
    ("fastly-client-ip", Claim::Origin),
    ("forwarded", Claim::Forwarded),
    ("forwarded-*", Claim::Origin),
    ("front-end-https", Claim::Origin),
    ("proxy", Claim::Nothing),
    ("proxy-client-ip", Claim::Origin),
    ("true-client-ip", Claim::Origin),
    ("wl-proxy-*", Claim::Origin),
    ("x-azure-clientip", Claim::Origin),
    ("x-azure-socketip", Claim::Origin),
    ("x-client-cert-*", Claim::Certificate),
    ("x-client-ip", Claim::Origin),
    ("x-cluster-client-ip", Claim::Origin),
    ("x-envoy-*", Claim::Origin),
    ("x-forwarded", Claim::XForwarded),
    ("x-forwarded-*", Claim::XForwarded),
    ("x-host", Claim::Origin),
    ("x-original-*", Claim::Origin),
    ("x-originating-ip", Claim::Origin),
    ("x-proxyuser-ip", Claim::Origin),
    ("x-real-ip", Claim::Origin),
    ("x-real-port", Claim::Origin),
    ("x-remote-addr", Claim::Origin),
    ("x-remote-ip", Claim::Origin),
    ("x-request-id", Claim::RequestId),
    ("x-rewrite-*", Claim::Origin),
    ("x-scheme", Claim::Origin),
    ("x-url-scheme", Claim::Origin),
];

/// The table's names that have a [`FieldId`], by claim. They need no comparison of bytes.
const KNOWN_CLAIMS: [(Claim, FieldSet); 4] = [
    (
        Claim::XForwarded,
        FieldSet::of(&[
            FieldId::XForwardedFor,
            FieldId::XForwardedProto,
            FieldId::XForwardedHost,
        ]),
    ),
    (Claim::Forwarded, FieldSet::of(&[FieldId::Forwarded])),
    (Claim::Origin, FieldSet::of(&[FieldId::XRealIp])),
    (Claim::RequestId, FieldSet::of(&[FieldId::XRequestId])),
];

/// Which odd names pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OddNamePolicy {
    /// None.
    #[default]
    Drop,
    /// Names whose only odd bytes are underscores and dots, which gRPC metadata may contain.
    Metadata,
    /// All.
    Keep,
}

impl OddNamePolicy {
    fn allows(self, name: &[u8]) -> bool {
        match self {
            Self::Drop => false,
            Self::Metadata => name
                .iter()
                .all(|&byte| scan::is_name_byte(byte) || matches!(byte, b'_' | b'.')),
            Self::Keep => true,
        }
    }
}

/// Which fields of a request a peer may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldPolicy {
    /// The claims that the peer may make.
    pub claims: Claims,
    /// The odd names that pass.
    pub odd_names: OddNamePolicy,
}

impl FieldPolicy {
    /// The known names that the peer may not send.
    #[inline]
    fn refused(&self) -> FieldSet {
        KNOWN_CLAIMS
            .iter()
            .fold(FieldSet::EMPTY, |refused, (claim, ids)| {
                if self.claims.has(*claim) {
                    refused
                } else {
                    refused.with(*ids)
                }
            })
    }
}

/// What a name without a [`FieldId`] claims. Odd bytes match hyphens, because they may fold into
/// them.
#[inline]
#[must_use]
pub fn find_claim(name: &[u8]) -> Option<Claim> {
    let [first, _, third, _, fifth, ..] = *name else {
        return None;
    };
    // Hardly any name shares three bytes with a row, so this check rejects most of them.
    let rows =
        RowIndex::FIRST.with(first) & RowIndex::THIRD.with(third) & RowIndex::FIFTH.with(fifth);
    if rows == 0 {
        None
    } else {
        find_row(name, rows)
    }
}

/// For each byte, the set of rows whose pattern may have that byte at one position: a bit for each
/// row. Only the lowest five bits of a byte count, in which letters differ but their case does not.
struct RowIndex([u64; 32]);

impl RowIndex {
    const FIRST: Self = Self::by(0);
    const THIRD: Self = Self::by(2);
    const FIFTH: Self = Self::by(4);

    #[expect(
        clippy::indexing_slicing,
        reason = "evaluated at compile time, which checks the bounds"
    )]
    const fn by(place: usize) -> Self {
        assert!(CLAIM_TABLE.len() <= 64, "a set of rows fits in a word");
        let (mut rows, mut at) = ([0; 32], 0);
        while at < CLAIM_TABLE.len() {
            let byte = CLAIM_TABLE[at].0.as_bytes()[place];
            assert!(byte != b'*', "a stem is longer than the indexed positions");
            let mut low = 0;
            while low < 32 {
                // Any byte that folds into a hyphen matches one.
                if byte & 31 == low || !byte.is_ascii_alphanumeric() {
                    rows[low as usize] |= 1 << at;
                }
                low += 1;
            }
            at += 1;
        }
        Self(rows)
    }

    #[inline]
    fn with(&self, byte: u8) -> u64 {
        self.0
            .get(usize::from(byte & 31))
            .copied()
            .unwrap_or_default()
    }
}

/// Compares a name with the patterns of `rows`.
fn find_row(name: &[u8], mut rows: u64) -> Option<Claim> {
    while rows != 0 {
        let (pattern, claim) = CLAIM_TABLE.get(rows.trailing_zeros() as usize)?;
        let (stem, is_open) = stem(pattern);
        let fits = |(start, rest): (&[u8], &[u8])| {
            (is_open || rest.is_empty()) && folds_alike(start, stem)
        };
        if name.split_at_checked(stem.len()).is_some_and(fits) {
            return Some(*claim);
        }
        rows &= rows - 1;
    }
    None
}

/// The text of a pattern, and whether any text may follow it.
fn stem(pattern: &str) -> (&[u8], bool) {
    match pattern.as_bytes() {
        [stem @ .., b'*'] => (stem, true),
        stem => (stem, false),
    }
}

/// Longer than the longest known name. Later bytes of a name cannot make it a known one.
const FOLDED_BYTES: usize = 32;

/// The start of a name in lower case, with a hyphen for every byte that is not a letter or a digit.
/// CGI folds names the same way, but into underscores.
fn folded<'t>(name: &[u8], text: &'t mut [u8; FOLDED_BYTES]) -> &'t [u8] {
    let len = name.len().min(FOLDED_BYTES);
    for (slot, byte) in text.iter_mut().zip(name) {
        *slot = fold(*byte);
    }
    text.get(..len).unwrap_or_default()
}

#[inline]
fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

fn folds_alike(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fold(*a) == fold(*b))
}

/// Returns whether two different names fold into the same one.
#[must_use]
pub fn is_other_spelling(name: &[u8], other: &[u8]) -> bool {
    folds_alike(name, other) && !name.eq_ignore_ascii_case(other)
}

/// Returns whether a name folds into a known name or one of the table.
fn folds_onto_known(name: &[u8]) -> bool {
    let mut text = [0; FOLDED_BYTES];
    FieldId::from_name(folded(name, &mut text)) != FieldId::Other || find_claim(name).is_some()
}

/// Returns whether a name has a byte that CGI folds, which is any but letters, digits and hyphens.
#[inline]
#[must_use]
pub fn is_odd_name(name: &[u8]) -> bool {
    scan::name_kind(name) != scan::NameKind::Plain
}

impl Head {
    /// Removes the fields that the peer may not send. Returns how many of them had odd names. Of
    /// these, [`Head::restore_odd_names`] can restore the names that do not fold into another.
    /// `is_taken` returns whether a name folds into one that matters for other reasons.
    pub fn enforce(
        &mut self,
        block: &[u8],
        policy: &FieldPolicy,
        is_taken: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        let refused = policy.refused();
        for field in &mut self.fields {
            let is_refused = match field.id {
                FieldId::Other if field.is_odd => false,
                FieldId::Other => {
                    let claim = find_claim(field.name.get(block));
                    claim.is_some_and(|claim| !policy.claims.has(claim))
                }
                id => refused.has(id),
            };
            if is_refused {
                (field.is_removed, field.is_refused) = (true, true);
            }
        }
        self.present = self.present.without(refused);
        if self.has_odd_names {
            self.drop_odd_names(block, policy.odd_names, is_taken)
        } else {
            0
        }
    }

    /// Removes the fields with odd names that may not pass. Returns how many there were.
    #[cold]
    pub fn drop_odd_names(
        &mut self,
        block: &[u8],
        odd_names: OddNamePolicy,
        is_taken: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        let mut dropped = 0;
        for at in 0..self.fields.len() {
            let Some(field) = self.fields.get(at).filter(|field| field.is_odd) else {
                continue;
            };
            let name = field.name.get(block);
            let is_taken_for_other = folds_onto_known(name)
                || is_taken(name)
                || self.fields.iter().any(|other| {
                    let other = other.name.get(block);
                    is_other_spelling(name, other)
                });
            let passes = !is_taken_for_other && odd_names.allows(name);
            if let Some(field) = self.fields.get_mut(at)
                && !passes
            {
                if !field.is_removed {
                    field.is_restorable = !is_taken_for_other;
                    dropped += 1;
                }
                (field.is_removed, field.is_refused) = (true, true);
            }
        }
        dropped
    }

    /// Returns whether a field has an odd name, removed or not.
    #[inline]
    #[must_use]
    pub const fn has_odd_names(&self) -> bool {
        self.has_odd_names
    }

    /// Restores the fields that [`Head::enforce`] removed only for their odd names. Returns how
    /// many there were.
    pub fn restore_odd_names(&mut self) -> u32 {
        let mut restored = 0;
        for field in self.fields.iter_mut().filter(|field| field.is_restorable) {
            (field.is_removed, field.is_refused, field.is_restorable) = (false, false, false);
            restored += 1;
        }
        restored
    }
}

impl Trailers {
    /// Removes fields that would matter in the head of a request: known names, names that claim
    /// something, names that a route `matches`, and odd names that may not pass. No peer may send
    /// these in trailers. Returns how many had odd names.
    //= rfc9110#6.5.1
    // A recipient may merge trailers into the head, so trailers follow the rules of the head.
    pub fn enforce(&mut self, odd_names: OddNamePolicy, matches: &dyn Fn(&[u8]) -> bool) -> u32 {
        let mut dropped = 0;
        for at in 0..self.len() {
            let Some((field, name)) = self.field(at) else {
                continue;
            };
            let is_odd = field.id == FieldId::Other && is_odd_name(name);
            let passes = match is_odd {
                true => {
                    odd_names.allows(name)
                        && !folds_onto_known(name)
                        && !self.has_other_spelling(at)
                }
                false => field.id == FieldId::Other && find_claim(name).is_none(),
            };
            let passes = passes && !matches(name);
            if !passes && !field.is_removed {
                self.remove(at);
                dropped += u32::from(is_odd);
            }
        }
        dropped
    }

    /// Returns whether another trailer has a different name that folds into the same one.
    fn has_other_spelling(&self, at: usize) -> bool {
        let name = self.field(at).map_or(&b""[..], |(_, name)| name);
        (0..self.len()).any(|other| {
            self.field(other)
                .is_some_and(|(_, other)| is_other_spelling(name, other))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_table_is_sorted_by_stems_in_folded_form() {
        let stems: Vec<_> = CLAIM_TABLE
            .iter()
            .map(|(pattern, _)| stem(pattern).0)
            .collect();
        assert!(stems.is_sorted(), "{stems:?}");
        let is_folded = |stem: &&[u8]| stem.iter().all(|&byte| fold(byte) == byte);
        assert!(stems.iter().all(is_folded));
    }

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\nX-Forwarded-Port: 1\r\nForwarded: 1\r\n\
        X-Real-IP: 1\r\nTrue-Client-IP: 1\r\nX-Client-Cert-San: 1\r\nX-Request-ID: 1\r\nProxy: 1\r\nX_User: 1\r\nx.user: 1\r\n\
        x!user2: 1\r\nx_user3: 1\r\nX_Forwarded_For: 1\r\nX-Plain: 1\r\n\r\n";

    /// The names that remain in a head whose peer may make these claims.
    fn left(claims: Claims, odd_names: OddNamePolicy) -> (Vec<&'static str>, u32) {
        let mut head = Head::new();
        crate::parse_request(HEAD, &crate::Limits::default(), &mut head).unwrap();
        let dropped = head.enforce(HEAD, &FieldPolicy { claims, odd_names }, &|_| false);
        let known = [
            FieldId::XForwardedFor,
            FieldId::Forwarded,
            FieldId::XRequestId,
        ];
        for id in known {
            assert_eq!(head.may_have(id), head.all(id).next().is_some(), "{id:?}");
        }
        assert!(
            head.fields
                .iter()
                .all(|field| field.is_removed == field.is_refused)
        );
        let name = |field: &crate::Field| core::str::from_utf8(field.name.get(HEAD)).unwrap();
        (head.iter().map(name).collect(), dropped)
    }

    #[test]
    fn allowed_claims_stay() {
        let all = Claims::of(&[
            Claim::XForwarded,
            Claim::Forwarded,
            Claim::Origin,
            Claim::Certificate,
            Claim::RequestId,
        ]);
        let family = [
            "X-Forwarded-For",
            "X-Forwarded-Port",
            "Forwarded",
            "X-Real-IP",
            "True-Client-IP",
            "X-Client-Cert-San",
            "X-Request-ID",
        ];
        for (claims, kept) in [
            (Claims::NONE, &family[..0]),
            (Claims::of(&[Claim::XForwarded]), &family[..2]),
            (Claims::of(&[Claim::Forwarded]), &family[2..3]),
            (Claims::of(&[Claim::Origin]), &family[3..5]),
            (
                Claims::of(&[Claim::Certificate, Claim::RequestId]),
                &family[5..],
            ),
            (all, &family[..]),
        ] {
            let expected = [&["Host"], kept, &["X-Plain"]].concat();
            assert_eq!(left(claims, OddNamePolicy::Drop), (expected, 5));
        }
    }

    #[test]
    fn odd_names_that_fold_into_no_other_can_stay() {
        for (odd_names, kept, dropped) in [
            (OddNamePolicy::Drop, &[][..], 5),
            (OddNamePolicy::Metadata, &["x_user3"], 4),
            (OddNamePolicy::Keep, &["x!user2", "x_user3"], 3),
        ] {
            let expected = [&["Host"], kept, &["X-Plain"]].concat();
            assert_eq!(left(Claims::NONE, odd_names), (expected, dropped));
        }
        let mut head = Head::new();
        crate::parse_request(HEAD, &crate::Limits::default(), &mut head).unwrap();
        head.enforce(HEAD, &FieldPolicy::default(), &|_| false);
        assert_eq!(head.restore_odd_names(), 2);
        assert!(head.find_name(b"x_user3", HEAD).is_some());
        assert!(head.find_name(b"x_forwarded_for", HEAD).is_none());
        assert_eq!(
            head.drop_odd_names(HEAD, OddNamePolicy::Drop, &|_| false),
            2
        );
        assert_eq!(head.restore_odd_names(), 2);
    }

    #[test]
    fn known_names_make_the_claims_of_the_table() {
        for id in FieldId::all() {
            let known = KNOWN_CLAIMS.iter().find(|(_, ids)| ids.has(id));
            let claim = find_claim(id.name().as_bytes());
            assert_eq!(known.map(|(claim, _)| *claim), claim, "{id:?}");
        }
    }

    /// The table finds the same row as a comparison with each row.
    #[test]
    fn a_name_claims_what_its_row_says() {
        let naive = |name: &str| {
            let row = CLAIM_TABLE
                .iter()
                .find(|(pattern, _)| match pattern.strip_suffix('*') {
                    Some(stem) => name.starts_with(stem),
                    None => name == *pattern,
                });
            row.map(|(_, claim)| *claim)
        };
        let mut names = Vec::new();
        for (pattern, _) in CLAIM_TABLE {
            let stem = pattern.trim_end_matches('*');
            names.push(stem.into());
            for rest in ["a", "-", "for", "z-and-more-than-all-that-is-kept"] {
                names.push([stem, rest].concat());
            }
            names.push(stem[..stem.len() - 1].into());
        }
        names.extend(
            [
                "accept",
                "x-",
                "x-custom",
                "sec-fetch-site",
                "priority",
                "x-reality",
            ]
            .map(Into::into),
        );
        for name in &names {
            assert_eq!(find_claim(name.as_bytes()), naive(name), "{name}");
            assert_eq!(
                find_claim(name.to_ascii_uppercase().as_bytes()),
                naive(name),
                "{name}"
            );
            assert_eq!(
                find_claim(name.replace('-', "_").as_bytes()),
                naive(name),
                "{name}"
            );
        }
        assert_eq!(find_claim(b""), None);
    }
}
