//! The machine towards endpoints: the framing of requests out, responses in.
//!
//! # Call order
//!
//! 1. [`Client::begin_request`], whose [`Framing`] goes to
//!    [`encode_request`](crate::encode_request).
//! 2. [`Client::sender`] for what goes around each piece of data, and for the end. An answer may come
//!    before that.
//! 3. [`Client::receive`] with what has come: any number of [`Event::Interim`], then
//!    [`Event::Head`] (or [`Event::Switch`], after which nothing is HTTP), the data, [`Event::End`].
//! 4. [`Client::receive_close`] when the endpoint has closed; that may be how a body ends.
//! 5. [`Client::finish`] says whether the connection takes another request.
//!
//! A step out of order is [`Error::OutOfOrder`] and changes nothing.

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

/// What the head of a response means for this hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// How the body is framed.
    pub body: BodyKind,
    /// Where the head of a 101 names the protocol.
    pub upgrade: Option<Span>,
    /// Says whether the endpoint wants the connection to go on.
    pub keeps_alive: bool,
    /// Says whether the endpoint asks for authentication that holds for the connection, or goes on
    /// with it: what follows on the connection is for the same client only.
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

    /// Begins a request and returns the framing to encode it with.
    ///
    /// `upgrade` is where the head names the protocol it wants to switch to, `accepts_trailers` says
    /// that trailers are welcome. A body without a length is sent in chunks.
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

    /// What frames the body of the request that was begun.
    #[inline]
    pub const fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Takes the next event from `input`, which starts behind what was consumed before.
    ///
    /// Until a head is complete nothing is consumed, and `input` has to start with the same bytes
    /// every time. `head` is cleared when a new head begins, so that an interim answer is to be
    /// passed on before the next call.
    ///
    /// # Errors
    /// The first error is final: every later call repeats it.
    #[inline]
    pub fn receive(&mut self, input: &[u8], head: &mut Head) -> Result<Received, Error> {
        let received = match self.receiver.state() {
            ReceiveState::Idle if input.is_empty() => Ok(Received::new(0, Event::Blocked)),
            //= rfc9112#9.2
            // What an endpoint sends without being asked belongs to no request.
            ReceiveState::Idle => Err(self.fail(Error::UnexpectedBytes)),
            ReceiveState::Fresh | ReceiveState::Head => self.receive_head(input, head),
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

    /// How many bytes of the answer's body may go by unseen: see [`BodyDecoder::raw_body_left`].
    #[inline]
    #[must_use]
    pub const fn raw_body_left(&self) -> u64 {
        self.receiver.raw_body_left()
    }

    /// Counts bytes of the answer's body that went by without being shown to [`Client::receive`],
    /// which still says when the body ends.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] beyond [`Client::raw_body_left`].
    pub fn skip_raw_body(&mut self, len: u64) -> Result<(), Error> {
        self.receiver.skip_raw_body(len)
    }

    /// Notes that the endpoint has closed its side with `unread` bytes not consumed. A body that
    /// lasts until then is complete: the next [`Client::receive`] says so. A connection that was
    /// reset instead never completes anything: do not call this for one.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the answer is not complete.
    pub fn receive_close(&mut self, unread: usize) -> Result<(), Error> {
        self.response.keeps_alive = false;
        let closed = match self.receiver.state() {
            ReceiveState::Body if unread == 0 => self.receiver.close(),
            ReceiveState::Idle | ReceiveState::Fresh | ReceiveState::Head | ReceiveState::Body => {
                Err(Error::Truncated)
            }
            ReceiveState::Done | ReceiveState::Tunnel => Ok(()),
            ReceiveState::Failed(error) => Err(error),
        };
        closed.map_err(|error| self.fail(error))
    }

    /// Ends the exchange with `unread` bytes of input left over. Reuse needs a whole request, a
    /// whole answer, nothing after it, and the endpoint's will.
    //= rfc9112#6.3
    // Bytes after an answer are no answer to anything.
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

    /// Says whether the connection could take another request, with `unread` bytes left over.
    #[must_use]
    pub fn may_reuse(&self, unread: usize) -> bool {
        unread == 0
            && self.sender.state() == SendState::Done
            && self.is_received()
            && !self.is_tunnel()
            && self.response.keeps_alive
    }

    /// What the head of the last answer means for this hop.
    #[inline]
    #[must_use]
    pub const fn response(&self) -> &Response {
        &self.response
    }

    /// The trailers of an answer that has ended.
    #[must_use]
    pub const fn trailers(&self) -> &Trailers {
        self.receiver.trailers()
    }

    /// Says whether the whole answer has been received.
    #[inline]
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.receiver.is_received()
    }

    /// Says whether the whole request has been sent.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.sender.state() == SendState::Done
    }

    /// Says whether not one byte of an answer has been seen.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.receiver.state() == ReceiveState::Fresh && self.interim == 0
    }

    /// Says whether the connection is no longer HTTP.
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
            // A body that ends by closing leaves nothing to go on with.
            keeps_alive: hop.keeps_alive(head.version) && body != BodyKind::UntilClose,
            challenges_connection,
        };
        match head.status {
            //= rfc9110#15.2.2
            // A switch is an answer to Upgrade, to a protocol that was offered.
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
            "an answer is due exactly while there is a request"
        );
        self.sender.check_invariants();
        debug_assert!(
            !matches!(state, ReceiveState::Failed(_)) || !self.response.keeps_alive,
            "no connection outlives an error"
        );
        debug_assert!(
            self.interim <= INTERIM_MAX + 1,
            "interim answers are counted"
        );
    }
}
