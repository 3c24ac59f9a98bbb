//! Integers: in the prefix if they fit, otherwise in seven bits of each byte (RFC 7541, section
//! 5.1).

use alloc::vec::Vec;

use super::error::Error;

/// Bytes that may follow the prefix. Their 28 bits are more than any block holds.
const BYTES_MAX: usize = 4;

/// Reads an integer whose first byte was consumed. `mask` covers the prefix. Returns the integer
/// and the rest.
#[inline]
pub(super) fn read(first: u8, mask: u8, rest: &[u8]) -> Result<(usize, &[u8]), Error> {
    let prefix = first & mask;
    if prefix < mask {
        Ok((usize::from(prefix), rest))
    } else {
        read_more(mask, rest)
    }
}

#[inline(never)]
fn read_more(mask: u8, rest: &[u8]) -> Result<(usize, &[u8]), Error> {
    let mut number = usize::from(mask);
    for (place, &byte) in rest.iter().take(BYTES_MAX).enumerate() {
        number += usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok((number, rest.get(place + 1..).unwrap_or_default()));
        }
    }
    match rest.len() {
        ..BYTES_MAX => Err(Error::Truncated),
        _ => Err(Error::BadInteger),
    }
}

/// Writes an integer. `pattern` holds the bits of the first byte outside the prefix.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, pattern: u8, mask: u8, number: usize) {
    match number.checked_sub(usize::from(mask)) {
        None => out.push(pattern | number as u8),
        Some(rest @ ..0x80) => out.extend_from_slice(&[pattern | mask, rest as u8]),
        Some(rest) => write_more(out, pattern | mask, rest),
    }
}

#[cold]
fn write_more(out: &mut Vec<u8>, first: u8, mut number: usize) {
    out.push(first);
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541, appendix C.1, and the values at which another byte is needed.
    #[test]
    fn integers_survive_a_round_trip() {
        let cases: [(u8, usize, &[u8]); 8] = [
            (0x1f, 10, &[0x0a]),
            (0x1f, 1337, &[0x1f, 0x9a, 0x0a]),
            (0xff, 42, &[0x2a]),
            (0x1f, 30, &[0x1e]),
            (0x1f, 31, &[0x1f, 0x00]),
            (0x0f, 15 + 127, &[0x0f, 0x7f]),
            (0x0f, 15 + 128, &[0x0f, 0x80, 0x01]),
            (0x7f, 127 + (1 << 28) - 1, &[0x7f, 0xff, 0xff, 0xff, 0x7f]),
        ];
        for (mask, number, wire) in cases {
            let mut out = Vec::new();
            write(&mut out, 0, mask, number);
            assert_eq!(out, wire);
            out.push(0x55);
            assert_eq!(read(out[0], mask, &out[1..]), Ok((number, &[0x55][..])));
            for cut in 1..wire.len() {
                assert_eq!(read(wire[0], mask, &wire[1..cut]), Err(Error::Truncated));
            }
        }
        let long = [0xff; 4];
        assert_eq!(read(0x7f, 0x7f, &long), Err(Error::BadInteger));
    }
}
