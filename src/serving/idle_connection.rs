//! A client's connection between requests, in as little memory as possible.

use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::conn::{ClientBindings, Inbox, Wire, WireRx, proxy_protocol};
use crate::core::{Admission, Core, Timer};
use crate::fault::Reason;
use crate::io::{Chunk, Instant, Net, Rx};
use crate::limits::{
    DRAIN_FIRST_BYTES_MS, IDLE_CONNECTION_BYTES, IDLE_TLS_BYTES, LINGER_BYTES_MAX, LINGER_MS,
};
use crate::tls::TlsFailure;

/// A connection that waits for a request.
pub struct IdleConnection<N: Net> {
    /// The connection itself.
    pub wire: Wire<N>,
    /// Its deadline.
    pub timer: Timer,
    /// Its place under the limits of the listener and the client.
    pub admission: Admission<N>,
    /// Whether no request has arrived yet. The deadline for the first head counts from the accept.
    pub is_new: bool,
    /// Whether a drain has shortened the present wait.
    pub is_shortened: bool,
    /// The endpoint connections that serve this client's connection alone.
    pub bindings: Option<Rc<ClientBindings>>,
}

impl<N: Net> IdleConnection<N> {
    /// Begins to wait for the first bytes of a request.
    pub fn begin_wait(&mut self, core: &Core<N>) {
        let timeouts = self.admission.listener.plan.borrow().timeouts;
        let limit = if self.is_new {
            timeouts.head
        } else {
            timeouts.idle
        };
        self.wait_until(core.net.now() + limit);
    }

    fn wait_until(&mut self, deadline: Instant) {
        self.timer.set(deadline);
        self.is_shortened = false;
    }

    /// Receives more of the first bytes until the given deadline. `None` as for [`IdleConnection::poll_first_bytes`].
    pub async fn receive_more(&mut self, core: &Core<N>, deadline: Instant) -> Option<Chunk> {
        self.wait_until(deadline);
        poll_fn(|cx| self.poll_first_bytes(cx, core)).await
    }

    /// Receives the first bytes of a request. `None`: the connection has ended or broken, was idle for too long, or
    /// must end.
    pub fn poll_first_bytes(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Option<Chunk>> {
        self.timer.watch(cx);
        match self.wire.rx.poll_recv(cx) {
            Poll::Ready(Ok(Some(chunk))) => return Poll::Ready(Some(chunk)),
            Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        if core.is_memory_short() {
            // An idle connection holds little, but there may be very many. And if an active connection holds as
            // little, the idle one should end first.
            self.timer.report_held(match (&self.wire.rx, self.is_new) {
                (WireRx::Tls(_), false) => IDLE_CONNECTION_BYTES + IDLE_TLS_BYTES,
                _ => IDLE_CONNECTION_BYTES,
            });
            if self.timer.take_shed_request() {
                return Poll::Ready(None);
            }
        }
        match self.is_wait_over(core.net.now()) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    /// Waits until the TLS handshake is complete. False: it has failed, was too slow, or the connection must end.
    pub async fn open_tls(&mut self, core: &Rc<Core<N>>) -> bool {
        let deadline = core.net.now() + self.admission.listener.plan.borrow().timeouts.head;
        self.wait_until(deadline);
        poll_fn(|cx| {
            self.timer.watch(cx);
            if let WireRx::Tls(rx) = &mut self.wire.rx
                && let Poll::Ready(opened) = rx.poll_open(cx)
            {
                return Poll::Ready(opened.is_ok());
            }
            match self.is_wait_over(core.net.now()) {
                true => Poll::Ready(false),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Counts the handshake once, and logs why it failed, if it did.
    pub fn report_handshake(&mut self, core: &Core<N>) -> Option<TlsFailure> {
        let WireRx::Tls(rx) = &mut self.wire.rx else {
            return None;
        };
        if !self.is_new {
            return None;
        }
        self.is_new = false;
        let listener = self.admission.listener.id.get();
        if let Some(agreed) = rx.tls_parameters() {
            core.obs.borrow().tls_opened(listener, &agreed);
            return None;
        }
        let failure = rx.failure().unwrap_or(TlsFailure::Timeout);
        rx.fail(failure);
        core.obs.borrow().tls_failed(listener, failure);
        core.log_client_handshake(|| {
            let name = self.admission.listener.plan.borrow().name.clone();
            let peer = self
                .wire
                .peer
                .get()
                .map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
            format!("TLS with {peer} on {name} failed: {}", rx.cause())
        });
        Some(failure)
    }

    /// Receives the header of the PROXY protocol. From then on the client that it names is the connection's client.
    /// Returns the bytes that arrived behind the header.
    pub async fn receive_proxy_header(&mut self, core: &Rc<Core<N>>) -> Result<Chunk, Reason> {
        let deadline = core.net.now() + self.admission.listener.plan.borrow().timeouts.head;
        self.wait_until(deadline);
        let mut inbox = Inbox::default();
        let header = poll_fn(|cx| {
            self.timer.watch(cx);
            while let Poll::Ready(received) = self.wire.rx.poll_recv(cx) {
                let Ok(Some(chunk)) = received else {
                    return Poll::Ready(Err(Reason::ClientClosed));
                };
                inbox.add(chunk, core.net.pool());
                match proxy_protocol::read(inbox.bytes()) {
                    Ok(None) => {}
                    Ok(Some(header)) => return Poll::Ready(Ok(header)),
                    Err(_) => return Poll::Ready(Err(Reason::NotIntroduced)),
                }
            }
            if self.is_wait_over(core.net.now()) {
                Poll::Ready(Err(Reason::HeadTimeout))
            } else {
                Poll::Pending
            }
        });
        let header = header.await?;
        inbox.consume(header.bytes);
        if let Some(source) = header.source {
            self.admission.name_client(source.ip())?;
            self.wire.peer = Some(source).into();
        }
        Ok(inbox.take().unwrap_or_default())
    }

    /// Ends Weir's direction, then discards what the client sends until the client has closed its own direction. At
    /// most [`LINGER_BYTES_MAX`] bytes and [`LINGER_MS`].
    pub async fn linger(&mut self, core: &Rc<Core<N>>) {
        let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
        self.timer.set(deadline);
        let (mut forgotten, mut ended) = (0, false);
        poll_fn(|cx| {
            self.timer.watch(cx);
            ended = ended || self.wire.tx.poll_finish(cx).is_ready();
            while ended && let Poll::Ready(received) = self.wire.rx.poll_discard(cx) {
                match received {
                    Ok(Some(chunk)) if forgotten < LINGER_BYTES_MAX => forgotten += chunk.len(),
                    _ => return Poll::Ready(()),
                }
            }
            if core.is_stopping() || core.net.now() >= deadline {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
    /// Whether the wait is over. A connection that must end does so at once, except that a new one gets
    /// [`DRAIN_FIRST_BYTES_MS`] for its first request, which would otherwise be answered by a reset.
    fn is_wait_over(&mut self, now: Instant) -> bool {
        if self.admission.is_unwanted() {
            if !self.is_new {
                return true;
            }
            if !mem::replace(&mut self.is_shortened, true) {
                let first = now + Duration::from_millis(DRAIN_FIRST_BYTES_MS);
                self.timer.set(self.timer.deadline().min(first));
            }
        }
        now >= self.timer.deadline()
    }
}
