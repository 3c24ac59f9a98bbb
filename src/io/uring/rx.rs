//! The receiving half and its pump, which receives on demand.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use monoio::io::AsyncReadRent;

use super::super::Rx;
use super::super::chunk::Chunk;
use super::super::os;
use super::super::receive_size::ReceiveSize;
use super::pump_signal::PumpSignal;
use super::{Pipe, Pump, UringSocket, UringState, shut};
use crate::limits::ARMED_RECEIVES_MAX;

/// The receiving half of a socket.
pub struct UringRx {
    pub(super) socket: Rc<UringSocket>,
    state: Rc<UringState>,
    pub(super) pump: Option<Pump>,
    signal: Rc<PumpSignal<RxState>>,
    awaited: ReceiveStep,
    size: ReceiveSize,
    ended: Option<io::ErrorKind>,
}

/// The operation in flight.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ReceiveStep {
    #[default]
    Nothing,
    /// A receive into a block of this size.
    Bytes(ReceiveSize),
    /// A wait for something to receive.
    Readiness,
}

enum StepResult {
    Bytes(io::Result<Chunk>),
    Readiness,
}

#[derive(Default)]
struct RxState {
    /// The operation that the pump must start next.
    wanted: Cell<ReceiveStep>,
    /// The last receive took everything that was there.
    drained: Cell<bool>,
    /// The last operation received bytes and left room in its block.
    emptied: Cell<bool>,
    done: Cell<Option<StepResult>>,
}

impl UringRx {
    pub(super) fn new(socket: Rc<UringSocket>, state: Rc<UringState>) -> Self {
        let signal = PumpSignal::new(RxState::default());
        Self {
            socket,
            state,
            pump: None,
            signal,
            awaited: ReceiveStep::Nothing,
            size: ReceiveSize::default(),
            ended: None,
        }
    }

    /// Whether bytes may pass through a pipe: no receive is in flight that would take them.
    pub(super) fn may_pass(&self) -> bool {
        let receives = matches!(self.awaited, ReceiveStep::Bytes(_));
        !receives && self.ended.is_none() && self.socket.set_nonblocking()
    }

    /// Fills a pipe with received bytes. Returns 0 on an end or an error, which the next receive reports. Between fills
    /// it waits through the ring, so that a fast peer does not keep other connections waiting.
    pub(super) fn poll_fill(
        &mut self,
        cx: &Context<'_>,
        pipe: &mut Pipe,
        at_most: usize,
    ) -> Poll<usize> {
        loop {
            if self.awaited == ReceiveStep::Readiness || self.signal.drained.get() {
                ready!(self.poll_pump(cx, ReceiveStep::Readiness));
                self.signal.drained.set(false);
            }
            match pipe.fill(self.socket.fd(), at_most) {
                Ok(n) => {
                    self.signal.drained.set(true);
                    self.signal.emptied.set(false);
                    // The next bytes on this connection are a head.
                    self.size = ReceiveSize::default();
                    return Poll::Ready(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.signal.drained.set(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = Some(error.kind());
                    return Poll::Ready(0);
                }
            }
        }
    }

    /// Polls the operation in flight, or starts `next` if there is none.
    fn poll_pump(&mut self, cx: &Context<'_>, next: ReceiveStep) -> Poll<StepResult> {
        if !self.signal.is_due(cx) && self.awaited != ReceiveStep::Nothing {
            return Poll::Pending;
        }
        if self.awaited == ReceiveStep::Nothing {
            self.signal.wanted.set(next);
            self.awaited = next;
        }
        let pump = self.pump.get_or_insert_with(|| {
            Box::pin(receive(
                self.socket.clone(),
                self.state.clone(),
                self.signal.clone(),
            ))
        });
        let news = self.signal.listen();
        let _ = pump.as_mut().poll(&mut Context::from_waker(&news));
        let Some(done) = self.signal.done.take() else {
            return Poll::Pending;
        };
        self.awaited = ReceiveStep::Nothing;
        Poll::Ready(done)
    }
}

impl Rx for UringRx {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if let Some(kind) = self.ended {
            return Poll::Ready(if kind == io::ErrorKind::UnexpectedEof {
                Ok(None)
            } else {
                Err(kind.into())
            });
        }
        let received = loop {
            let next = ReceiveStep::Bytes(self.size);
            if let StepResult::Bytes(received) = ready!(self.poll_pump(cx, next)) {
                break received;
            }
        };
        Poll::Ready(match received {
            Ok(chunk) if chunk.is_empty() && self.socket.is_broken() => {
                self.ended = Some(io::ErrorKind::ConnectionReset);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Ok(chunk) if chunk.is_empty() => {
                self.ended = Some(io::ErrorKind::UnexpectedEof);
                Ok(None)
            }
            Ok(chunk) => {
                self.size.adapt(chunk.len());
                Ok(Some(chunk))
            }
            Err(error) => {
                self.ended = Some(error.kind());
                Err(error)
            }
        })
    }

    fn is_quiet(&mut self, ask: bool) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if self.signal.emptied.get() && !ask {
            return true;
        }
        os::is_quiet(self.socket.fd())
    }

    fn expect(&mut self, bytes: usize) {
        self.size = ReceiveSize::for_bytes(bytes);
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        UringState::wake_later(&self.state, cx);
    }
}

impl Drop for UringRx {
    fn drop(&mut self) {
        if self.awaited != ReceiveStep::Nothing && self.ended.is_none() {
            // Ends the operation in flight even if its cancellation is lost. The descriptor closes after it.
            let is_reset = self.socket.aborting.get();
            let how = if is_reset {
                libc::SHUT_RD
            } else {
                libc::SHUT_RDWR
            };
            shut(self.socket.fd(), how);
        }
    }
}

/// The receiving pump: runs one receive, or one wait for readiness, on demand.
async fn receive(socket: Rc<UringSocket>, state: Rc<UringState>, signal: Rc<PumpSignal<RxState>>) {
    loop {
        let wanted = poll_fn(|_| match signal.wanted.take() {
            ReceiveStep::Nothing => Poll::Pending,
            wanted => Poll::Ready(wanted),
        });
        let ReceiveStep::Bytes(size) = wanted.await else {
            // An error here reappears in the operation that follows.
            let _ = socket.tcp().readable(true).await;
            state.clock.tick();
            signal.done.set(Some(StepResult::Readiness));
            continue;
        };
        let bytes = size.bytes();
        // A large block is taken only once there is something to put in it. The block used last is then still in the
        // cache, which is worth more than the extra receive.
        let is_bulk = size.is_bulk() && signal.drained.get();
        let armed = if is_bulk {
            None
        } else {
            ArmedPermit::take(&state)
        };
        if armed.is_none() {
            // An error here reappears in the receive.
            let _ = socket.tcp().readable(true).await;
        }
        let (n, filling) = socket.tcp_mut().read(state.pool.filling(bytes)).await;
        drop(armed);
        state.clock.tick();
        let emptied = n.as_ref().is_ok_and(|&n| n < bytes);
        signal.drained.set(emptied);
        signal.emptied.set(emptied);
        signal
            .done
            .set(Some(StepResult::Bytes(n.map(|_| filling.freeze()))));
    }
}

/// The right to hold a block while a receive waits.
struct ArmedPermit {
    state: Rc<UringState>,
}

impl ArmedPermit {
    fn take(state: &Rc<UringState>) -> Option<Self> {
        let armed = state.armed.get();
        (armed < ARMED_RECEIVES_MAX).then(|| {
            state.armed.set(armed + 1);
            Self {
                state: state.clone(),
            }
        })
    }
}

impl Drop for ArmedPermit {
    fn drop(&mut self) {
        self.state.armed.set(self.state.armed.get() - 1);
    }
}
