//! Received bytes that do not form a whole record yet, or that rustls has not processed.

use crate::io::{Chunk, Pool};

/// A record's header: type, version, length.
const HEADER_BYTES: usize = 5;

/// Received bytes that are not decrypted. rustls decrypts records in the block that they arrived in. If the end of a
/// block cuts a record, only the rest of that record is copied to its beginning.
#[derive(Default)]
pub(super) struct IncomingRecords {
    /// The bytes for rustls to process.
    part: Chunk,
    /// The bytes behind `part`, while `part` lacks the rest of a record.
    next: Chunk,
}

impl IncomingRecords {
    /// Adds received bytes. Call it only after [`IncomingRecords::advance`] returned false.
    pub(super) fn add(&mut self, chunk: Chunk) {
        debug_assert!(self.next.is_empty());
        if self.part.is_empty() {
            self.part = chunk;
        } else {
            self.next = chunk;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.part.is_empty() && self.next.is_empty()
    }

    /// The bytes to process next.
    pub(super) fn bytes(&mut self, pool: &Pool) -> &mut [u8] {
        if self.part.is_empty() {
            return &mut [];
        }
        if self.part.lone_mut().is_none() {
            self.part = pool.copy(&self.part);
        }
        self.part.lone_mut().unwrap_or_default()
    }

    /// Drops the first `n` bytes, which rustls has processed. [`IncomingRecords::advance`] brings the bytes behind
    /// them.
    pub(super) fn consume(&mut self, n: usize) {
        self.part.advance(n);
    }

    /// Brings the next bytes to process: the rest of a cut record, or everything that is left. Returns false if there
    /// are none.
    pub(super) fn advance(&mut self, pool: &Pool) -> bool {
        if self.next.is_empty() {
            return false;
        }
        if self.part.is_empty() {
            self.part = std::mem::take(&mut self.next);
            return true;
        }
        let missing = missing(&self.part);
        let piece = self.next.split_to(missing);
        if !self.part.append(&piece) {
            let mut joined = pool.out(self.part.len() + missing + HEADER_BYTES);
            joined.put(&self.part);
            joined.put(&piece);
            self.part = joined.freeze();
        }
        true
    }

    /// How many bytes the record at the end lacks: a good size for the next receive.
    pub(super) fn missing(&self) -> usize {
        if self.is_empty() {
            0
        } else {
            missing(&self.part)
        }
    }
}

/// How many bytes the last record, or its header, lacks; at least one.
fn missing(mut records: &[u8]) -> usize {
    loop {
        let Some(&[_, _, _, high, low]) = records.first_chunk() else {
            return HEADER_BYTES - records.len();
        };
        let record = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        match records.get(record..) {
            Some(rest) => records = rest,
            None => return record - records.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_record_gets_its_rest_and_no_more() {
        let pool = Pool::new();
        let mut record = vec![23, 3, 3, 0, 100];
        record.resize(105, b'x');
        let all = record.repeat(3);
        for cut in 1..all.len() {
            let mut incoming = IncomingRecords::default();
            incoming.add(pool.copy(&all[..cut]));
            let mut seen = Vec::new();
            let mut opened = |incoming: &mut IncomingRecords| {
                while let Some(record) = incoming.bytes(&pool).get(..105).map(<[u8]>::to_vec) {
                    seen.push(record);
                    incoming.consume(105);
                }
            };
            opened(&mut incoming);
            assert_eq!(incoming.is_empty(), cut % 105 == 0);
            incoming.add(pool.copy(&all[cut..]));
            while incoming.advance(&pool) {
                opened(&mut incoming);
            }
            opened(&mut incoming);
            assert_eq!(seen.concat(), all, "cut at {cut}");
            assert!(incoming.is_empty());
        }
        assert_eq!(pool.live_bytes(), 0);
    }

    #[test]
    fn bytes_behind_a_completed_record_are_processed() {
        let pool = Pool::new();
        let record = [23, 3, 3, 0, 2, b'a', b'b'];
        let mut incoming = IncomingRecords::default();
        incoming.add(pool.copy(&record[..3]));
        incoming.add(pool.copy(&[&record[3..], &record[..]].concat()));
        // Once for the header and once for the rest of the record.
        assert!(incoming.advance(&pool) && incoming.advance(&pool));
        assert_eq!(incoming.bytes(&pool), record);
        incoming.consume(record.len());
        assert!(
            incoming.bytes(&pool).is_empty(),
            "nothing is processed before advance"
        );
        assert!(incoming.advance(&pool), "there is more to process");
        assert_eq!(incoming.bytes(&pool), record);
        incoming.consume(record.len());
        assert!(!incoming.advance(&pool) && incoming.is_empty());
    }
}
