//! A hash that is the same on every core, every machine and after every restart, so that all send a key to the same
//! endpoint. It is not secret: a client that chooses keys can choose endpoints, and the bound of the load holds even so.

use std::net::IpAddr;

/// Hashes bytes, eight at a time, by multiplying and folding.
#[derive(Clone, Copy)]
pub struct StableHash {
    state: u64,
    word: u64,
    length: u64,
}

/// Odd, with as many ones as zeros.
const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xd6e8_feb8_6659_fd93;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

impl Default for StableHash {
    fn default() -> Self {
        Self {
            state: FIRST,
            word: 0,
            length: 0,
        }
    }
}

impl StableHash {
    /// Adds bytes.
    pub fn add(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.word = self.word << 8 | u64::from(byte);
            self.length += 1;
            if self.length.is_multiple_of(8) {
                self.state = fold(self.state ^ self.word, SECOND);
                self.word = 0;
            }
        }
    }

    /// The hash of all bytes.
    #[must_use]
    pub fn finish(self) -> u64 {
        mix(fold(self.state ^ self.word, SECOND) ^ self.length)
    }
}

/// The hash of these bytes.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = StableHash::default();
    hash.add(bytes.iter().copied());
    hash.finish()
}

/// The hash of a client's address: of an IPv6 address its /64, because a client may have all addresses of it.
#[must_use]
pub fn hash_of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => stable_hash(&v4.octets()),
        IpAddr::V6(v6) => stable_hash(&((v6.to_bits() >> 64) as u64).to_be_bytes()),
    }
}

/// Mixes a number, so that each bit depends on all.
#[inline]
pub(in crate::upstream) fn mix(number: u64) -> u64 {
    let mixed = fold(number ^ SECOND, FIRST);
    fold(mixed ^ FIRST, SECOND | 1)
}
