//! The simulator's source of random numbers, the same on every machine.

/// A generator of pseudo-random numbers (splitmix64). Do not use it for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts a sequence; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        // Separates the sequences of neighbouring seeds.
        let mut rng = Self(seed.wrapping_mul(0xA076_1D64_78BD_642F));
        rng.next();
        rng
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            0
        } else {
            (self.next() % n as u64) as usize
        }
    }

    /// A number in `from..=to`; `from` when the range is empty.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True in `permille` of a thousand cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.next() % 1000 < u64::from(permille)
    }

    /// A size in `1..=most`, often small and often exactly `most`, because errors live at boundaries.
    pub fn size(&mut self, most: usize) -> usize {
        match self.below(4) {
            0 => self.between(1, most.min(8)).min(most),
            1 => self.between(1, most.min(512)).min(most),
            2 => self.between(1, most).min(most),
            _ => most,
        }
    }

    /// `len` bytes that compress badly and do not repeat.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 7);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// A separate generator, for a part that must not change the numbers of the others.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}
