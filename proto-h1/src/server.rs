//! The machine towards clients: requests in, the framing of responses out.
//!
//! # Call order
//!
//! 1. [`Server::receive`] with what has come until [`Event::Head`]; [`Server::request`] then says
//!    what the head means for this hop. On an error the request can still be answered (step 4),
//!    and the connection closes after it.
//! 2. `receive` for the body, [`Event::Data`] by [`Event::Data`] up to [`Event::End`], at any time
//!    between the other steps. A request without a body ends at once.
//! 3. [`Server::begin_interim`] before each 1xx that is passed on.
//! 4. [`Server::begin_response`], whose [`Framing`] goes to
//!    [`encode_response`](crate::encode_response); or [`Server::switch_protocols`] for a 101.
//! 5. [`Server::sender`] for what goes around each piece of data, and for the end.
//! 6. [`Server::finish`] says whether the connection takes another request. Pipelined requests
//!    wait until then: `receive` answers [`Event::Blocked`].
//!
//! A step out of order is [`Error::OutOfOrder`] and changes nothing.

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

/// What the head of a request means for this hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The version of the client.
    pub version: Version,
    /// How the body is framed.
    pub body: BodyKind,
    /// Says whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// The protocol that the client would switch to, when it may; see
    /// [`HopOptions::upgrade`](crate::HopOptions::upgrade).
    pub upgrade: Option<Span>,
    /// Whether the client wants to leave HTTP for another protocol than that.
    pub leaves_http: bool,
    /// Says whether the client takes trailers.
    pub accepts_trailers: bool,
    /// Says whether the client wants the connection to go on.
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

    /// Takes the next event from `input`, which starts behind what was consumed before.
    ///
    /// Until the head is complete nothing is consumed, and `input` has to start with the same bytes
    /// every time. `head` is cleared when a new message begins.
    ///
    /// # Errors
    /// The first error is final: every later call repeats it.
    #[inline]
    pub fn receive(&mut self, input: &[u8], head: &mut Head) -> Result<Received, Error> {
        let received = match self.receiver.state() {
            ReceiveState::Fresh | ReceiveState::Head => self.receive_head(input, head),
            ReceiveState::Body => self.receive_body(input),
            ReceiveState::Idle | ReceiveState::Done => Ok(Received::new(0, Event::Blocked)),
            ReceiveState::Failed(error) => Err(error),
            ReceiveState::Tunnel => Err(Error::OutOfOrder),
        };
        self.check_invariants();
        received
    }

    /// How many bytes of the request's body may go by unseen: see [`BodyDecoder::raw_body_left`].
    #[inline]
    #[must_use]
    pub const fn raw_body_left(&self) -> u64 {
        self.receiver.raw_body_left()
    }

    /// Counts bytes of the request's body that went by without being shown to [`Server::receive`],
    /// which still says when the body ends.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] beyond [`Server::raw_body_left`].
    pub fn skip_raw_body(&mut self, len: u64) -> Result<(), Error> {
        self.receiver.skip_raw_body(len)?;
        if len > 0 {
            self.request.expects_continue = false;
        }
        Ok(())
    }

    /// Notes that the client has closed its side with `unread` bytes not consumed.
    ///
    /// # Errors
    /// [`Error::Truncated`] when that cuts a request short. Closing between requests, or after a
    /// whole one, is no error: the answer may still be wanted.
    pub fn receive_close(&mut self, unread: usize) -> Result<(), Error> {
        let is_cut = match self.receiver.state() {
            ReceiveState::Idle | ReceiveState::Fresh | ReceiveState::Head => unread > 0,
            ReceiveState::Body => !self.receiver.is_received(),
            ReceiveState::Done | ReceiveState::Failed(_) | ReceiveState::Tunnel => false,
        };
        self.is_closing = true;
        if is_cut {
            return Err(self.fail(Error::Truncated));
        }
        Ok(())
    }

    /// Gives up a head that has begun and is not wanted any more: it came too slowly. It can be answered, once, and
    /// the connection closes after that. Without a byte of a head there is nothing to give up.
    pub fn abandon_head(&mut self) {
        if self.receiver.state() == ReceiveState::Head {
            self.fail(Error::Truncated);
        }
    }

    /// Asks for the connection to end with the response to come: for a drain.
    pub const fn close_after_response(&mut self) {
        self.is_closing = true;
    }

    /// Asks whether an interim answer may be passed on to this client, and notes that it is.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] for 101 and what is no 1xx, and when no answer is due.
    //= rfc9110#15.2
    // HTTP/1.0 has no interim answers: none is sent to such a client.
    pub fn begin_interim(&mut self, status: u16) -> Result<bool, Error> {
        if self.sender.state() != SendState::Owed || !matches!(status, 100 | 102..=199) {
            return Err(Error::OutOfOrder);
        }
        if status == 100 {
            self.request.expects_continue = false;
        }
        Ok(self.request.version == Version::Http11)
    }

    /// Begins the final response with the framing that its source has, and returns the framing
    /// that this client gets.
    ///
    /// [`BodyKind::None`] for a status that has a body means an empty one. What has no length
    /// becomes chunked for HTTP/1.1 and ends by closing for HTTP/1.0.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] when no final response is due, or for a status under 200.
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
            // No transfer coding towards HTTP/1.0.
            BodyKind::Chunked | BodyKind::UntilClose if is_http11 => BodyKind::Chunked,
            BodyKind::Chunked | BodyKind::UntilClose => BodyKind::UntilClose,
        };
        //= rfc9112#9.3
        // Who will not read a whole request has to close; an answer that refuses it says so.
        let is_refusal = status >= 400 && !self.is_received();
        //= rfc9110#9.3.6
        // A client may send bytes for the tunnel before it hears that there is none: they are no request.
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

    /// Answers an upgrade with 101; `protocol` is where the head of that answer names it. What
    /// follows in both directions is not HTTP.
    ///
    /// # Errors
    /// [`Error::UnexpectedSwitch`] when the client did not ask for one.
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

    /// What frames the body of the response that was begun.
    #[inline]
    pub const fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Ends the exchange. Reuse needs a whole request, a whole response, and both sides' will;
    /// anything else closes.
    pub fn finish(&mut self) -> Next {
        let may_reuse = self.sender.state() == SendState::Done
            && self.is_received()
            && self.request.keeps_alive
            && !self.is_closing;
        if !may_reuse {
            self.is_closing = true;
            return Next::Close;
        }
        self.receiver.reset(ReceiveState::Fresh);
        self.sender.reset();
        self.request = Request::default();
        self.check_invariants();
        Next::Reuse
    }

    /// What the head of the request under way means for this hop.
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

    /// Drops what a peer may not send in the trailers of a request: see [`Trailers::enforce`].
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        self.receiver.trailers_mut().enforce(odd_names, matches)
    }

    /// Says whether the whole request has been received.
    #[inline]
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.receiver.is_received()
    }

    /// Says whether no request is under way: not one byte of its head has been seen.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.receiver.state() == ReceiveState::Fresh
    }

    /// Says whether the connection is no longer HTTP.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.receiver.is_tunnel()
    }

    /// Says whether the final response has begun: then no other answer is possible.
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
        self.sender.owe();
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

    /// Keeps the error for good. A request that failed can be answered, once.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.receiver.fail(error);
        self.request.keeps_alive = false;
        self.is_closing = true;
        if self.sender.state() == SendState::Idle {
            self.sender.owe();
        }
        error
    }

    fn tunnel(&mut self) {
        self.receiver.begin_tunnel();
        self.sender.give_up();
        self.request.keeps_alive = false;
    }

    /// What holds after every step.
    fn check_invariants(&self) {
        let state = self.receiver.state();
        let is_before_request = matches!(state, ReceiveState::Fresh | ReceiveState::Head);
        debug_assert!(
            is_before_request == (self.sender.state() == SendState::Idle),
            "the server owes an answer exactly from the end of a head, whole or broken"
        );
        debug_assert!(
            !matches!(state, ReceiveState::Failed(_)) || self.is_closing,
            "no connection outlives an error"
        );
        self.sender.check_invariants();
    }
}

/// Reads what a complete head says about this hop, and takes this hop's fields off it.
fn read_request(head: &mut Head, block: &[u8]) -> Result<Request, Error> {
    let body = request_body(head, block)?;
    let expects_continue = expectation(head, block)?;
    let hop = strip_hop_by_hop(head, block, MessageKind::Request)?;
    // An upgrade with a body would leave its bytes between two protocols.
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
// 100-continue is the one expectation; HTTP/1.0 has none; any other is a 417.
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
