//! On plain epoll, edge-triggered: one receive and one send an event, no tasks.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use weir_benches::net::{self, Address, EventFlags, Moved, Poll};

use crate::{ANSWER, BUFFER_BYTES, Work};

const LISTENER: u64 = u64::MAX;

pub(crate) fn serve(listen: SocketAddr, work: Work) -> Result<(), Box<dyn Error>> {
    let listener = Address::Tcp(listen).listen()?;
    let mut server = Server {
        poll: Poll::new()?,
        ends: Vec::new(),
        free: Vec::new(),
        work,
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
        // Places are given away again only now: no event of this batch can mean the next owner.
        server.free.append(&mut ended);
        server.poll.give_back(events);
        if accepts {
            server.accept(&listener)?;
        }
    }
}

struct Server {
    poll: Poll,
    ends: Vec<Option<End>>,
    free: Vec<usize>,
    work: Work,
}

/// One socket. A relay has two, which know each other by their places.
struct End {
    fd: OwnedFd,
    peer: Option<usize>,
    /// What the socket would not take yet; nothing more is received for it meanwhile.
    unsent: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &OwnedFd) -> Result<(), Errno> {
        while let Some(fd) = net::accept(listener)? {
            let down = self.add(fd)?;
            if let Work::Relay { to } = self.work {
                let up = self.add(Address::Tcp(to).connect()?)?;
                self.pair(down, up);
            }
        }
        Ok(())
    }

    fn add(&mut self, fd: OwnedFd) -> Result<usize, Errno> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.ends.push(None);
            self.ends.len() - 1
        });
        self.poll.add(&fd, place as u64)?;
        self.ends[place] = Some(End {
            fd,
            peer: None,
            unsent: Vec::new(),
        });
        Ok(place)
    }

    fn pair(&mut self, one: usize, other: usize) {
        for (place, peer) in [(one, other), (other, one)] {
            if let Some(end) = &mut self.ends[place] {
                end.peer = Some(peer);
            }
        }
    }

    fn drive(
        &mut self,
        place: usize,
        flags: EventFlags,
        buffer: &mut [u8],
        ended: &mut Vec<usize>,
    ) {
        let Some(Some(end)) = self.ends.get_mut(place) else {
            return;
        };
        let peer = end.peer;
        let result = match peer {
            None => answer(end, buffer),
            Some(peer) => self.relay(place, peer, flags, buffer),
        };
        if result.is_err() {
            for place in [Some(place), peer].into_iter().flatten() {
                if self.ends[place].take().is_some() {
                    ended.push(place);
                }
            }
        }
    }

    fn relay(
        &mut self,
        place: usize,
        peer: usize,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        if flags.contains(EventFlags::OUT) && self.flush(place)? {
            self.pass(peer, place, buffer)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            self.pass(place, peer, buffer)?;
        }
        Ok(())
    }

    /// Sends what was left over; true when there was something and it is gone.
    fn flush(&mut self, place: usize) -> Result<bool, Errno> {
        let Some(end) = &mut self.ends[place] else {
            return Err(Errno::PIPE);
        };
        if end.unsent.is_empty() {
            return Ok(false);
        }
        if let Moved::Bytes(sent) = net::send(&end.fd, &end.unsent)? {
            end.unsent.drain(..sent);
        }
        Ok(end.unsent.is_empty())
    }

    fn pass(&mut self, from: usize, to: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        loop {
            let (Some(source), Some(target)) = (&self.ends[from], &self.ends[to]) else {
                return Err(Errno::PIPE);
            };
            if !target.unsent.is_empty() {
                return Ok(());
            }
            let received = match net::receive(&source.fd, buffer)? {
                Moved::Bytes(received) => received,
                Moved::Later => return Ok(()),
                Moved::Closed => return Err(Errno::PIPE),
            };
            let sent = match net::send(&target.fd, &buffer[..received]) {
                Ok(Moved::Bytes(sent)) => sent,
                Ok(Moved::Later | Moved::Closed) | Err(Errno::NOTCONN) => 0,
                Err(error) => return Err(error),
            };
            if sent < received
                && let Some(target) = &mut self.ends[to]
            {
                target.unsent.extend_from_slice(&buffer[sent..received]);
            }
            if received < buffer.len() {
                return Ok(());
            }
        }
    }
}

fn answer(end: &End, buffer: &mut [u8]) -> Result<(), Errno> {
    match net::receive(&end.fd, buffer)? {
        Moved::Closed => Err(Errno::PIPE),
        Moved::Later => Ok(()),
        Moved::Bytes(_) => net::send(&end.fd, ANSWER).map(drop),
    }
}
