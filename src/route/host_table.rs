//! Finds the path trees of a host.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;

use weir_config::HostMatch;

/// The path tree of every host pattern.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: Trees,
    /// Wildcards by the name after `*.`.
    wildcard: Trees,
    /// Bytes of the longest name in `wildcard`. Longer suffixes of a host need no look-up.
    wildcard_bytes_max: usize,
    any: Option<u32>,
}

type Trees = HashMap<Box<[u8]>, u32, BuildHasherDefault<NameHasher>>;

impl HostTable {
    /// The tree of a pattern. `add` makes it if the pattern is new.
    pub(super) fn tree_of(&mut self, host: &HostMatch, add: impl FnOnce() -> u32) -> u32 {
        match host {
            HostMatch::Any => *self.any.get_or_insert_with(add),
            HostMatch::Exact(name) => *entry(&mut self.exact, name, add),
            HostMatch::Wildcard(name) => {
                self.wildcard_bytes_max = self.wildcard_bytes_max.max(name.len());
                *entry(&mut self.wildcard, name, add)
            }
        }
    }

    /// Visits the trees of the patterns that match `host`, the most specific first, until `visit` breaks.
    pub(super) fn visit<B>(
        &self,
        host: &[u8],
        mut visit: impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !self.exact.is_empty()
            && let Some(tree) = self.exact.get(host)
        {
            visit(*tree)?;
        }
        if !self.wildcard.is_empty() {
            for suffix in suffixes(host).filter(|name| name.len() <= self.wildcard_bytes_max) {
                if let Some(tree) = self.wildcard.get(suffix) {
                    visit(*tree)?;
                }
            }
        }
        self.any.map_or(ControlFlow::Continue(()), visit)
    }
}

fn entry<'a>(trees: &'a mut Trees, name: &str, add: impl FnOnce() -> u32) -> &'a mut u32 {
    trees.entry(name.as_bytes().into()).or_insert_with(add)
}

/// The host without its first label, without its first two, and so on.
fn suffixes(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_dot = |(index, byte): (usize, &u8)| (*byte == b'.' && index > 0).then_some(index + 1);
    let starts = host.iter().enumerate().filter_map(is_dot);
    starts.filter_map(|start| host.get(start..))
}

/// A fast hash of short names. All keys come from the file, so no client can choose keys that collide. Names that are
/// only looked up may collide.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        // The rest, with the bytes before it if there are enough for a whole word.
        let last = match (bytes.last_chunk::<8>(), rest.first_chunk::<4>()) {
            (Some(word), _) => u64::from_le_bytes(*word),
            (None, Some(half)) => {
                let end = rest.last_chunk::<4>().unwrap_or(half);
                u64::from(u32::from_le_bytes(*half)) << 32 | u64::from(u32::from_le_bytes(*end))
            }
            (None, None) => rest
                .iter()
                .fold(1, |word, byte| word << 8 | u64::from(*byte)),
        };
        self.write_u64(last);
    }

    fn write_u64(&mut self, word: u64) {
        // Multiplied to 128 bits and folded, so that every bit of the word reaches every bit of
        // the state. The factor is the golden ratio's fraction.
        let product = u128::from(self.0 ^ word ^ 0x5851_f42d_4c95_7f2d)
            * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    /// Every byte counts, wherever it stands and however long the name is.
    #[test]
    fn names_that_differ_in_one_byte_hash_apart() {
        let hasher = BuildHasherDefault::<NameHasher>::default();
        for length in 1..40 {
            let mut hashes = HashSet::new();
            for place in 0..length {
                for byte in b"abcdefgh-.0" {
                    let mut name = vec![b'x'; length];
                    name[place] = *byte;
                    hashes.insert(hasher.hash_one(name.as_slice()));
                }
            }
            assert_eq!(hashes.len(), length * 11, "{length} bytes");
        }
    }
}
