//! The state machine of a connection to a client: receives requests, frames responses.
//!
//! # Call order
//!
//! 1. [`Server::receive`] with the bytes that have arrived, until [`Event::Head`].
//!    [`Server::request`] then holds what the head says about this hop. After an error, the caller
//!    may still send a response (step 4); the connection closes after it.
//! 2. [`Server::receive`] for the body: [`Event::Data`] any number of times, then [`Event::End`].
//!    These calls may come at any time between the other steps. A request without a body ends at
//!    once.
//! 3. [`Server::begin_interim`] before each 1xx to pass on.
//! 4. [`Server::begin_response`], whose [`Framing`] goes to
//!    [`encode_response`](crate::encode_response); or [`Server::switch_protocols`] for a 101.
//! 5. [`Server::sender`] for the bytes around each piece of data, and for the end.
//! 6. [`Server::finish`], which returns whether the connection takes another request. Until then,
//!    `receive` returns [`Event::Blocked`] for pipelined requests.
//!
//! A step out of order fails with [`Error::OutOfOrder`] and changes nothing.

use crate::encode::{ConnectionOption, Framing};
use crate::error::Error;
use crate::event::{Event, Next, Received};
use crate::field::FieldId;
use crate::framing::{BodyKind, MessageKind, has_no_body, request_body, strip_hop_by_hop};
use crate::guard::OddNamePolicy;
use crate::head::{Head, Method, Span, Version};
use crate::limits::Limits;
use crate::parse::{Parsed, parse_request};
use crate::receiver::{ReceiveState, Receiver};
use crate::sender::{SendState, Sender};
use crate::trailers::Trailers;

/// One connection to a client. See the [module](self) for the order of calls.
#[derive(Clone, Debug)]
pub struct Server {
    receiver: Receiver,
    sender: Sender,
    request: Request,
    is_closing: bool,
}

/// What the head of a request says about this hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The version that the client speaks.
    pub version: Version,
    /// How the body is framed.
    pub body: BodyKind,
    /// Whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// The protocol to switch to, if the client may: see
    /// [`HopOptions::upgrade`](crate::HopOptions::upgrade).
    pub upgrade: Option<Span>,
    /// Whether the client wants to leave HTTP for a protocol that Weir does not pass on.
    pub leaves_http: bool,
    /// Whether the client accepts trailers.
    pub accepts_trailers: bool,
    /// Whether the client wants to reuse the connection.
    pub keeps_alive: bool,
}

impl Server {
    /// Makes the machine for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            receiver: Receiver::of_server(limits),
            sender: Sender::new(),
            request: Request::default(),
            is_closing: false,
        }
    }

    /// Takes the next event from `input`, which starts after the bytes consumed so far.
    ///
    /// Nothing is consumed until the head is complete, and until then `input` must start with the
    /// same bytes in every call. `head` is cleared when a message begins.
    ///
    /// # Errors
    /// The first error is final: every later call returns it.
    #[inline]
    pub fn receive(&mut self, input: &[u8], head: &mut Head) -> Result<Received, Error> {
        let received = match self.receiver.state() {
            ReceiveState::BeforeHead | ReceiveState::Head => self.receive_head(input, head),
            ReceiveState::Body => self.receive_body(input),
            ReceiveState::Idle | ReceiveState::Done => Ok(Received::new(0, Event::Blocked)),
            ReceiveState::Failed(error) => Err(error),
            ReceiveState::Tunnel => Err(Error::OutOfOrder),
        };
        self.check_invariants();
        received
    }

    /// How many bytes of the request's body may bypass `receive`: see
    /// [`BodyDecoder::raw_left`](crate::BodyDecoder::raw_left).
    #[inline]
    #[must_use]
    pub const fn raw_body_left(&self) -> u64 {
        self.receiver.raw_body_left()
    }

    /// Counts bytes of the request's body that bypassed [`Server::receive`], which still reports
    /// the end of the body.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] for more than [`Server::raw_body_left`].
    pub fn skip_raw_body(&mut self, len: u64) -> Result<(), Error> {
        self.receiver.skip_raw_body(len)?;
        if len > 0 {
            self.request.expects_continue = false;
        }
        Ok(())
    }

    /// Takes note that the client has closed its side with `unread` bytes not consumed.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the close cuts off a request. A close between requests or after a
    /// whole request is no error, because the client may still read the response.
    pub fn receive_close(&mut self, unread: usize) -> Result<(), Error> {
        let is_cut = match self.receiver.state() {
            ReceiveState::Idle | ReceiveState::BeforeHead | ReceiveState::Head => unread > 0,
            ReceiveState::Body => !self.receiver.is_received(),
            ReceiveState::Done | ReceiveState::Failed(_) | ReceiveState::Tunnel => false,
        };
        self.is_closing = true;
        if is_cut {
            return Err(self.fail(Error::Truncated));
        }
        Ok(())
    }

    /// Gives up a head that has begun but arrives too slowly. The caller may send one response, and
    /// the connection closes after it. Does nothing if no byte of a head has arrived.
    pub fn abandon_head(&mut self) {
        if self.receiver.state() == ReceiveState::Head {
            self.fail(Error::Truncated);
        }
    }

    /// Ends the connection after the next response, for a drain.
    pub const fn close_after_response(&mut self) {
        self.is_closing = true;
    }

    /// Returns whether this client takes interim responses, and records that this one is passed on.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] for 101, for a status outside 1xx, and if no response is due.
    //= rfc9110#15.2
    // HTTP/1.0 has no interim responses, so such a client gets none.
    pub fn begin_interim(&mut self, status: u16) -> Result<bool, Error> {
        if self.sender.state() != SendState::Owed || !matches!(status, 100 | 102..=199) {
            return Err(Error::OutOfOrder);
        }
        if status == 100 {
            self.request.expects_continue = false;
        }
        Ok(self.request.version == Version::Http11)
    }

    /// Begins the final response. `body` is the framing of its source; the result is the framing
    /// for this client.
    ///
    /// [`BodyKind::None`] for a status that has a body means an empty one. A body of unknown length
    /// is chunked for HTTP/1.1 and lasts until the connection closes for HTTP/1.0.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if no final response is due, or for a status under 200.
    pub fn begin_response(&mut self, status: u16, body: BodyKind) -> Result<Framing, Error> {
        if self.sender.state() != SendState::Owed || status < 200 {
            return Err(Error::OutOfOrder);
        }
        let is_http11 = self.request.version == Version::Http11;
        let body = match body {
            _ if has_no_body(status, self.request.method) => BodyKind::None,
            BodyKind::None => BodyKind::Length(0),
            BodyKind::Length(length) => BodyKind::Length(length),
            //= rfc9112#6.1
            // HTTP/1.0 has no transfer codings.
            BodyKind::Chunked | BodyKind::UntilClose if is_http11 => BodyKind::Chunked,
            BodyKind::Chunked | BodyKind::UntilClose => BodyKind::UntilClose,
        };
        //= rfc9112#9.3
        // A server that does not read the whole request has to close, and the refusal says so.
        let is_refusal = status >= 400 && !self.is_received();
        //= rfc9110#9.3.6
        // A client may send tunnel bytes before it learns of the refusal. They are not a request.
        let is_refused_tunnel =
            self.request.method == Method::Connect && !matches!(status, 200..=299);
        if self.is_closing || is_refusal || is_refused_tunnel || body == BodyKind::UntilClose {
            self.request.keeps_alive = false;
        }
        if self.request.method == Method::Connect && matches!(status, 200..=299) {
            self.tunnel();
            return Ok(Framing::default());
        }
        self.sender.begin(body);
        self.check_invariants();
        let connection = match (self.request.keeps_alive, is_http11) {
            (true, true) => ConnectionOption::Implied,
            (true, false) => ConnectionOption::KeepAlive,
            (false, _) => ConnectionOption::Close,
        };
        Ok(Framing {
            body,
            connection,
            accepts_trailers: false,
        })
    }

    /// Answers an upgrade with 101. `protocol` is the span of the protocol's name in the head of
    /// that response. The bytes that follow in both directions are not HTTP.
    ///
    /// # Errors
    /// [`Error::UnexpectedSwitch`] if the client did not ask for an upgrade.
    //= rfc9110#15.2.2
    // 101 answers an Upgrade field and nothing else.
    pub fn switch_protocols(&mut self, protocol: Span) -> Result<Framing, Error> {
        if self.sender.state() != SendState::Owed
            || self.request.upgrade.is_none()
            || !self.is_received()
        {
            return Err(Error::UnexpectedSwitch);
        }
        self.tunnel();
        Ok(Framing {
            connection: ConnectionOption::Upgrade(protocol),
            ..Framing::default()
        })
    }

    /// Frames the body of the response.
    #[inline]
    pub const fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Ends the exchange. The connection can be reused if the request and the response are complete
    /// and both sides want to go on; otherwise it closes.
    pub fn finish(&mut self) -> Next {
        let may_reuse = self.sender.state() == SendState::Done
            && self.is_received()
            && self.request.keeps_alive
            && !self.is_closing;
        if !may_reuse {
            self.is_closing = true;
            return Next::Close;
        }
        self.receiver.reset(ReceiveState::BeforeHead);
        self.sender.reset();
        self.request = Request::default();
        self.check_invariants();
        Next::Reuse
    }

    /// What the head of the current request says about this hop.
    #[inline]
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// The trailers of a request that has ended.
    #[must_use]
    pub const fn trailers(&self) -> &Trailers {
        self.receiver.trailers()
    }

    /// Removes trailers that a peer may not send in a request: see [`Trailers::enforce`].
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        self.receiver.trailers_mut().enforce(odd_names, matches)
    }

    /// Returns whether the whole request has been received.
    #[inline]
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.receiver.is_received()
    }

    /// Returns whether no byte of the next request has arrived.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.receiver.state() == ReceiveState::BeforeHead
    }

    /// Returns whether the connection is no longer HTTP.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.receiver.is_tunnel()
    }

    /// Returns whether the final response has begun, after which no other response is possible.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        matches!(self.sender.state(), SendState::Body | SendState::Done)
    }

    #[inline]
    fn receive_head(&mut self, input: &[u8], head: &mut Head) -> Result<Received, Error> {
        if !self.receiver.begin_head(input, head) {
            return Ok(Received::new(0, Event::NeedMore));
        }
        let parsed = match parse_request(input, self.receiver.limits(), head) {
            Ok(parsed) => parsed,
            Err(error) => return Err(self.fail(error)),
        };
        let Parsed::Complete(len) = parsed else {
            return Ok(Received::new(0, Event::NeedMore));
        };
        match read_request(head, input) {
            Ok(request) => self.request = request,
            Err(error) => {
                self.request.method = head.method;
                self.request.version = head.version;
                return Err(self.fail(error));
            }
        }
        self.receiver.begin_body(self.request.body);
        self.sender.owe_response();
        Ok(Received::new(len, Event::Head))
    }

    #[inline]
    fn receive_body(&mut self, input: &[u8]) -> Result<Received, Error> {
        match self.receiver.receive_body(input) {
            Ok(received) => {
                if received.consumed > 0 {
                    self.request.expects_continue = false;
                }
                Ok(received)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Keeps the error for good. The caller may send one response to a failed request.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.receiver.fail(error);
        self.request.keeps_alive = false;
        self.is_closing = true;
        if self.sender.state() == SendState::Idle {
            self.sender.owe_response();
        }
        error
    }

    fn tunnel(&mut self) {
        self.receiver.begin_tunnel();
        self.sender.abandon();
        self.request.keeps_alive = false;
    }

    /// What holds after every step.
    fn check_invariants(&self) {
        let state = self.receiver.state();
        let is_before_request = matches!(state, ReceiveState::BeforeHead | ReceiveState::Head);
        debug_assert!(
            is_before_request == (self.sender.state() == SendState::Idle),
            "a response is owed exactly from the end of a head on, even of a malformed one"
        );
        debug_assert!(
            !matches!(state, ReceiveState::Failed(_)) || self.is_closing,
            "an error ends the connection"
        );
        self.sender.check_invariants();
    }
}

/// Reads what a complete head says about this hop and removes the hop-by-hop fields.
fn read_request(head: &mut Head, block: &[u8]) -> Result<Request, Error> {
    let body = request_body(head, block)?;
    let expects_continue = expectation(head, block)?;
    let hop = strip_hop_by_hop(head, block, MessageKind::Request)?;
    // After an upgrade, a body would lie between two protocols.
    let may_upgrade = head.method == Method::Get && body == BodyKind::None;
    Ok(Request {
        method: head.method,
        version: head.version,
        body,
        expects_continue: expects_continue && body != BodyKind::None,
        upgrade: hop.upgrade.filter(|_| may_upgrade),
        leaves_http: hop.leaves_http,
        accepts_trailers: hop.accepts_trailers,
        keeps_alive: hop.keeps_alive(head.version),
    })
}

//= rfc9110#10.1.1
// 100-continue is the only expectation; any other gets a 417. HTTP/1.0 has none.
#[inline]
fn expectation(head: &Head, block: &[u8]) -> Result<bool, Error> {
    if !head.may_have(FieldId::Expect) || head.version == Version::Http10 {
        return Ok(false);
    }
    let mut expectations = head.elements(FieldId::Expect, block);
    if expectations.all(|expectation| expectation.eq_ignore_ascii_case(b"100-continue")) {
        Ok(true)
    } else {
        Err(Error::BadExpectation)
    }
}
