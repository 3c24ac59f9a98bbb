//! What the machines report to their caller.

use core::ops::Range;

use crate::body::DecodedBody;

/// One step of a machine: what happened, and how much input it consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Consumed bytes at the front of the input. The next call starts after them.
    pub consumed: usize,
    /// What happened.
    pub event: Event,
}

/// What a machine found in its input. A message is `Head`, any number of `Data`, `End`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet. Keep the unconsumed bytes, and call again with more.
    NeedMore,
    /// The head is complete. Its spans point into the input of this call.
    Head,
    /// The head of an interim response (1xx) is complete. The final response follows. Clients only.
    Interim,
    /// The head of a 101 is complete. The bytes after it are not HTTP. Clients only.
    Switch,
    /// These bytes of the input are data.
    Data(Range<usize>),
    /// The message is complete, including its trailers.
    End,
    /// The machine takes no input until the current exchange is finished.
    Blocked,
}

/// What the caller does with a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Use it for the next exchange.
    Reuse,
    /// Close it.
    Close,
}

impl Received {
    #[inline]
    pub(crate) const fn new(consumed: usize, event: Event) -> Self {
        Self { consumed, event }
    }
}

impl From<DecodedBody> for Received {
    #[inline]
    fn from(decoded: DecodedBody) -> Self {
        match decoded {
            DecodedBody::NeedMore { consumed } => Self::new(consumed, Event::NeedMore),
            DecodedBody::Data { skip, len } => Self::new(skip + len, Event::Data(skip..skip + len)),
            DecodedBody::End { consumed } => Self::new(consumed, Event::End),
        }
    }
}
