//! The verdicts that a core keeps, so that it need not ask again about equal requests.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::CallRequest;
use crate::io::Instant;
use crate::limits::{AUTH_VERDICTS_BYTES_MAX, AUTH_VERDICTS_MAX};

/// Names and values of fields.
pub(super) type Fields = Box<[(Box<[u8]>, Box<[u8]>)]>;

/// What one exchange keeps of its verdict.
#[derive(Debug, Default)]
pub struct AuthNotes {
    /// The key of the verdict that the exchange waits for.
    pub(super) key: Option<Box<[u8]>>,
    /// The fields that came with the verdict, if there are any.
    pub(super) approval: Option<Rc<Approval>>,
}

/// The fields that came with a verdict that lets a request pass.
#[derive(Debug, Default)]
pub(super) struct Approval {
    /// For the endpoint.
    pub(super) to_request: Fields,
    /// For the client.
    pub(super) to_response: Fields,
}

impl Approval {
    pub(super) fn is_empty(&self) -> bool {
        self.to_request.is_empty() && self.to_response.is_empty()
    }

    fn bytes(&self) -> usize {
        let fields = self.to_request.iter().chain(&self.to_response);
        let bytes = fields.map(|(name, value)| name.len() + value.len() + FIELD_BYTES);
        bytes.sum()
    }
}

/// Memory of a field besides its bytes: two pointers with lengths.
const FIELD_BYTES: usize = 32;

/// Memory of a verdict besides its fields: the entry of the map, its key, its place in the queue.
const ENTRY_BYTES: usize = 128;

/// The verdicts of one step on one core. Only those that let requests pass are kept. A verdict's key is the whole
/// request to the server, so no other request can get it.
#[derive(Debug, Default)]
pub struct Verdicts {
    kept: RefCell<Kept>,
    /// The memory of the next request.
    scratch: RefCell<CallRequest>,
}

#[derive(Debug)]
struct Kept {
    by_key: HashMap<Rc<[u8]>, KeptVerdict>,
    /// The keys, the oldest first. All verdicts live equally long, so that is the order in which they expire. A renewed
    /// verdict is in the queue twice.
    order: VecDeque<(Rc<[u8]>, Instant)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            by_key: HashMap::default(),
            order: VecDeque::default(),
            bytes: 0,
            bytes_max: AUTH_VERDICTS_BYTES_MAX,
        }
    }
}

#[derive(Debug)]
struct KeptVerdict {
    approval: Rc<Approval>,
    expires: Instant,
}

impl Verdicts {
    /// The verdict about a request, if the core has it.
    pub(super) fn find(&self, key: &[u8], now: Instant) -> Option<Rc<Approval>> {
        let kept = self.kept.borrow();
        let found = kept.by_key.get(key).filter(|found| now < found.expires);
        found.map(|found| found.approval.clone())
    }

    /// Keeps a verdict for `time`, or until newer ones need its room.
    pub(super) fn keep(
        &self,
        key: Box<[u8]>,
        approval: Rc<Approval>,
        now: Instant,
        time: Duration,
    ) {
        let expires = now + time;
        let bytes = entry_bytes(&key, &approval);
        let kept = &mut *self.kept.borrow_mut();
        if bytes > kept.bytes_max {
            return;
        }
        let key = Rc::<[u8]>::from(key);
        kept.drop_entry(&key);
        while kept.has_expired(now)
            || kept.order.len() >= AUTH_VERDICTS_MAX
            || kept.bytes + bytes > kept.bytes_max
        {
            kept.drop_oldest();
        }
        kept.bytes += bytes;
        kept.order.push_back((key.clone(), expires));
        kept.by_key.insert(key, KeptVerdict { approval, expires });
    }

    /// The memory of the verdicts, in bytes.
    pub(in crate::policy) fn bytes(&self) -> usize {
        self.kept.borrow().bytes
    }

    /// Sets how many bytes the verdicts may take; more than [`AUTH_VERDICTS_BYTES_MAX`] count as that.
    pub(in crate::policy) fn bound(&self, bytes_max: usize) {
        let kept = &mut *self.kept.borrow_mut();
        kept.bytes_max = bytes_max.min(AUTH_VERDICTS_BYTES_MAX);
        while kept.bytes > kept.bytes_max {
            kept.drop_oldest();
        }
    }

    /// Takes the memory for the next request.
    pub(super) fn take_scratch(&self) -> CallRequest {
        self.scratch.take()
    }

    /// Gives that memory back.
    pub(super) fn return_scratch(&self, scratch: CallRequest) {
        self.scratch.replace(scratch);
    }
}

impl Kept {
    fn has_expired(&self, now: Instant) -> bool {
        self.order
            .front()
            .is_some_and(|&(_, expires)| expires <= now)
    }

    fn drop_oldest(&mut self) {
        let Some((key, expires)) = self.order.pop_front() else {
            return;
        };
        // Its newer place counts.
        let is_current = |found: &KeptVerdict| found.expires == expires;
        if self.by_key.get(&key).is_some_and(is_current) {
            self.drop_entry(&key);
        }
    }

    fn drop_entry(&mut self, key: &[u8]) {
        if let Some(dropped) = self.by_key.remove(key) {
            self.bytes -= entry_bytes(key, &dropped.approval);
        }
    }
}

fn entry_bytes(key: &[u8], approval: &Approval) -> usize {
    key.len() + approval.bytes() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    fn approval(value: &[u8]) -> Rc<Approval> {
        let field = (b"Remote-User"[..].into(), value.into());
        Rc::new(Approval {
            to_request: Box::new([field]),
            to_response: Box::default(),
        })
    }

    fn key(number: usize) -> Box<[u8]> {
        number.to_string().into_bytes().into()
    }

    #[test]
    fn a_verdict_is_found_until_it_expires() {
        let verdicts = Verdicts::default();
        let now = Instant(0);
        verdicts.keep(key(1), approval(b"alice"), now, TIME);
        assert!(verdicts.find(b"1", now).is_some());
        assert!(verdicts.find(b"2", now).is_none());
        let later = now + TIME;
        assert!(verdicts.find(b"1", later).is_none());
        verdicts.keep(key(1), approval(b"bob"), later, TIME);
        let found = verdicts.find(b"1", later).unwrap();
        assert_eq!(&*found.to_request[0].1, b"bob");
        assert_eq!(verdicts.kept.borrow().order.len(), 1);
    }

    #[test]
    fn verdicts_are_bounded_in_number_and_the_oldest_go_first() {
        let verdicts = Verdicts::default();
        let now = Instant(0);
        for n in 0..2 * AUTH_VERDICTS_MAX {
            verdicts.keep(key(n), approval(b"a"), now, TIME);
        }
        let newest = key(2 * AUTH_VERDICTS_MAX - 1);
        assert!(verdicts.find(&newest, now).is_some());
        assert!(verdicts.find(b"0", now).is_none());
        assert_eq!(verdicts.kept.borrow().by_key.len(), AUTH_VERDICTS_MAX);
        for _ in 0..2 * AUTH_VERDICTS_MAX {
            verdicts.keep(key(1), approval(b"a"), now, TIME);
        }
        assert_eq!(verdicts.kept.borrow().order.len(), AUTH_VERDICTS_MAX);
        assert!(verdicts.find(b"1", now).is_some());
        verdicts.keep(key(2), approval(b"a"), now + TIME, TIME);
        assert_eq!(verdicts.kept.borrow().order.len(), 1, "the others are old");
    }

    #[test]
    fn verdicts_are_bounded_in_bytes() {
        let verdicts = Verdicts::default();
        let now = Instant(0);
        let large = vec![b'x'; AUTH_VERDICTS_BYTES_MAX / 3];
        for n in 0..10 {
            verdicts.keep(key(n), approval(&large), now, TIME);
            assert!(verdicts.kept.borrow().bytes <= AUTH_VERDICTS_BYTES_MAX);
        }
        assert_eq!(verdicts.kept.borrow().by_key.len(), 2);
        let huge = vec![b'x'; AUTH_VERDICTS_BYTES_MAX];
        verdicts.keep(key(10), approval(&huge), now, TIME);
        assert!(verdicts.find(b"10", now).is_none());
        assert!(verdicts.find(b"9", now).is_some());
        for n in 0..10 {
            verdicts.kept.borrow_mut().drop_entry(&key(n));
        }
        assert_eq!(verdicts.kept.borrow().bytes, 0);
    }
}
