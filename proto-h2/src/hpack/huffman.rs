//! The Huffman code of strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical, so the lengths say it all; the tables are made of them at compile time.
//! Decoding looks at twelve bits at a time, which are up to two symbols: nearly all text is of
//! symbols of five to eight bits.

use alloc::vec::Vec;

use super::error::Error;

/// Bits of each symbol's code. The last is EOS, which no string may hold.
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

/// The code in the order of its words, and where each length begins.
struct Canonical {
    /// The symbols by length, then by value.
    symbols: [u16; 257],
    /// The first code word of each length.
    first: [u32; LENGTH_MAX + 2],
    /// How many symbols have shorter words.
    shorter: [u32; LENGTH_MAX + 2],
}

impl Canonical {
    /// The symbol of a code word; none if words that begin like it are longer.
    fn symbol(&self, word: u32, len: usize) -> Option<u16> {
        let place = word.checked_sub(*self.first.get(len)?)? + self.shorter.get(len)?;
        if place >= *self.shorter.get(len + 1)? {
            return None;
        }
        self.symbols.get(place as usize).copied()
    }
}

static CANONICAL: Canonical = canonical();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks it"
)]
const fn canonical() -> Canonical {
    let mut it = Canonical {
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
struct Word {
    bits: u32,
    len: u32,
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks it"
)]
static WORDS: [Word; 256] = {
    let canonical = canonical();
    let mut words = [Word { bits: 0, len: 0 }; 256];
    let mut at = 0;
    while at < 256 {
        let symbol = canonical.symbols[at] as usize;
        let len = LENGTHS[symbol] as usize;
        words[symbol] = Word {
            bits: canonical.first[len] + at as u32 - canonical.shorter[len],
            len: len as u32,
        };
        at += 1;
    }
    words
};

/// Bits that one look at the decoding table takes in.
const LOOK: usize = 12;

/// What the first bits of the input say: one or two symbols, or that the word is longer.
#[derive(Clone, Copy)]
struct Step {
    /// The symbols, the first one in the low byte.
    symbols: u16,
    /// Bits of both; of the only one; 0 if the word is longer than a look.
    len: u8,
    /// Bits of the first, and above the lowest five how many there are.
    first: u8,
}

impl Step {
    const LONGER: Self = Self {
        symbols: 0,
        len: 0,
        first: 0,
    };

    #[inline]
    const fn count(self) -> u32 {
        self.first as u32 >> 5
    }

    #[inline]
    const fn first_len(self) -> u32 {
        self.first as u32 & 31
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks it"
)]
static STEPS: [Step; 1 << LOOK] = {
    let canonical = canonical();
    let mut steps = [Step::LONGER; 1 << LOOK];
    let (mut at, mut place) = (0, 0);
    while LENGTHS[canonical.symbols[at] as usize] as usize <= LOOK {
        let symbol = canonical.symbols[at];
        let len = LENGTHS[symbol as usize];
        let end = place + (1 << (LOOK - len as usize));
        while place < end {
            steps[place] = Step {
                symbols: symbol,
                len,
                first: len | 1 << 5,
            };
            place += 1;
        }
        at += 1;
    }
    let single = steps;
    let mut place = 0;
    while place < single.len() {
        let one = single[place];
        let two = single[place << one.len & ((1 << LOOK) - 1)];
        if one.len != 0 && two.len != 0 && (one.len + two.len) as usize <= LOOK {
            steps[place] = Step {
                symbols: one.symbols | two.symbols << 8,
                len: one.len + two.len,
                first: one.len | 2 << 5,
            };
        }
        place += 1;
    }
    steps
};

/// Bits of the input, from the highest of a word on.
struct Bits<'i> {
    word: u64,
    count: u32,
    input: &'i [u8],
}

impl Bits<'_> {
    /// Fills the word, eight bytes at a time; it then has 56 bits at least. Says whether there were
    /// eight.
    #[inline]
    fn fill(&mut self) -> bool {
        let Some(next) = self.input.first_chunk::<8>() else {
            return false;
        };
        self.word |= u64::from_be_bytes(*next) >> self.count;
        let taken = (63 - self.count) >> 3;
        self.input = self.input.get(taken as usize..).unwrap_or_default();
        self.count += taken << 3;
        true
    }

    /// Fills the word byte by byte, and when none is left with ones, as padding does.
    fn fill_up(&mut self) {
        while self.count <= 56
            && let Some((&byte, rest)) = self.input.split_first()
        {
            self.word |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.input = rest;
        }
        if self.input.is_empty() {
            self.word |= u64::MAX.checked_shr(self.count).unwrap_or_default();
        }
    }

    #[inline]
    fn step(&self) -> Step {
        STEPS
            .get((self.word >> (64 - LOOK)) as usize)
            .copied()
            .unwrap_or(Step::LONGER)
    }

    #[inline]
    fn take(&mut self, count: u32) {
        self.word <<= count;
        self.count -= count;
    }

    /// The symbol whose word is longer than a look, and the word's length.
    #[cold]
    fn long(&self) -> (u16, u32) {
        for len in LOOK + 1..=LENGTH_MAX {
            let word = (self.word >> (64 - len)) as u32;
            if let Some(symbol) = CANONICAL.symbol(word, len) {
                return (symbol, len as u32);
            }
        }
        (EOS as u16, LENGTH_MAX as u32)
    }
}

/// Decodes a string and appends it.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let mut bits = Bits {
        word: 0,
        count: 0,
        input,
    };
    // Four looks take 48 bits at most and give eight symbols at most.
    while bits.fill() {
        let (mut symbols, mut count, mut last) = (0, 0, Step::LONGER);
        for _ in 0..4 {
            last = bits.step();
            symbols |= u64::from(last.symbols) << (8 * count);
            count += last.count();
            bits.take(u32::from(last.len));
        }
        let len = out.len() + count as usize;
        out.extend_from_slice(&symbols.to_le_bytes());
        out.truncate(len);
        if last.len == 0 {
            bits.fill_up();
            long_symbol(&mut bits, out)?;
        }
    }
    tail(bits, out)
}

/// Decodes the end of a string, where padding may begin at any bit.
fn tail(mut bits: Bits<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        bits.fill_up();
        let step = bits.step();
        let [first, second] = step.symbols.to_le_bytes();
        if step.len == 0 {
            if is_padding(&bits) {
                return Ok(());
            }
            long_symbol(&mut bits, out)?;
        } else if u32::from(step.len) <= bits.count {
            out.push(first);
            if step.count() == 2 {
                out.push(second);
            }
            bits.take(u32::from(step.len));
        } else if step.first_len() <= bits.count {
            out.push(first);
            bits.take(step.first_len());
        } else {
            return Err(Error::BadHuffman);
        }
    }
}

/// Says whether nothing but padding is left: less than a byte, of ones.
fn is_padding(bits: &Bits<'_>) -> bool {
    bits.count < 8 && bits.input.is_empty() && bits.word == u64::MAX
}

#[cold]
fn long_symbol(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let (symbol, len) = bits.long();
    if len > bits.count || symbol as usize == EOS {
        return Err(Error::BadHuffman);
    }
    out.push(symbol as u8);
    bits.take(len);
    Ok(())
}

/// Bytes that a string takes when it is encoded.
pub(super) fn len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| word(byte).len as usize).sum();
    bits.div_ceil(8)
}

#[inline]
fn word(byte: u8) -> Word {
    WORDS
        .get(usize::from(byte))
        .copied()
        .unwrap_or(Word { bits: 0, len: 0 })
}

/// Encodes a string and appends it.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0);
    for &byte in text {
        let word = word(byte);
        bits = bits << word.len | u64::from(word.bits);
        count += word.len;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    //= rfc7541#5.2
    // The last byte is filled with the beginning of EOS, which is ones.
    let padding = count.wrapping_neg() & 7;
    bits = bits << padding | ((1 << padding) - 1);
    count += padding;
    while count > 0 {
        count -= 8;
        out.push((bits >> count) as u8);
    }
}
