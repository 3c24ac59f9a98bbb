//! The two halves of a TLS connection, which keep the promises of [`Rx`] and [`Tx`].

use std::cell::{OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::certificate_identity::CertificateIdentity;
use super::failure::TlsFailure;
use super::parameters;
use super::session::{ReadOutcome, Session};
use crate::io::{Chunk, Rx, Tx};
use crate::limits::{RECORD_OVERHEAD_BYTES_MAX, RECORDS_AT_ONCE_MAX};
use crate::work_queue::{WorkQueue, WorkTurn};

/// The receiving half. It runs the handshake on the way to the first bytes.
pub struct TlsRx<R: Rx, T: Tx> {
    raw: R,
    session: Rc<RefCell<Session<T>>>,
    /// The handshake's state; `None` once the handshake is complete.
    handshake: Option<Box<PendingHandshake>>,
    /// How many bytes `raw` expects.
    expected: usize,
    /// Records decrypted since the task last waited.
    opened: usize,
    /// The client's certificate, once a caller has asked for it.
    pub(super) identity: OnceCell<Option<Rc<CertificateIdentity>>>,
}

/// The state of a connection until its handshake is complete.
struct PendingHandshake {
    queue: Rc<WorkQueue>,
    turn: Option<Rc<WorkTurn>>,
    /// A client sends first, so its handshake starts before bytes arrive.
    speaks_first: bool,
    /// No bytes have arrived, and the first ones may not be TLS.
    is_fresh: bool,
}

/// The sending half.
pub struct TlsTx<T: Tx> {
    session: Rc<RefCell<Session<T>>>,
}

pub(super) fn halves<R: Rx, T: Tx>(
    raw: R,
    session: Session<T>,
    queue: &Rc<WorkQueue>,
    is_server: bool,
) -> (TlsRx<R, T>, TlsTx<T>) {
    let session = Rc::new(RefCell::new(session));
    let handshake = Some(Box::new(PendingHandshake {
        queue: queue.clone(),
        turn: None,
        speaks_first: !is_server,
        is_fresh: is_server && !session.borrow().has_incoming(),
    }));
    (
        TlsRx {
            raw,
            session: session.clone(),
            handshake,
            expected: 0,
            opened: 0,
            identity: OnceCell::new(),
        },
        TlsTx { session },
    )
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// Waits until the handshake is complete.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.session.borrow().is_open {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Receives and discards bytes.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        self.raw.poll_recv(cx)
    }

    /// The reason why the connection has failed, if it has.
    pub fn failure(&self) -> Option<TlsFailure> {
        self.session.borrow().failure
    }

    /// The reason why either side refused to go on; `None` for a mere end of the connection.
    pub fn refusal(&self) -> Option<TlsFailure> {
        let is_end = |failure: &TlsFailure| {
            matches!(
                failure,
                TlsFailure::Truncated | TlsFailure::ClosedInHandshake
            )
        };
        self.failure().filter(|failure| !is_end(failure))
    }

    /// The failure and its cause as text for the log.
    pub fn cause(&self) -> String {
        self.with_session(|session| match (session.failure, &session.cause) {
            (Some(failure), Some(cause)) => format!("{failure}: {cause}"),
            (Some(failure), None) => failure.to_string(),
            (None, _) => String::new(),
        })
    }

    /// Fails the connection for a reason that only the caller knows.
    pub fn fail(&mut self, failure: TlsFailure) {
        let mut session = self.session.borrow_mut();
        if session.failure.is_none() {
            session.fail(failure);
        }
    }

    /// Reads from the session.
    pub(super) fn with_session<U>(&self, read: impl FnOnce(&Session<T>) -> U) -> U {
        read(&self.session.borrow())
    }

    /// The plain connection below, for a peer that turned out not to speak TLS.
    pub fn into_raw(self, tx: TlsTx<T>) -> Option<(R, T)> {
        drop(tx);
        let session = Rc::try_unwrap(self.session).ok()?;
        Some((self.raw, session.into_inner().raw))
    }

    /// Makes one step: handles bytes that have arrived, or receives more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        if let Some(failure) = session.failure {
            if failure != TlsFailure::PlainHttp {
                // The alert must be under way before the caller gives the connection up.
                let _ = ready!(session.poll_flush(cx));
            }
            return Poll::Ready(Err(failure.into()));
        }
        let starts = self
            .handshake
            .as_ref()
            .is_some_and(|handshake| handshake.speaks_first);
        if starts || session.has_incoming() {
            if let Some(handshake) = &mut self.handshake {
                if session.is_step_costly() {
                    ready!(handshake.queue.poll_turn(cx, &mut handshake.turn));
                }
                handshake.speaks_first = false;
            }
            let outcome = session.read();
            let opened = session.is_open && self.handshake.take().is_some();
            if opened && parameters::outlives_client_certificate(&session) {
                session.refuse(TlsFailure::PeerCertificateExpired);
            }
            // The next call reports a failure, once the alert is under way.
            if opened || !matches!(outcome, Ok(ReadOutcome::Blocked | ReadOutcome::Open)) {
                return Poll::Ready(Ok(()));
            }
        }
        let missing = session.missing();
        if missing > self.expected {
            self.expected = missing;
            self.raw.expect(missing);
        }
        let received = match self.raw.poll_recv(cx) {
            Poll::Ready(received) => received,
            Poll::Pending => {
                // No more bytes come with these, so the handshake's messages go out now.
                let _ = session.poll_flush_ahead_of_tickets(cx);
                return Poll::Pending;
            }
        };
        match received {
            Ok(Some(chunk)) => {
                if let Some(handshake) = &mut self.handshake
                    && std::mem::take(&mut handshake.is_fresh)
                    && speaks_http(&chunk)
                {
                    session.failure = Some(TlsFailure::PlainHttp);
                }
                session.add(chunk);
                Poll::Ready(Ok(()))
            }
            Ok(None) => {
                session.failure = Some(if session.is_open {
                    TlsFailure::Truncated
                } else {
                    TlsFailure::ClosedInHandshake
                });
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Whether bytes begin like an HTTP request. A handshake begins with byte 22.
pub(super) fn speaks_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}

impl<R: Rx, T: Tx> Rx for TlsRx<R, T> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        loop {
            {
                let mut session = self.session.borrow_mut();
                if let Some(chunk) = session.take_plain() {
                    return Poll::Ready(Ok(Some(chunk)));
                }
                if session.is_ended {
                    return Poll::Ready(Ok(None));
                }
            }
            // A block of 64 KiB holds about three thousand records of one byte, and decrypting each costs as much as a
            // request.
            if self.opened >= RECORDS_AT_ONCE_MAX {
                self.opened = 0;
                self.raw.wake_later(cx);
                return Poll::Pending;
            }
            let more = self.poll_more(cx);
            self.opened = if more.is_pending() {
                0
            } else {
                self.opened + 1
            };
            ready!(more)?;
        }
    }

    fn is_quiet(&mut self, ask: bool) -> bool {
        let session = self.session.borrow();
        let is_still = !session.has_plain()
            && !session.has_incoming()
            && !session.is_ended
            && session.failure.is_none();
        is_still && self.raw.is_quiet(ask)
    }

    fn expect(&mut self, bytes: usize) {
        self.expected = match bytes {
            0 => 0,
            bytes => bytes + RECORD_OVERHEAD_BYTES_MAX,
        };
        self.raw.expect(self.expected);
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        self.raw.wake_later(cx);
    }
}

impl<T: Tx> TlsTx<T> {
    /// Sends a TLS close and ends the sending direction. Ready once that is sent, or cannot be.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.borrow_mut().poll_finish(cx)
    }
}

impl<T: Tx> Tx for TlsTx<T> {
    fn push(&mut self, chunk: Chunk) {
        self.session.borrow_mut().push(chunk);
    }

    fn queued(&self) -> usize {
        self.session.borrow().queued()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.borrow_mut().poll_send(cx)
    }

    fn hold_for_end(&mut self) {
        self.session.borrow_mut().hold_for_end();
    }

    fn has_sent_all(&mut self) -> bool {
        let mut session = self.session.borrow_mut();
        session.raw.has_sent_all() && session.queued() == 0
    }

    fn rest(&mut self) {
        self.session.borrow_mut().rest();
    }

    /// Only queues the TLS close; [`TlsTx::poll_finish`] sends it.
    fn finish(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.session.borrow_mut().poll_finish(&mut cx);
    }

    fn abort(&mut self) {
        self.session.borrow_mut().raw.abort();
    }
}

impl<T: Tx> Drop for TlsTx<T> {
    fn drop(&mut self) {
        let mut session = self.session.borrow_mut();
        if session.has_pending() && session.failure.is_none() {
            // Bytes that were pushed will never be sent, so the end must not look orderly.
            session.raw.abort();
        }
    }
}
