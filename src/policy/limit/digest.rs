//! Hashes what a limit counts by into a [`Key`].

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::net::IpAddr;

use super::table::Key;

/// The secret of the hashes, drawn at start: clients cannot choose values that collide.
#[derive(Debug, Default, Clone)]
pub(super) struct DigestSecret {
    high: RandomState,
    low: RandomState,
}

/// A key in the making.
pub(super) struct Digest {
    high: DefaultHasher,
    low: DefaultHasher,
}

impl DigestSecret {
    /// Begins a key of the limit that has this number.
    #[must_use]
    pub(super) fn begin(&self, limit: u64) -> Digest {
        let mut digest = Digest {
            high: self.high.build_hasher(),
            low: self.low.build_hasher(),
        };
        digest.word(limit);
        digest
    }
}

impl Digest {
    /// Adds a client: an IPv4 address, or the /64 of an IPv6 address, within which a client can choose its address.
    /// Clients of Unix sockets have no address and count as one.
    pub(super) fn client(&mut self, client: Option<IpAddr>) {
        // None of the kinds can be the length of a text.
        let (kind, network) = match client.map(|client| client.to_canonical()) {
            Some(IpAddr::V4(v4)) => (4, u64::from(v4.to_bits())),
            Some(IpAddr::V6(v6)) => (6, (v6.to_bits() >> 64) as u64),
            None => (0, 0),
        };
        // Network and kind, in one piece because each write costs.
        let both = u128::from(network) | u128::from(u64::MAX - kind) << 64;
        self.bytes(&both.to_le_bytes());
    }

    /// Adds a text. Its length behind it tells it apart from the next.
    pub(super) fn text(&mut self, text: impl Iterator<Item = u8>) {
        let (mut piece, mut length) = ([0; 32], 0_usize);
        for byte in text {
            // The index is within the piece.
            if let Some(place) = piece.get_mut(length % 32) {
                *place = byte;
            }
            length += 1;
            if length.is_multiple_of(32) {
                self.bytes(&piece);
            }
        }
        self.bytes(piece.get(..length % 32).unwrap_or_default());
        self.word(length as u64);
    }

    /// The key.
    #[must_use]
    pub(super) fn finish(&self) -> Key {
        Key {
            high: self.high.finish(),
            low: self.low.finish(),
        }
    }

    fn word(&mut self, word: u64) {
        self.bytes(&word.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.high.write(bytes);
        self.low.write(bytes);
    }
}
