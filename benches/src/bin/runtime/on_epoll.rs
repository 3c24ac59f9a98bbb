//! Plain epoll, edge-triggered: one receive and one send for each event, and no tasks.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use weir_benches::net::{self, Address, EventFlags, Poll, Transfer};

use crate::{BUFFER_BYTES, RESPONSE, Service};

const LISTENER: u64 = u64::MAX;

pub(crate) fn serve(listen: SocketAddr, service: Service) -> Result<(), Box<dyn Error>> {
    let listener = Address::Tcp(listen).listen(false)?;
    let mut server = Server {
        poll: Poll::new()?,
        sockets: Vec::new(),
        free: Vec::new(),
        service,
    };
    server.poll.add_listener(&listener, LISTENER)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let events = std::mem::take(server.poll.wait(None)?);
        let mut ended = Vec::new();
        let mut accepts = false;
        for event in &events {
            match event.data.u64() {
                LISTENER => accepts = true,
                key => server.drive(key as usize, event.flags, &mut buffer, &mut ended),
            }
        }
        // Indices are not reused before the next batch, because later events of this one still mean
        // the old socket.
        server.free.append(&mut ended);
        server.poll.reuse(events);
        if accepts {
            server.accept(&listener)?;
        }
    }
}

struct Server {
    poll: Poll,
    sockets: Vec<Option<Socket>>,
    free: Vec<usize>,
    service: Service,
}

/// A socket. A relay has two, which know each other's index.
struct Socket {
    fd: OwnedFd,
    peer: Option<usize>,
    /// Bytes that the socket has not accepted yet. Until they are sent, no more are received for
    /// it.
    unsent: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &OwnedFd) -> Result<(), Errno> {
        while let Some(fd) = net::accept(listener)? {
            let down = self.add(fd)?;
            if let Service::Relay { to } = self.service {
                let up = self.add(Address::Tcp(to).connect()?)?;
                self.pair(down, up);
            }
        }
        Ok(())
    }

    fn add(&mut self, fd: OwnedFd) -> Result<usize, Errno> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        self.poll.add(&fd, index as u64)?;
        self.sockets[index] = Some(Socket {
            fd,
            peer: None,
            unsent: Vec::new(),
        });
        Ok(index)
    }

    fn pair(&mut self, one: usize, other: usize) {
        for (index, peer) in [(one, other), (other, one)] {
            if let Some(socket) = &mut self.sockets[index] {
                socket.peer = Some(peer);
            }
        }
    }

    fn drive(
        &mut self,
        index: usize,
        flags: EventFlags,
        buffer: &mut [u8],
        ended: &mut Vec<usize>,
    ) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else {
            return;
        };
        let peer = socket.peer;
        let result = match peer {
            None => respond(socket, buffer),
            Some(peer) => self.relay(index, peer, flags, buffer),
        };
        if result.is_err() {
            for index in [Some(index), peer].into_iter().flatten() {
                if self.sockets[index].take().is_some() {
                    ended.push(index);
                }
            }
        }
    }

    fn relay(
        &mut self,
        index: usize,
        peer: usize,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        if flags.contains(EventFlags::OUT) && self.flush(index)? {
            self.pass(peer, index, buffer)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            self.pass(index, peer, buffer)?;
        }
        Ok(())
    }

    /// Sends the unsent bytes. Returns true if there were any and all are sent.
    fn flush(&mut self, index: usize) -> Result<bool, Errno> {
        let Some(socket) = &mut self.sockets[index] else {
            return Err(Errno::PIPE);
        };
        if socket.unsent.is_empty() {
            return Ok(false);
        }
        if let Transfer::Bytes(sent) = net::send(&socket.fd, &socket.unsent)? {
            socket.unsent.drain(..sent);
        }
        Ok(socket.unsent.is_empty())
    }

    fn pass(&mut self, from: usize, to: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        loop {
            let (Some(source), Some(target)) = (&self.sockets[from], &self.sockets[to]) else {
                return Err(Errno::PIPE);
            };
            if !target.unsent.is_empty() {
                return Ok(());
            }
            let received = match net::receive(&source.fd, buffer)? {
                Transfer::Bytes(received) => received,
                Transfer::WouldBlock => return Ok(()),
                Transfer::Closed => return Err(Errno::PIPE),
            };
            let sent = match net::send(&target.fd, &buffer[..received]) {
                Ok(Transfer::Bytes(sent)) => sent,
                Ok(Transfer::WouldBlock | Transfer::Closed) | Err(Errno::NOTCONN) => 0,
                Err(error) => return Err(error),
            };
            if sent < received
                && let Some(target) = &mut self.sockets[to]
            {
                target.unsent.extend_from_slice(&buffer[sent..received]);
            }
            if received < buffer.len() {
                return Ok(());
            }
        }
    }
}

fn respond(socket: &Socket, buffer: &mut [u8]) -> Result<(), Errno> {
    match net::receive(&socket.fd, buffer)? {
        Transfer::Closed => Err(Errno::PIPE),
        Transfer::WouldBlock => Ok(()),
        Transfer::Bytes(_) => net::send(&socket.fd, RESPONSE).map(drop),
    }
}
