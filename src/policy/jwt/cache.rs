//! Tokens that this core has verified.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::limits::{JWT_CACHE_BYTES_MAX, JWT_CACHE_TOKENS_MAX};
use crate::policy::Claims;

/// Tokens that this core has verified under one set of rules. Only valid tokens are in it, so nobody can fill it
/// without an issuer's help. Bounded in entries and in bytes; when it is full, tokens that were not seen for a round
/// leave first.
pub struct TokenCache {
    seed: [u64; 2],
    /// From the hash of a token to its place in `entries`.
    places: HashMap<u64, u32, BuildHasherDefault<TakesHash>>,
    entries: Vec<Entry>,
    /// The entry that is looked at next when one must leave.
    hand: usize,
    bytes: usize,
    bytes_max: usize,
    entries_max: usize,
}

/// A token that is valid.
#[derive(Clone, Debug)]
pub struct CachedToken {
    /// What it says.
    pub claims: Rc<Claims>,
    /// The index of the issuer whose rules it follows.
    pub issuer: u32,
    /// The version of that issuer's keys under which it was verified.
    pub keys_version: u64,
    /// It is valid until then, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// It grants what the rules require.
    pub is_sufficient: bool,
}

struct Entry {
    hash: u64,
    token: Box<[u8]>,
    /// It was seen since the hand passed.
    was_seen: bool,
    value: CachedToken,
}

impl TokenCache {
    /// A cache with this seed, which nobody outside may know.
    #[must_use]
    pub fn new(seed: [u64; 2]) -> Self {
        Self::with_bounds(seed, JWT_CACHE_TOKENS_MAX, JWT_CACHE_BYTES_MAX)
    }

    fn with_bounds(seed: [u64; 2], entries_max: usize, bytes_max: usize) -> Self {
        Self {
            seed,
            places: HashMap::default(),
            entries: Vec::new(),
            hand: 0,
            bytes: 0,
            bytes_max,
            entries_max,
        }
    }

    /// The cached token that is equal to `token`.
    #[inline]
    pub fn find(&mut self, token: &[u8]) -> Option<&CachedToken> {
        let place = *self.places.get(&hash(self.seed, token))?;
        let entry = self.entries.get_mut(place as usize)?;
        if *entry.token != *token {
            return None;
        }
        entry.was_seen = true;
        Some(&entry.value)
    }

    /// Keeps a token. One with the same hash leaves, and others as long as there is too little room.
    pub fn insert(&mut self, token: &[u8], value: CachedToken) {
        let hash = hash(self.seed, token);
        self.remove_hash(hash);
        let entry = Entry {
            hash,
            token: token.into(),
            was_seen: false,
            value,
        };
        let bytes = entry.bytes();
        if bytes > self.bytes_max {
            return;
        }
        while self.entries.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            self.evict();
        }
        self.bytes += bytes;
        self.places.insert(hash, self.entries.len() as u32);
        self.entries.push(entry);
    }

    /// Sets how many bytes it may use; more than [`JWT_CACHE_BYTES_MAX`] count as that. Tokens leave if it uses more.
    pub fn bound(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max.min(JWT_CACHE_BYTES_MAX);
        while self.bytes > self.bytes_max {
            self.evict();
        }
    }

    /// Drops a token.
    pub fn remove(&mut self, token: &[u8]) {
        if self.find(token).is_some() {
            self.remove_hash(hash(self.seed, token));
        }
    }

    /// Drops the tokens that `keep` is false for.
    pub fn retain(&mut self, keep: impl Fn(&CachedToken) -> bool) {
        let mut place = 0;
        while let Some(entry) = self.entries.get(place) {
            if keep(&entry.value) {
                place += 1;
            } else {
                self.remove_at(place);
            }
        }
    }

    /// How many tokens are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory that it uses, in bytes, within a few per cent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops the first token behind the hand that was not seen since the hand passed it.
    fn evict(&mut self) {
        loop {
            let at = self.hand;
            match self.entries.get_mut(at) {
                Some(entry) if entry.was_seen => {
                    entry.was_seen = false;
                    self.hand += 1;
                }
                Some(_) => return self.remove_at(at),
                None if at == 0 => return,
                None => self.hand = 0,
            }
        }
    }

    fn remove_hash(&mut self, hash: u64) {
        if let Some(&place) = self.places.get(&hash) {
            self.remove_at(place as usize);
        }
    }

    fn remove_at(&mut self, place: usize) {
        if place >= self.entries.len() {
            return;
        }
        let removed = self.entries.swap_remove(place);
        self.bytes -= removed.bytes();
        self.places.remove(&removed.hash);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.hash, place as u32);
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        // The table has at least an eighth of its places free, and each has a byte beside it.
        let in_table = size_of::<(u64, u32)>() * 2 + 2;
        size_of::<Self>() + in_table + self.token.len() + self.value.claims.bytes()
    }
}

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenCache({} tokens, {} bytes)", self.len(), self.bytes)
    }
}

/// The hash of a token, from its end: the signature, which nobody can choose. Tokens whose ends are equal only take
/// each other's place.
fn hash(seed: [u64; 2], token: &[u8]) -> u64 {
    let [mut state, factor] = seed;
    state ^= token.len() as u64;
    let end = token.get(token.len().saturating_sub(32)..).unwrap_or(token);
    let (words, rest) = end.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), factor);
    }
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    fold(state ^ u64::from_le_bytes(last), factor)
}

/// The product of both, its halves mixed.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other | 1);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Takes a number that is a hash already.
#[derive(Default)]
struct TakesHash(u64);

impl Hasher for TakesHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(number: u32) -> CachedToken {
        let claims = Claims::parse(format!("{{\"n\":{number}}}").as_bytes()).unwrap();
        CachedToken {
            claims: Rc::new(claims),
            issuer: number % 3,
            keys_version: 1,
            expires_ms: 0,
            is_sufficient: true,
        }
    }

    fn number(found: Option<&CachedToken>) -> Option<&str> {
        found.and_then(|found| found.claims.text("n"))
    }

    #[test]
    fn only_the_whole_token_is_found() {
        let mut cache = TokenCache::new([1, 2]);
        let token = format!("header.claims.{}", "s".repeat(86));
        cache.insert(token.as_bytes(), value(7));
        assert_eq!(number(cache.find(token.as_bytes())), Some("7"));
        // The same end, and so the same hash.
        let other = token.replace("claims", "CLAIMS");
        assert_eq!(
            hash([1, 2], token.as_bytes()),
            hash([1, 2], other.as_bytes())
        );
        assert!(cache.find(other.as_bytes()).is_none());
        cache.insert(other.as_bytes(), value(8));
        assert_eq!(number(cache.find(other.as_bytes())), Some("8"));
        assert!(cache.find(token.as_bytes()).is_none());
        assert_eq!(cache.len(), 1);
        for changed in ["", ".", &token[1..], &token[..token.len() - 1]] {
            assert!(cache.find(changed.as_bytes()).is_none());
        }
        cache.remove(token.as_bytes());
        assert_eq!(cache.len(), 1);
        cache.remove(other.as_bytes());
        assert!(cache.is_empty());
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn it_stays_within_its_bounds_whatever_happens() {
        let mut random = fastrand::Rng::with_seed(1);
        for (entries_max, bytes_max) in [
            (1, 100_000),
            (10, 100_000),
            (1000, 5_000),
            (0, 5_000),
            (10, 0),
        ] {
            let mut cache = TokenCache::with_bounds([3, 5], entries_max, bytes_max);
            for _ in 0..5_000 {
                let token = format!("{}{}", "x".repeat(random.usize(..200)), random.u32(..50));
                match random.u8(..10) {
                    0 => cache.remove(token.as_bytes()),
                    1 => cache.retain(|value| value.issuer != random.clone().u32(..30)),
                    2..6 => drop(cache.find(token.as_bytes()).cloned()),
                    _ if entries_max > 0 => {
                        cache.insert(token.as_bytes(), value(random.u32(..100)))
                    }
                    _ => {}
                }
                assert!(cache.len() <= entries_max && cache.bytes() <= bytes_max);
                assert_eq!(cache.places.len(), cache.entries.len());
                let of_entries: usize = cache.entries.iter().map(Entry::bytes).sum();
                assert_eq!(cache.bytes, of_entries);
                for (place, entry) in cache.entries.iter().enumerate() {
                    assert_eq!(cache.places.get(&entry.hash), Some(&(place as u32)));
                }
            }
        }
    }

    #[test]
    fn a_lower_bound_drops_tokens_at_once() {
        let mut cache = TokenCache::new([3, 5]);
        for index in 0..1_000 {
            cache.insert(format!("token {index}").as_bytes(), value(index));
        }
        let bytes = cache.bytes();
        cache.bound(bytes / 4);
        assert!((bytes / 5..=bytes / 4).contains(&cache.bytes()));
        cache.insert(b"new", value(1));
        assert!(cache.find(b"new").is_some() && cache.bytes() <= bytes / 4);
        cache.bound(0);
        cache.insert(b"new", value(1));
        assert!(cache.is_empty() && cache.bytes() == 0);
        cache.bound(usize::MAX);
        assert_eq!(cache.bytes_max, JWT_CACHE_BYTES_MAX);
    }

    #[test]
    fn a_busy_token_stays() {
        let mut cache = TokenCache::with_bounds([3, 5], 100, usize::MAX);
        cache.insert(b"busy", value(1));
        for index in 0..10_000 {
            cache.insert(format!("token {index}").as_bytes(), value(2));
            assert!(cache.find(b"busy").is_some(), "{index}");
        }
    }

    #[test]
    fn hashes_differ_by_seed_length_and_every_byte_of_the_end() {
        let token = b"0123456789abcdefghijklmnopqrstuvwxyz".to_vec();
        let mut hashes = std::collections::HashSet::new();
        assert!(hashes.insert(hash([1, 2], &token)));
        assert!(hashes.insert(hash([2, 2], &token)));
        assert!(hashes.insert(hash([1, 4], &token)));
        assert!(hashes.insert(hash([1, 2], &token[1..])));
        for index in token.len() - 32..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone();
                changed[index] ^= 1 << bit;
                assert!(hashes.insert(hash([1, 2], &changed)));
            }
        }
        for length in 0..20 {
            assert!(
                hashes.insert(hash([1, 2], &b"-------------------"[..length.min(19)]))
                    || length == 19
            );
        }
    }
}
