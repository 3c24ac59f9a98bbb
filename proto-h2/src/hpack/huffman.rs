//! The Huffman code of strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical, so its lengths define it, and the tables are computed from them at
//! compile time. The decoder looks up twelve bits at a time, which hold up to two symbols, because
//! nearly all text consists of symbols of five to eight bits.

use alloc::vec::Vec;

use super::error::Error;
use super::integer;

/// Length of each symbol's code word in bits. The last symbol is EOS, which no string may contain.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const EOS: usize = 256;
const LENGTH_MAX: usize = 30;

/// The symbols in the order of their code words, and where each length begins.
struct CanonicalCode {
    /// The symbols by length, then by value.
    symbols: [u16; 257],
    /// The first code word of each length.
    first: [u32; LENGTH_MAX + 2],
    /// The number of symbols with shorter code words.
    shorter: [u32; LENGTH_MAX + 2],
}

impl CanonicalCode {
    /// The symbol of a code word; `None` if the code word is longer than `len`.
    fn symbol(&self, word: u32, len: usize) -> Option<u16> {
        let place = word.checked_sub(*self.first.get(len)?)? + self.shorter.get(len)?;
        if place >= *self.shorter.get(len + 1)? {
            return None;
        }
        self.symbols.get(place as usize).copied()
    }
}

static CANONICAL: CanonicalCode = canonical();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
const fn canonical() -> CanonicalCode {
    let mut it = CanonicalCode {
        symbols: [0; 257],
        first: [0; LENGTH_MAX + 2],
        shorter: [0; LENGTH_MAX + 2],
    };
    let (mut len, mut word, mut count) = (1, 0, 0);
    while len <= LENGTH_MAX + 1 {
        it.first[len] = word;
        it.shorter[len] = count as u32;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == len {
                it.symbols[count] = symbol as u16;
                count += 1;
                word += 1;
            }
            symbol += 1;
        }
        word <<= 1;
        len += 1;
    }
    assert!(count == LENGTHS.len() && it.symbols[256] as usize == EOS);
    it
}

/// A symbol's code word, in the low bits, and its length.
#[derive(Clone, Copy)]
struct CodeWord {
    bits: u32,
    len: u32,
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
static CODE_WORDS: [CodeWord; 256] = {
    let canonical = canonical();
    let mut words = [CodeWord { bits: 0, len: 0 }; 256];
    let mut at = 0;
    while at < 256 {
        let symbol = canonical.symbols[at] as usize;
        let len = LENGTHS[symbol] as usize;
        words[symbol] = CodeWord {
            bits: canonical.first[len] + at as u32 - canonical.shorter[len],
            len: len as u32,
        };
        at += 1;
    }
    words
};

/// Bits of a table lookup.
const LOOKUP_BITS: usize = 12;

/// What the next bits decode to: one or two symbols, or the start of a longer code word.
#[derive(Clone, Copy)]
struct Lookup {
    /// The symbols. The first is in the low byte.
    symbols: u16,
    /// Bits of their code words; 0 if the code word is longer than a lookup.
    len: u8,
    /// Bits of the symbols themselves: 8 or 16.
    width: u8,
}

impl Lookup {
    const LONGER: Self = Self {
        symbols: 0,
        len: 0,
        width: 0,
    };
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
static LOOKUPS: [Lookup; 1 << LOOKUP_BITS] = {
    let canonical = canonical();
    let mut steps = [Lookup::LONGER; 1 << LOOKUP_BITS];
    let (mut at, mut place) = (0, 0);
    while LENGTHS[canonical.symbols[at] as usize] as usize <= LOOKUP_BITS {
        let symbol = canonical.symbols[at];
        let len = LENGTHS[symbol as usize];
        let end = place + (1 << (LOOKUP_BITS - len as usize));
        while place < end {
            steps[place] = Lookup {
                symbols: symbol,
                len,
                width: 8,
            };
            place += 1;
        }
        at += 1;
    }
    assert!(
        place >> (LOOKUP_BITS - 8) == 0xff,
        "longer words begin with ones"
    );
    let single = steps;
    let mut place = 0;
    while place < single.len() {
        let one = single[place];
        let two = single[place << one.len & ((1 << LOOKUP_BITS) - 1)];
        if one.len != 0 && two.len != 0 && (one.len + two.len) as usize <= LOOKUP_BITS {
            steps[place] = Lookup {
                symbols: one.symbols | two.symbols << 8,
                len: one.len + two.len,
                width: 16,
            };
        }
        place += 1;
    }
    steps
};

/// Reads bits of the input from the high end of a word. Ones follow the last bit, like padding.
struct BitReader<'i> {
    word: u64,
    /// How many bits of the word belong to the input. Negative if symbols used bits beyond the
    /// input.
    count: i32,
    rest: &'i [u8],
    /// The last eight bytes of the input.
    last: u64,
}

impl<'i> BitReader<'i> {
    fn new(input: &'i [u8]) -> Self {
        let last = match input.last_chunk::<8>() {
            Some(chunk) => u64::from_be_bytes(*chunk),
            None => input
                .iter()
                .fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        Self {
            word: 0,
            count: 0,
            rest: input,
            last,
        }
    }

    /// Fills the word to at least 56 bits, if the input has so many.
    #[inline]
    fn fill(&mut self) {
        match (self.rest.first_chunk::<8>(), self.rest.len()) {
            (Some(chunk), _) => self.put(u64::from_be_bytes(*chunk)),
            (None, len @ 1..) => self.put(self.last << (64 - 8 * len)),
            (None, _) => {}
        }
        if self.rest.is_empty() {
            self.word |= u64::MAX.checked_shr(self.count as u32).unwrap_or_default();
        }
    }

    /// Adds as many of the next bytes as fit.
    #[inline]
    fn put(&mut self, next: u64) {
        self.word |= next >> self.count;
        let taken = self.rest.len().min((63 - self.count as usize) >> 3);
        self.rest = self.rest.get(taken..).unwrap_or_default();
        self.count += 8 * taken as i32;
    }

    #[inline]
    fn step(&self) -> Lookup {
        LOOKUPS
            .get((self.word >> (64 - LOOKUP_BITS)) as usize)
            .copied()
            .unwrap_or(Lookup::LONGER)
    }

    #[inline]
    fn take(&mut self, len: u8) {
        self.word <<= len & 63;
        self.count -= i32::from(len);
    }

    /// Returns whether only padding of less than a byte remains. Call it when the lookup found a
    /// longer code word, which starts with eight ones.
    #[inline]
    fn is_padding(&self) -> bool {
        self.rest.is_empty() && self.count < 8
    }

    /// Decodes a symbol whose code word is longer than a lookup. `None` for EOS, and for padding
    /// that is too long.
    #[cold]
    fn take_long_symbol(&mut self) -> Option<u8> {
        for len in LOOKUP_BITS + 1..=LENGTH_MAX {
            let word = (self.word >> (64 - len)) as u32;
            if let Some(symbol) = CANONICAL.symbol(word, len) {
                self.take(len as u8);
                return u8::try_from(symbol).ok();
            }
        }
        None
    }
}

/// Decodes a string and appends it.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let mut bits = BitReader::new(input);
    loop {
        bits.fill();
        // Four lookups take at most 48 bits and produce at most eight symbols.
        let (mut symbols, mut width, mut last) = (0, 0, Lookup::LONGER);
        for _ in 0..4 {
            last = bits.step();
            symbols |= u64::from(last.symbols) << (width & 63);
            width += u32::from(last.width);
            bits.take(last.len);
        }
        let len = out.len() + (width >> 3) as usize;
        out.extend_from_slice(&symbols.to_le_bytes());
        out.truncate(len);
        if bits.count < 0 {
            return Err(Error::BadHuffman);
        }
        if last.len == 0 {
            bits.fill();
            if bits.is_padding() {
                return Ok(());
            }
            // The next round checks that the input had all bits of the symbol.
            out.push(bits.take_long_symbol().ok_or(Error::BadHuffman)?);
        }
    }
}

/// Bytes of the encoded string.
fn len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| word(byte).len as usize).sum();
    bits.div_ceil(8)
}

#[inline]
fn word(byte: u8) -> CodeWord {
    CODE_WORDS
        .get(usize::from(byte))
        .copied()
        .unwrap_or(CodeWord { bits: 0, len: 0 })
}

/// Encodes a string and appends it.
fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0);
    let mut put = |bits_more: u32, len| {
        bits = bits << len | u64::from(bits_more);
        count += len;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    };
    // Four usual symbols fit in 32 bits.
    let (fours, rest) = text.as_chunks::<4>();
    for four in fours {
        let [a, b, c, d] = four.map(word);
        let len = a.len + b.len + c.len + d.len;
        if len <= 32 {
            let front = a.bits << b.len | b.bits;
            put((front << c.len | c.bits) << d.len | d.bits, len);
        } else {
            for word in [a, b, c, d] {
                put(word.bits, word.len);
            }
        }
    }
    for &byte in rest {
        let word = word(byte);
        put(word.bits, word.len);
    }
    //= rfc7541#5.2
    // The last byte is padded with the start of EOS, which is ones.
    let len = out.len() + count.div_ceil(8) as usize;
    let last = ((bits << 32 | 0xffff_ffff) >> count) as u32;
    out.extend_from_slice(&last.to_be_bytes());
    out.truncate(len);
}

/// Up to this length, a text is encoded before it is known whether that is shorter, because the
/// length takes one byte either way.
const TRIED_BYTES_MAX: usize = 126;

/// Up to this length, a text is not encoded, because that would save at most one byte.
const PLAIN_BYTES_MAX: usize = 4;

/// Writes a string with its length (RFC 7541, section 5.2), Huffman-encoded if that is shorter.
pub(super) fn write(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() <= PLAIN_BYTES_MAX {
        // Not worth encoding.
    } else if text.len() <= TRIED_BYTES_MAX {
        let start = out.len();
        out.push(0x80);
        encode(text, out);
        let len = out.len() - start - 1;
        if len < text.len() {
            if let Some(first) = out.get_mut(start) {
                *first |= len as u8;
            }
            return;
        }
        out.truncate(start);
    } else {
        let len = len(text);
        if len < text.len() {
            integer::write(out, 0x80, 0x7f, len);
            return encode(text, out);
        }
    }
    write_plain(out, text);
}

/// Writes a string literal without the code.
#[inline]
pub(super) fn write_plain(out: &mut Vec<u8>, text: &[u8]) {
    integer::write(out, 0x00, 0x7f, text.len());
    out.extend_from_slice(text);
}
