//! Sockets for datagrams.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use monoio::net::TcpStream;

use super::super::datagram::{self, DatagramPath, Datagrams, SentDatagrams};
use super::super::datagram_send;
use super::super::datagram_train::DatagramTrain;
use super::super::os::SharedSocket;
use super::UringState;

/// A socket for datagrams on its core. monoio only reports when it is readable.
pub struct UringDatagrams {
    /// monoio's TCP type issues operations by descriptor alone.
    socket: Rc<TcpStream>,
    state: Rc<UringState>,
    at_once: usize,
    waiting: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    /// The last call has taken all datagrams.
    is_drained: Cell<bool>,
}

impl UringDatagrams {
    /// Wraps a non-blocking socket. A poll receives at most `at_once` datagrams.
    pub(super) fn new(state: &Rc<UringState>, fd: OwnedFd, at_once: usize) -> io::Result<Self> {
        Ok(Self {
            socket: Rc::new(TcpStream::from_std(StdTcpStream::from(fd))?),
            state: state.clone(),
            at_once,
            waiting: RefCell::default(),
            is_drained: Cell::new(false),
        })
    }
}

impl Datagrams for UringDatagrams {
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(DatagramTrain<'_>, DatagramPath),
    ) -> Poll<io::Result<()>> {
        loop {
            if self.is_drained.get() {
                let mut waiting = self.waiting.borrow_mut();
                let wait = waiting.get_or_insert_with(|| {
                    let socket = self.socket.clone();
                    Box::pin(async move {
                        // An error shows in the next receive.
                        let _ = socket.readable(true).await;
                    })
                });
                ready!(wait.as_mut().poll(cx));
                *waiting = None;
                self.is_drained.set(false);
                self.state.clock.tick();
            }
            let batches = &self.state.datagrams;
            let mut batch = batches.take().unwrap_or_default();
            let received = batch.receive(self.socket.as_raw_fd(), self.at_once, each);
            batches.set(Some(batch));
            match received {
                Ok((count, _)) => {
                    self.is_drained.set(count < self.at_once);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.is_drained.set(true),
                    io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    fn send(&self, train: DatagramTrain<'_>, path: Option<&DatagramPath>) -> SentDatagrams {
        datagram_send::send(self.socket.as_raw_fd(), train, path)
    }

    fn share(&self) -> io::Result<SharedSocket> {
        datagram::share(self.socket.as_raw_fd())
    }

    fn wake_later(&self, cx: &Context<'_>) {
        UringState::wake_later(&self.state, cx);
    }
}
