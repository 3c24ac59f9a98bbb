//! Numbers: what fits beside the bits of a prefix, or seven bits a byte (RFC 7541, section 5.1).

use alloc::vec::Vec;

use super::error::Error;

/// Bytes behind the prefix that a number may take: 28 bits are more than any block holds.
const BYTES_MAX: u32 = 4;

/// Reads a number whose first byte was taken already; `mask` is the bits of it that are the number's.
#[inline]
pub(super) fn read(first: u8, mask: u8, rest: &mut &[u8]) -> Result<usize, Error> {
    let prefix = first & mask;
    if prefix < mask {
        Ok(usize::from(prefix))
    } else {
        read_more(mask, rest)
    }
}

#[inline(never)]
fn read_more(mask: u8, rest: &mut &[u8]) -> Result<usize, Error> {
    let mut number = 0;
    for place in 0..BYTES_MAX {
        let (&byte, tail) = rest.split_first().ok_or(Error::Truncated)?;
        *rest = tail;
        number |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(number + usize::from(mask));
        }
    }
    Err(Error::BadInteger)
}

/// Writes a number; `pattern` is the bits of the first byte that are not the number's.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, pattern: u8, mask: u8, number: usize) {
    if number < usize::from(mask) {
        out.push(pattern | number as u8);
    } else {
        write_more(out, pattern | mask, number - usize::from(mask));
    }
}

#[inline(never)]
fn write_more(out: &mut Vec<u8>, first: u8, mut number: usize) {
    out.push(first);
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
