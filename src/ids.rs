//! Places of configured things in a plan, which only the plan with the same epoch knows, and ids of requests.
#![forbid(unsafe_code)]

use std::fmt;

/// A route's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// A listener's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// The place of a route's rules for tokens among the different ones of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JwtId(pub u32);

/// An upstream's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// The id of a request: 128 bits, shown as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64, pub u64);

impl RequestId {
    /// The id as text: the given one if there is one, and this id's digits otherwise.
    #[must_use]
    pub fn text<'a>(self, given: &'a [u8], digits: &'a mut [u8; 32]) -> &'a [u8] {
        if given.is_empty() {
            self.write_hex(digits);
            digits
        } else {
            given
        }
    }

    /// An even number that follows from the id and a salt, so that draws with different salts are independent.
    #[must_use]
    pub const fn draw(self, salt: u64) -> u64 {
        // The ids of a core count up, so their bits have to be mixed.
        mix(self.0 ^ salt ^ mix(self.1 ^ salt))
    }

    /// Writes this id's digits.
    pub fn write_hex(self, out: &mut [u8; 32]) {
        let (words, _) = out.as_chunks_mut::<8>();
        let halves = [self.0 >> 32, self.0, self.1 >> 32, self.1];
        for (word, half) in words.iter_mut().zip(halves) {
            *word = hex_digits(half as u32);
        }
    }
}

/// Mixes the bits of a number (the finaliser of SplitMix64).
const fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The hex digits of a number, computed in one word that holds two digits for each byte.
#[inline]
fn hex_digits(number: u32) -> [u8; 8] {
    const LOW: u64 = u64::from_le_bytes([1; 8]);
    // The first digit comes from the highest bits and ends up in the lowest.
    let mut bytes = u64::from(number.swap_bytes());
    bytes = (bytes | bytes << 16) & 0x0000_ffff_0000_ffff;
    bytes = (bytes | bytes << 8) & 0x00ff_00ff_00ff_00ff;
    let values = (bytes >> 4 & 0x000f_000f_000f_000f) | (bytes & 0x000f_000f_000f_000f) << 8;
    let are_letters = (values + LOW * 6) >> 4 & LOW;
    let beyond_digits = u64::from(b'a' - 10 - b'0');
    (values + LOW * u64::from(b'0') + are_letters * beyond_digits).to_le_bytes()
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}
