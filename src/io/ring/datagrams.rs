//! Sockets for datagrams.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::super::datagram::{self, DatagramPath, Datagrams, SentDatagrams};
use super::super::datagram_send;
use super::super::datagram_train::DatagramTrain;
use super::super::os::SharedSocket;
use super::driver::Driver;
use super::socket::{Flags, RingSocket};

/// A socket for datagrams on its core.
pub struct RingDatagrams {
    socket: Rc<RingSocket>,
    at_once: usize,
}

impl RingDatagrams {
    /// Wraps a non-blocking socket. A poll receives at most `at_once` datagrams.
    pub(super) fn new(driver: &Rc<Driver>, fd: OwnedFd, at_once: usize) -> Self {
        Self {
            socket: RingSocket::new(driver, fd.into_raw_fd(), true),
            at_once,
        }
    }
}

impl Datagrams for RingDatagrams {
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(DatagramTrain<'_>, DatagramPath),
    ) -> Poll<io::Result<()>> {
        let socket = &self.socket;
        loop {
            if !socket.may_receive(cx, false) {
                return Poll::Pending;
            }
            let batches = &socket.driver.datagrams;
            let mut batch = batches.take().unwrap_or_default();
            let received = batch.receive(socket.fd(), self.at_once, each);
            batches.set(Some(batch));
            match received {
                Ok((count, bytes)) => {
                    socket.received(bytes.max(1), count < self.at_once);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => socket.flags.remove(Flags::READABLE),
                    io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    fn send(&self, train: DatagramTrain<'_>, path: Option<&DatagramPath>) -> SentDatagrams {
        datagram_send::send(self.socket.fd(), train, path)
    }

    fn share(&self) -> io::Result<SharedSocket> {
        datagram::share(self.socket.fd())
    }

    fn wake_later(&self, cx: &Context<'_>) {
        self.socket.driver.wake_later(cx);
    }
}

impl Drop for RingDatagrams {
    fn drop(&mut self) {
        // It is both halves.
        self.socket.drop_half();
        self.socket.drop_half();
    }
}
