//! The state machine of a connection to an endpoint: frames requests, receives responses.
//!
//! # Call order
//!
//! 1. [`Client::begin_request`], whose [`Framing`] goes to
//!    [`encode_request`](crate::encode_request).
//! 2. [`Client::sender`] for the bytes around each piece of data, and for the end. A response may
//!    arrive earlier.
//! 3. [`Client::receive`] with the bytes that have arrived: any number of [`Event::Interim`], then
//!    [`Event::Head`], [`Event::Data`] any number of times, [`Event::End`]. After
//!    [`Event::Switch`] in place of `Head`, nothing is HTTP.
//! 4. [`Client::receive_close`] when the endpoint has closed, which may be how a body ends.
//! 5. [`Client::finish`], which returns whether the connection takes another request.
//!
//! A step out of order fails with [`Error::OutOfOrder`] and changes nothing.

use crate::auth::challenges_connection;
use crate::encode::{ConnectionOption, Framing};
use crate::error::Error;
use crate::event::{Event, Next, Received};
use crate::framing::{BodyKind, MessageKind, response_body, strip_hop_by_hop};
use crate::head::{Head, Method, Span};
use crate::limits::{INTERIM_MAX, Limits};
use crate::parse::{Parsed, parse_response};
use crate::receiver::{ReceiveState, Receiver};
use crate::sender::{SendState, Sender};
use crate::trailers::Trailers;

/// One connection to an endpoint. See the [module](self) for the order of calls.
#[derive(Clone, Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
    response: Response,
    method: Method,
    asked_to_switch: bool,
    interim: u32,
}

/// What the head of a response says about this hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// How the body is framed.
    pub body: BodyKind,
    /// The protocol that the head of a 101 names.
    pub upgrade: Option<Span>,
    /// Whether the endpoint wants to reuse the connection.
    pub keeps_alive: bool,
    /// Whether the endpoint asks for authentication that holds for the connection, or continues it.
    /// From then on, the connection serves only the same client.
    pub challenges_connection: bool,
}

impl Client {
    /// Makes the machine for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            sender: Sender::new(),
            receiver: Receiver::of_client(limits),
            response: Response::default(),
            method: Method::default(),
            asked_to_switch: false,
            interim: 0,
        }
    }

    /// Begins a request and returns its framing for the encoder.
    ///
    /// `upgrade` is the span of the protocol to switch to in the head. `accepts_trailers` tells the
    /// endpoint that the client accepts trailers. A body of unknown length is chunked.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] unless the connection is new or was finished for reuse.
    pub fn begin_request(
        &mut self,
        method: Method,
        body: BodyKind,
        upgrade: Option<Span>,
        accepts_trailers: bool,
    ) -> Result<Framing, Error> {
        if self.sender.state() != SendState::Idle || self.receiver.state() != ReceiveState::Idle {
            return Err(Error::OutOfOrder);
        }
        let body = match body {
            BodyKind::UntilClose => BodyKind::Chunked,
            body => body,
        };
        self.method = method;
        self.asked_to_switch = upgrade.is_some();
        self.interim = 0;
        self.sender.begin(body);
        self.receiver.expect_head();
        self.check_invariants();
        Ok(Framing {
            body,
            connection: upgrade.map_or(ConnectionOption::Implied, ConnectionOption::Upgrade),
            accepts_trailers,
        })
    }

    /// Frames the body of the request.
    #[inline]
    pub const fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Takes the next event from `input`, which starts after the bytes consumed so far.
    ///
    /// Nothing is consumed until a head is complete, and until then `input` must start with the
    /// same bytes in every call. `head` is cleared when a head begins, so the caller passes an
    /// interim response on before the next call.
    ///
    /// # Errors
    /// The first error is final: every later call returns it.
    #[inline]
    pub fn receive(&mut self, input: &[u8], head: &mut Head) -> Result<Received, Error> {
        let received = match self.receiver.state() {
            ReceiveState::Idle if input.is_empty() => Ok(Received::new(0, Event::Blocked)),
            //= rfc9112#9.2
            // Bytes that an endpoint sends unasked belong to no request.
            ReceiveState::Idle => Err(self.fail(Error::UnexpectedBytes)),
            ReceiveState::BeforeHead | ReceiveState::Head => self.receive_head(input, head),
            ReceiveState::Body => match self.receiver.receive_body(input) {
                Ok(received) => Ok(received),
                Err(error) => Err(self.fail(error)),
            },
            ReceiveState::Done => Ok(Received::new(0, Event::Blocked)),
            ReceiveState::Failed(error) => Err(error),
            ReceiveState::Tunnel => Err(Error::OutOfOrder),
        };
        self.check_invariants();
        received
    }

    /// How many bytes of the response's body may bypass `receive`: see
    /// [`BodyDecoder::raw_left`](crate::BodyDecoder::raw_left).
    #[inline]
    #[must_use]
    pub const fn raw_body_left(&self) -> u64 {
        self.receiver.raw_body_left()
    }

    /// Counts bytes of the response's body that bypassed [`Client::receive`], which still reports
    /// the end of the body.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] for more than [`Client::raw_body_left`].
    pub fn skip_raw_body(&mut self, len: u64) -> Result<(), Error> {
        self.receiver.skip_raw_body(len)
    }

    /// Takes note that the endpoint has closed its side with `unread` bytes not consumed. This
    /// completes a body that lasts until the close, and the next [`Client::receive`] returns its
    /// end. Do not call this for a reset connection, because a reset completes nothing.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the response is not complete.
    pub fn receive_close(&mut self, unread: usize) -> Result<(), Error> {
        self.response.keeps_alive = false;
        let closed = match self.receiver.state() {
            ReceiveState::Body if unread == 0 => self.receiver.close(),
            ReceiveState::Idle
            | ReceiveState::BeforeHead
            | ReceiveState::Head
            | ReceiveState::Body => Err(Error::Truncated),
            ReceiveState::Done | ReceiveState::Tunnel => Ok(()),
            ReceiveState::Failed(error) => Err(error),
        };
        closed.map_err(|error| self.fail(error))
    }

    /// Ends the exchange with `unread` bytes of input left over. The connection can be reused if
    /// the request and the response are complete, no bytes follow, and the endpoint wants to go on.
    //= rfc9112#6.3
    // Bytes after a response belong to no request.
    pub fn finish(&mut self, unread: usize) -> Next {
        if !self.may_reuse(unread) {
            self.fail(Error::OutOfOrder);
            return Next::Close;
        }
        self.sender.reset();
        self.receiver.reset(ReceiveState::Idle);
        self.check_invariants();
        Next::Reuse
    }

    /// Returns whether the connection can take another request, with `unread` bytes left over.
    #[must_use]
    pub fn may_reuse(&self, unread: usize) -> bool {
        unread == 0
            && self.sender.state() == SendState::Done
            && self.is_received()
            && !self.is_tunnel()
            && self.response.keeps_alive
    }

    /// What the head of the last response says about this hop.
    #[inline]
    #[must_use]
    pub const fn response(&self) -> &Response {
        &self.response
    }

    /// The trailers of a response that has ended.
    #[must_use]
    pub const fn trailers(&self) -> &Trailers {
        self.receiver.trailers()
    }

    /// Returns whether the whole response has been received.
    #[inline]
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.receiver.is_received()
    }

    /// Returns whether the whole request has been sent.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.sender.state() == SendState::Done
    }

    /// Returns whether no byte of a response has arrived.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.receiver.state() == ReceiveState::BeforeHead && self.interim == 0
    }

    /// Returns whether the connection is no longer HTTP.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.receiver.is_tunnel()
    }

    #[inline]
    fn receive_head(&mut self, input: &[u8], head: &mut Head) -> Result<Received, Error> {
        if !self.receiver.begin_head(input, head) {
            return Ok(Received::new(0, Event::NeedMore));
        }
        let taken = match parse_response(input, self.receiver.limits(), head) {
            Ok(Parsed::Complete(len)) => self.take_head(head, input).map(|event| (len, event)),
            Ok(Parsed::Partial) => Ok((0, Event::NeedMore)),
            Err(error) => Err(error),
        };
        match taken {
            Ok((consumed, event)) => Ok(Received::new(consumed, event)),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn take_head(&mut self, head: &mut Head, block: &[u8]) -> Result<Event, Error> {
        let body = response_body(head, block, self.method)?;
        let challenges_connection = challenges_connection(head, block);
        let hop = strip_hop_by_hop(head, block, MessageKind::Response)?;
        self.response = Response {
            status: head.status,
            body,
            upgrade: hop.upgrade,
            //= rfc9112#9.3
            // A body that ends with the connection leaves nothing to reuse.
            keeps_alive: hop.keeps_alive(head.version) && body != BodyKind::UntilClose,
            challenges_connection,
        };
        match head.status {
            //= rfc9110#15.2.2
            // A 101 answers an Upgrade field and names a protocol that it offered.
            101 if self.asked_to_switch && hop.upgrade.is_some() => {
                self.receiver.begin_tunnel();
                Ok(Event::Switch)
            }
            101 => Err(Error::UnexpectedSwitch),
            100..=199 => {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err(Error::TooManyInterim);
                }
                self.receiver.expect_head();
                Ok(Event::Interim)
            }
            200..=299 if self.method == Method::Connect => {
                self.receiver.begin_tunnel();
                Ok(Event::Head)
            }
            _ => {
                self.receiver.begin_body(body);
                Ok(Event::Head)
            }
        }
    }

    /// Keeps the error for good.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.receiver.fail(error);
        self.response.keeps_alive = false;
        error
    }

    /// What holds after every step.
    fn check_invariants(&self) {
        let state = self.receiver.state();
        debug_assert!(
            (self.sender.state() == SendState::Idle) == (state == ReceiveState::Idle)
                || matches!(state, ReceiveState::Failed(_)),
            "a response is due exactly while there is a request"
        );
        self.sender.check_invariants();
        debug_assert!(
            !matches!(state, ReceiveState::Failed(_)) || !self.response.keeps_alive,
            "an error ends the connection"
        );
        debug_assert!(
            self.interim <= INTERIM_MAX + 1,
            "interim responses are counted"
        );
    }
}
