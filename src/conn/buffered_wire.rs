//! A connection with its unparsed and unsent bytes.

use std::io;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{BodyKind, Error, Sender};

use super::{Inbox, Outbox, PeerAddress, Wire, WireRx, WireTx};
use crate::core::Core;
use crate::io::{Chunk, Net, Pool, Rx};
use crate::limits::{SPLICE_BYTES_MAX, SPLICE_BYTES_MIN};

/// A connection with the bytes that are received and not parsed, and those that are written and not sent.
pub struct BufferedWire<N: Net> {
    /// The sending half with the written bytes.
    pub out: Outbox<WireTx<N>>,
    /// The received bytes.
    pub(super) inbox: Inbox,
    pub(super) rx: WireRx<N>,
    peer: PeerAddress,
}

impl<N: Net> BufferedWire<N> {
    /// Buffers the bytes of a connection.
    pub(super) fn new(wire: Wire<N>, pool: &Pool) -> Self {
        Self {
            out: Outbox::new(wire.tx, pool.clone()),
            inbox: Inbox::default(),
            rx: wire.rx,
            peer: wire.peer,
        }
    }

    /// Returns the connection and drops the buffered bytes.
    #[inline]
    pub(super) fn into_wire(self) -> Wire<N> {
        Wire {
            rx: self.rx,
            tx: self.out.tx,
            peer: self.peer,
        }
    }

    /// Whether the connection is in the clear.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.rx, WireRx::Plain(_))
    }

    /// Counts one step of work. Once the task has spent its share, returns `Pending` and wakes the task later.
    pub(super) fn poll_step(&mut self, cx: &Context<'_>, core: &Core<N>) -> Poll<()> {
        if core.share.is_spent() {
            self.rx.wake_later(cx);
            return Poll::Pending;
        }
        core.share.spend(1);
        Poll::Ready(())
    }

    /// Receives more bytes into the inbox. `false`: the peer has ended its direction.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Pool,
    ) -> Poll<io::Result<bool>> {
        let received = ready!(self.rx.poll_recv(cx));
        Poll::Ready(received.map(|chunk| match chunk {
            Some(chunk) => {
                self.inbox.add(chunk, pool);
                true
            }
            None => false,
        }))
    }

    /// Receives bytes that are not HTTP, beginning with those in the inbox. `None`: the peer has ended its direction.
    pub fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self.inbox.take() {
            Some(rest) => Poll::Ready(Ok(Some(rest))),
            None => self.rx.poll_recv(cx),
        }
    }

    /// Splices bytes of a long body to another connection, behind the bytes written there: see [`Net::poll_pass`].
    /// Returns how many. At most `left` bytes of the body are left; `sender` frames the body on the other connection.
    ///
    /// 0: splicing is not possible now. The inbox has bytes, the sender adds framing, or a side is encrypted.
    pub(super) fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        net: &N,
        (body, left): (BodyKind, u64),
        (to, sender): (&mut Self, &mut Sender),
    ) -> Poll<Result<usize, Error>> {
        let can_pass = left > 0 && self.inbox.is_empty() && is_long(body) && sender.is_raw();
        if !can_pass || !self.is_plain() || !to.is_plain() {
            return Poll::Ready(Ok(0));
        }
        let (WireRx::Plain(rx), WireTx::Plain(tx)) = (&mut self.rx, to.out.closed()) else {
            return Poll::Ready(Ok(0));
        };
        let at_most = left.min(SPLICE_BYTES_MAX as u64) as usize;
        let passed = ready!(net.poll_pass(cx, rx, tx, at_most));
        to.out.count_passed(passed);
        let framed = match passed {
            0 => Ok(0),
            _ => sender.prefix(passed).map(|_| passed),
        };
        Poll::Ready(framed)
    }
}

/// Whether a body is long enough that splicing saves more than the system calls of a pipe cost.
fn is_long(body: BodyKind) -> bool {
    match body {
        BodyKind::Length(length) => length >= SPLICE_BYTES_MIN,
        BodyKind::UntilClose => true,
        BodyKind::None | BodyKind::Chunked => false,
    }
}
