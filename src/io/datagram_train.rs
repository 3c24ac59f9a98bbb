//! Datagrams that travel together: the system receives and sends them as one (UDP GRO and GSO).

use std::io::IoSlice;

/// Datagrams that arrived one after the other along one path. All have the same length; only the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct DatagramTrain<'a> {
    /// Their bytes. A part is one datagram, or several of the train's length.
    parts: &'a [IoSlice<'a>],
    /// Bytes of each datagram but the last.
    length: usize,
    count: usize,
}

impl<'a> DatagramTrain<'a> {
    /// A train of parts that hold whole datagrams of `length` bytes each; only the last may be shorter. With a length of
    /// 0 it is one empty datagram.
    pub(super) fn new(parts: &'a [IoSlice<'a>], length: usize) -> Self {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let count = match length {
            0 => 1,
            _ => bytes.div_ceil(length).max(1),
        };
        Self {
            parts,
            length,
            count,
        }
    }

    /// A single datagram.
    #[must_use]
    pub fn single(part: &'a [IoSlice<'a>; 1]) -> Self {
        let [only] = part;
        Self::new(part, only.len())
    }

    /// How many datagrams there are, at least one.
    #[must_use]
    pub fn count(self) -> usize {
        self.count
    }

    /// Bytes of all datagrams.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// The first `count` datagrams, at least one.
    #[must_use]
    pub fn first(self, count: usize) -> Self {
        Self {
            count: self.count.min(count.max(1)),
            ..self
        }
    }

    /// Each datagram.
    pub fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        let Self {
            parts,
            length,
            count,
        } = self;
        let empty: &[u8] = &[];
        let full = parts
            .iter()
            .flat_map(move |part| part.chunks(length.max(1)));
        full.chain(std::iter::once(empty).filter(move |_| length == 0))
            .take(count)
    }

    /// Bytes of each datagram but the last.
    pub(super) fn length(self) -> usize {
        self.length
    }

    /// The bytes of the train, part by part.
    pub(super) fn parts(self) -> impl Iterator<Item = &'a [u8]> {
        let mut left = self.length * self.count;
        self.parts.iter().map_while(move |part| {
            let taken = part.get(..left.min(part.len()))?;
            left -= taken.len();
            (!taken.is_empty()).then_some(taken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(train: DatagramTrain<'_>) -> Vec<usize> {
        assert_eq!(train.datagrams().count(), train.count());
        train.datagrams().map(<[u8]>::len).collect()
    }

    #[test]
    fn a_train_falls_apart_into_its_datagrams() {
        let bytes: Vec<u8> = (0..250).collect();
        let whole = [IoSlice::new(&bytes)];
        let merged = [IoSlice::new(&bytes[..100]), IoSlice::new(&bytes[100..150])];
        let train = DatagramTrain::new(&whole, 100);
        assert_eq!(lengths(train), [100, 100, 50]);
        assert_eq!(train.datagrams().collect::<Vec<_>>().concat(), bytes);
        assert_eq!(lengths(train.first(2)), [100, 100]);
        assert_eq!(train.first(2).parts().map(<[u8]>::len).sum::<usize>(), 200);
        assert_eq!(lengths(train.first(9)), [100, 100, 50]);
        let train = DatagramTrain::new(&merged, 100);
        assert_eq!((lengths(train), train.bytes()), (vec![100, 50], 150));
        assert_eq!(train.first(1).parts().count(), 1);
    }

    #[test]
    fn an_empty_datagram_is_one() {
        let part = [IoSlice::new(&[])];
        let train = DatagramTrain::single(&part);
        assert_eq!((lengths(train), train.bytes()), (vec![0], 0));
        assert_eq!(train.parts().count(), 0);
    }
}
