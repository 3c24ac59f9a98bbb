//! The receiving half of a machine: the state of the current message and the decoder of its body.

use crate::body::BodyDecoder;
use crate::error::Error;
use crate::event::{Event, Received};
use crate::framing::BodyKind;
use crate::head::Head;
use crate::limits::Limits;
use crate::trailers::Trailers;

/// Receives the messages of one peer. [`Server`](crate::Server) and [`Client`](crate::Client) share
/// this part; each parses its own heads.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    limits: Limits,
    state: ReceiveState,
    decoder: BodyDecoder,
}

/// The progress of the current message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiveState {
    /// The client has sent no request, so no answer is due. A server is never in this state.
    Idle,
    /// The next byte starts a new head.
    BeforeHead,
    Head,
    Body,
    Done,
    /// The first error is final.
    Failed(Error),
    Tunnel,
}

impl Receiver {
    /// Makes the receiver of a server. It waits for a request.
    pub(crate) fn of_server(limits: Limits) -> Self {
        Self {
            limits,
            state: ReceiveState::BeforeHead,
            decoder: BodyDecoder::new(BodyKind::None, &limits),
        }
    }

    /// Makes the receiver of a client. It has sent no request.
    pub(crate) fn of_client(limits: Limits) -> Self {
        Self {
            limits,
            state: ReceiveState::Idle,
            decoder: BodyDecoder::for_responses(&limits),
        }
    }

    #[inline]
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    #[inline]
    pub(crate) const fn state(&self) -> ReceiveState {
        self.state
    }

    /// Waits for a new head.
    #[inline]
    pub(crate) const fn expect_head(&mut self) {
        self.state = ReceiveState::BeforeHead;
    }

    /// Clears `head` when a message begins. Returns whether there is a byte to parse.
    #[inline]
    pub(crate) fn begin_head(&mut self, input: &[u8], head: &mut Head) -> bool {
        if self.state == ReceiveState::BeforeHead {
            head.clear();
            if input.is_empty() {
                return false;
            }
            self.state = ReceiveState::Head;
        }
        true
    }

    #[inline]
    pub(crate) fn begin_body(&mut self, body: BodyKind) {
        self.decoder.reset(body);
        self.state = ReceiveState::Body;
    }

    /// Decodes the next piece of the body. On an error, the machine calls [`Receiver::fail`].
    #[inline]
    pub(crate) fn receive_body(&mut self, input: &[u8]) -> Result<Received, Error> {
        let received = Received::from(self.decoder.decode(input)?);
        if received.event == Event::End {
            self.state = ReceiveState::Done;
        }
        Ok(received)
    }

    #[inline]
    pub(crate) const fn raw_body_left(&self) -> u64 {
        match self.state {
            ReceiveState::Body => self.decoder.raw_left(),
            _ => 0,
        }
    }

    pub(crate) fn skip_raw_body(&mut self, len: u64) -> Result<(), Error> {
        if len > self.raw_body_left() {
            return Err(Error::OutOfOrder);
        }
        self.decoder.skip_raw(len)
    }

    /// Ends a body that lasts until the connection closes.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.decoder.close()
    }

    pub(crate) const fn begin_tunnel(&mut self) {
        self.state = ReceiveState::Tunnel;
    }

    /// Keeps an error for good.
    pub(crate) const fn fail(&mut self, error: Error) {
        self.state = ReceiveState::Failed(error);
    }

    /// Goes to `state` between two messages and frees what large trailers took.
    pub(crate) fn reset(&mut self, state: ReceiveState) {
        self.state = state;
        self.decoder.reset(BodyKind::None);
    }

    pub(crate) const fn trailers(&self) -> &Trailers {
        self.decoder.trailers()
    }

    pub(crate) const fn trailers_mut(&mut self) -> &mut Trailers {
        self.decoder.trailers_mut()
    }

    #[inline]
    pub(crate) fn is_received(&self) -> bool {
        match self.state {
            ReceiveState::Done | ReceiveState::Tunnel => true,
            ReceiveState::Body => self.decoder.is_done(),
            ReceiveState::Idle
            | ReceiveState::BeforeHead
            | ReceiveState::Head
            | ReceiveState::Failed(_) => false,
        }
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.state == ReceiveState::Tunnel
    }
}
