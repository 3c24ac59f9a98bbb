//! What both machines say to their caller.

use core::ops::Range;

use crate::body::DecodedBody;

/// One step of a machine: what happened, and how much of the input it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes at the front of the input that are done with. The next call starts behind them.
    pub consumed: usize,
    /// What happened.
    pub event: Event,
}

/// What a machine found in its input. For each message: `Head`, any number of `Data`, `End`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet. Keep what was not consumed, and call again when more has come.
    NeedMore,
    /// The head is complete, and its spans are over the input of this call.
    Head,
    /// The head of an interim answer (1xx) is complete; the final one is still to come. Client only.
    Interim,
    /// The protocol changes with this head (101): what follows is not HTTP. Client only.
    Switch,
    /// The bytes of this range of the input are data.
    Data(Range<usize>),
    /// The message is complete, its trailers are there.
    End,
    /// Nothing is taken before the exchange under way is finished.
    Blocked,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It takes the next one.
    Reuse,
    /// It has to be closed.
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
