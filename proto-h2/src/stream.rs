//! Streams and the table that holds them.

use alloc::vec::Vec;

use weir_proto_h1::Method;

use crate::config::RESETS_REMEMBERED;
use crate::flow::{ReceiveWindow, SendWindow};
use crate::priority::Priority;

/// Identifies a stream of one connection. The key of a stream that is gone finds nothing, because
/// stream numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    id: u32,
    slot: u32,
}

impl StreamKey {
    /// The key of a stream that is not in the table.
    pub(crate) const fn outside(id: u32) -> Self {
        Self { id, slot: NONE }
    }

    /// The stream's number on the wire.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.id
    }
}

/// The state of one direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfState {
    /// The final head has not come yet.
    Head,
    /// Data may follow, then the end.
    Body,
    /// The direction has ended.
    Done,
}

/// An unknown length.
pub(crate) const UNKNOWN_LENGTH: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// The stream's number, or 0 for a free slot.
    pub(crate) id: u32,
    pub(crate) receiving: HalfState,
    pub(crate) sending: HalfState,
    /// The method of the request.
    pub(crate) method: Method,
    pub(crate) priority: Priority,
    pub(crate) interim: u32,
    /// Bytes of the received message still to come, if its length is known.
    pub(crate) bytes_to_receive: u64,
    /// Bytes of the sent message still to be sent, if its length is known.
    pub(crate) bytes_to_send: u64,
    pub(crate) receive_window: ReceiveWindow,
    pub(crate) send_window: SendWindow,
    /// Tiny frames among the unconsumed data.
    pub(crate) tiny: u32,
    /// Whether data waits for room.
    pub(crate) is_stalled: bool,
    /// The next slot in the bucket or in the list of free slots.
    next: u32,
}

impl Stream {
    pub(crate) fn new(
        id: u32,
        method: Method,
        receive_window: ReceiveWindow,
        send_window: SendWindow,
    ) -> Self {
        Self {
            id,
            receiving: HalfState::Head,
            sending: HalfState::Head,
            method,
            priority: Priority::SHARED,
            interim: 0,
            bytes_to_receive: UNKNOWN_LENGTH,
            bytes_to_send: UNKNOWN_LENGTH,
            receive_window,
            send_window,
            tiny: 0,
            is_stalled: false,
            next: NONE,
        }
    }
}

const NONE: u32 = u32::MAX;

/// The open streams. Slots are reused, so there are as many as were ever open at once. Chained hash
/// buckets find a stream by its number; consecutive numbers fill them evenly.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: u32,
    len: u32,
    buckets: Vec<u32>,
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            buckets: Vec::new(),
        }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, key: StreamKey) -> Option<&Stream> {
        let stream = self.slots.get(key.slot as usize);
        stream.filter(|stream| stream.id == key.id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        let stream = self.slots.get_mut(key.slot as usize);
        stream.filter(|stream| stream.id == key.id)
    }

    /// Finds a stream by its number, which must not be 0.
    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<StreamKey> {
        let mut slot = *self.buckets.get(self.bucket(id))?;
        while let Some(stream) = self.slots.get(slot as usize) {
            if stream.id == id {
                return Some(StreamKey { id, slot });
            }
            slot = stream.next;
        }
        None
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> StreamKey {
        if self.len as usize >= self.buckets.len() {
            self.grow();
        }
        let id = stream.id;
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(free) => {
                let slot = self.free;
                self.free = free.next;
                *free = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                self.slots.len() as u32 - 1
            }
        };
        self.link(slot);
        self.len += 1;
        StreamKey { id, slot }
    }

    pub(crate) fn remove(&mut self, key: StreamKey) {
        if self.get(key).is_none() {
            return;
        }
        let bucket = self.bucket(key.id);
        let mut at = self.buckets.get(bucket).copied().unwrap_or(NONE);
        let next = self.slots.get(key.slot as usize).map_or(NONE, |s| s.next);
        if at == key.slot {
            if let Some(first) = self.buckets.get_mut(bucket) {
                *first = next;
            }
        } else {
            while let Some(stream) = self.slots.get_mut(at as usize) {
                if stream.next == key.slot {
                    stream.next = next;
                    break;
                }
                at = stream.next;
            }
        }
        if let Some(stream) = self.slots.get_mut(key.slot as usize) {
            stream.id = 0;
            stream.next = self.free;
            self.free = key.slot;
            self.len -= 1;
        }
    }

    /// The open streams.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamKey, &Stream)> {
        let slots = self.slots.iter().zip(0..);
        slots
            .filter(|(stream, _)| stream.id != 0)
            .map(|(stream, slot)| {
                let id = stream.id;
                (StreamKey { id, slot }, stream)
            })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().filter(|stream| stream.id != 0)
    }

    /// Frees the memory if no stream is open.
    pub(crate) fn release_memory(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        }
    }

    #[inline]
    fn bucket(&self, id: u32) -> usize {
        // The numbers of one side are all odd or all even.
        (id >> 1) as usize & self.buckets.len().wrapping_sub(1)
    }

    fn link(&mut self, slot: u32) {
        let Some(id) = self.slots.get(slot as usize).map(|stream| stream.id) else {
            return;
        };
        let bucket = self.bucket(id);
        if let (Some(first), Some(stream)) = (
            self.buckets.get_mut(bucket),
            self.slots.get_mut(slot as usize),
        ) {
            stream.next = *first;
            *first = slot;
        }
    }

    /// Doubles the number of buckets and rehashes the streams.
    #[cold]
    fn grow(&mut self) {
        let count = (2 * self.buckets.len()).max(8);
        self.buckets.clear();
        self.buckets.resize(count, NONE);
        for slot in 0..self.slots.len() as u32 {
            if self.slots.get(slot as usize).is_some_and(|s| s.id != 0) {
                self.link(slot);
            }
        }
    }
}

/// The numbers of recently reset streams, oldest first to go. Frames for them may still arrive and
/// are ignored.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentResets {
    ids: Vec<u32>,
    next: usize,
}

impl RecentResets {
    /// Remembers a stream. There is room for all streams that may be open and some more, because
    /// frames still arriving were sent while the stream was open to the peer.
    pub(crate) fn remember(&mut self, id: u32, streams_max: u32) {
        if self.ids.len() < RESETS_REMEMBERED.saturating_add(streams_max as usize) {
            self.ids.push(id);
        } else if let Some(oldest) = self.ids.get_mut(self.next) {
            *oldest = id;
            self.next = (self.next + 1) % self.ids.len();
        }
    }

    pub(crate) fn has(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    fn stream(id: u32) -> Stream {
        Stream::new(
            id,
            Method::Get,
            ReceiveWindow::new(1, 1, 0),
            SendWindow::new(1),
        )
    }

    /// A random sequence of steps finds what a map would find. Keys of removed streams find
    /// nothing.
    #[test]
    fn streams_are_found_by_key_and_by_number() {
        let (mut streams, mut model, mut gone) = (Streams::new(), BTreeMap::new(), Vec::new());
        let (mut random, mut id) = (7u64, 1);
        for _ in 0..5_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            let choice = (random >> 33) as usize;
            if choice % 5 < 2 || model.is_empty() {
                id += 2 * (1 + choice as u32 % 3);
                model.insert(id, streams.insert(stream(id)));
            } else {
                let (&id, &key) = model.iter().nth(choice % model.len()).unwrap();
                streams.remove(key);
                streams.remove(key);
                model.remove(&id);
                gone.push(key);
            }
            assert_eq!(streams.len() as usize, model.len());
            for (&id, &key) in &model {
                assert_eq!(streams.find(id), Some(key));
                assert_eq!(streams.get(key).map(|stream| stream.id), Some(id));
            }
            for &key in gone.iter().rev().take(8) {
                assert!(streams.find(key.id()).is_none() && streams.get(key).is_none());
            }
            assert_eq!(streams.iter().count(), model.len());
        }
    }

    #[test]
    fn the_oldest_reset_is_forgotten_first() {
        let mut resets = RecentResets::default();
        let room = RESETS_REMEMBERED as u32 + 5;
        (1..=room + 2).for_each(|id| resets.remember(id, 5));
        assert!(!resets.has(1) && !resets.has(2) && resets.has(3) && resets.has(room + 2));
        assert_eq!(resets.ids.len(), room as usize);
    }
}
