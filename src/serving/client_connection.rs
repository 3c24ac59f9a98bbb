//! A client's connection as its core's task holds it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::{CoreServer, IdleConnection, connection};
use crate::conn::WireRx;
use crate::core::{poll_guarded, report_panic};
use crate::io::{Chunk, Net, Tx};

/// A client's connection. This is all of its task, and there are very many idle connections: so only what each of them
/// needs is here. What any other state needs is in a box.
pub(super) struct ClientConnection<N: Net> {
    server: Rc<CoreServer<N>>,
    state: State<N>,
}

enum State<N: Net> {
    Idle(IdleConnection<N>),
    Busy(Stage<N>),
    Over,
}

/// A part of a connection's life in which it is not idle. The connection belongs to the stage meanwhile.
pub(super) type Stage<N> = Pin<Box<dyn Future<Output = StageEnd<N>>>>;

/// How a stage ends.
pub(super) enum StageEnd<N: Net> {
    /// The connection is idle: it waits for the first bytes of a request.
    Wait(IdleConnection<N>),
    /// The first bytes of a request have arrived.
    Serve(IdleConnection<N>, Chunk),
    /// The last answer is queued: the connection ends when the client has read that answer.
    Linger(IdleConnection<N>),
    /// The connection has ended, or Weir drops it.
    Over,
}

impl<N: Net> ClientConnection<N> {
    /// A connection that begins idle.
    pub(super) fn idle(server: Rc<CoreServer<N>>, mut idle: IdleConnection<N>) -> Self {
        idle.begin_wait(&server.core);
        Self {
            server,
            state: State::Idle(idle),
        }
    }

    /// A connection that begins with a stage.
    pub(super) fn busy(server: Rc<CoreServer<N>>, stage: Stage<N>) -> Self {
        Self {
            server,
            state: State::Busy(stage),
        }
    }

    /// Serves the connection. Ready once it has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let server = &self.server;
        server.core.share.renew();
        loop {
            self.state = match &mut self.state {
                State::Idle(idle) => {
                    let first = ready!(idle.poll_first_bytes(cx, &server.core));
                    let State::Idle(mut idle) = mem::replace(&mut self.state, State::Over) else {
                        return Poll::Ready(());
                    };
                    match (first, &idle.wire.rx) {
                        (Some(first), _) => State::Busy(connection::begin(server, idle, first)),
                        (None, WireRx::Plain(_)) if idle.wire.tx.has_sent_all() => {
                            return Poll::Ready(());
                        }
                        (None, WireRx::Plain(_)) => {
                            State::Busy(Box::pin(connection::linger(server.clone(), idle)))
                        }
                        (None, WireRx::Tls(_)) => {
                            State::Busy(Box::pin(connection::leave(server.clone(), idle)))
                        }
                    }
                }
                // When a stage ends, its memory is freed before the next stage waits.
                State::Busy(stage) => {
                    match ready!(poll_guarded(&server.core, cx, stage.as_mut())) {
                        Ok(StageEnd::Wait(mut idle)) => {
                            idle.begin_wait(&server.core);
                            State::Idle(idle)
                        }
                        Ok(StageEnd::Serve(idle, first)) => {
                            State::Busy(connection::begin(server, idle, first))
                        }
                        Ok(StageEnd::Linger(idle)) => {
                            State::Busy(Box::pin(connection::linger(server.clone(), idle)))
                        }
                        Ok(StageEnd::Over) => State::Over,
                        Err(panic) => {
                            report_panic(&server.core, &*panic);
                            State::Over
                        }
                    }
                }
                State::Over => return Poll::Ready(()),
            };
        }
    }
}
