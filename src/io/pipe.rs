//! Pipes: how bytes go from socket to socket without being copied to us and back.
//!
//! `splice` moves references to the pages that the network card or the peer has filled. It is called directly: the
//! ring would hand it to a thread of its own. `SPLICE_F_NONBLOCK` speaks of the pipe alone; a socket's side waits
//! unless the socket itself is set not to.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::rc::Rc;

use super::os::owned;
use crate::limits::{PASS_BYTES_MAX, PIPES_KEPT_MAX, PIPES_MAX};

/// A core's pipes.
pub(super) struct Pipes {
    free: RefCell<Vec<Ends>>,
    taken: Cell<usize>,
    most: Cell<usize>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self {
            free: RefCell::default(),
            taken: Cell::new(0),
            most: Cell::new(PIPES_MAX),
        }
    }
}

impl Pipes {
    /// Sets how many may be taken at once.
    pub(super) fn set_max(&self, most: usize) {
        self.most.set(most.min(PIPES_MAX));
    }
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe that is taken. It goes back when it is dropped empty; with bytes in it, it is closed.
pub(super) struct Pipe {
    home: Rc<Pipes>,
    ends: Option<Ends>,
    bytes: usize,
}

impl Pipe {
    /// Takes an empty pipe. `None`: there are enough, or the system grants no more.
    pub(super) fn take(pipes: &Rc<Pipes>) -> Option<Self> {
        if pipes.taken.get() >= pipes.most.get() {
            return None;
        }
        let free = pipes.free.borrow_mut().pop();
        let ends = free.or_else(Ends::new)?;
        pipes.taken.set(pipes.taken.get() + 1);
        Some(Self {
            home: pipes.clone(),
            ends: Some(ends),
            bytes: 0,
        })
    }

    /// Bytes in the pipe.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Takes in what has come on a socket, up to `at_most` bytes and the pipe's size; 0 is the end of the stream.
    pub(super) fn fill(&mut self, socket: i32, at_most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let n = splice(socket, ends.write.as_raw_fd(), at_most.min(PASS_BYTES_MAX))?;
        self.bytes += n;
        Ok(n)
    }

    /// Gives what it can to a socket.
    pub(super) fn drain(&mut self, socket: i32) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let n = splice(ends.read.as_raw_fd(), socket, self.bytes)?;
        self.bytes -= n;
        Ok(n)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let pipes = &self.home;
        pipes.taken.set(pipes.taken.get() - 1);
        let mut free = pipes.free.borrow_mut();
        if self.bytes == 0 && free.len() < PIPES_KEPT_MAX {
            free.extend(self.ends.take());
        }
    }
}

impl Ends {
    fn new() -> Option<Self> {
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written to an array of two.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return None;
        }
        let [read, write] = ends.map(owned);
        // SAFETY: sets a number of a descriptor that is open. A pipe that stays smaller works as well, in more steps.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PASS_BYTES_MAX) };
        Some(Self { read, write })
    }
}

/// Moves up to `bytes` from one descriptor to the other, without waiting.
fn splice(from: i32, to: i32, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: descriptors only; no offsets are passed, so no memory of ours is touched.
    let moved = unsafe { libc::splice(from, null_mut(), to, null_mut(), bytes, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn pipes_are_counted_and_only_empty_ones_used_again() {
        let home = Rc::new(Pipes::default());
        let pipes: Vec<Pipe> = (0..PIPES_MAX).map(|_| Pipe::take(&home).unwrap()).collect();
        assert!(Pipe::take(&home).is_none(), "that is one too many");
        drop(pipes);
        assert_eq!(home.free.borrow().len(), PIPES_KEPT_MAX);
        home.free.borrow_mut().clear();

        let (mut near, from) = UnixStream::pair().unwrap();
        let (to, mut far) = UnixStream::pair().unwrap();
        near.write_all(b"some bytes").unwrap();
        let mut pipe = Pipe::take(&home).unwrap();
        assert_eq!(pipe.fill(from.as_raw_fd(), 4).unwrap(), 4);
        drop(pipe);
        assert!(home.free.borrow().is_empty(), "it was not empty");

        let mut pipe = Pipe::take(&home).unwrap();
        assert_eq!(pipe.fill(from.as_raw_fd(), 100).unwrap(), 6);
        assert_eq!(pipe.drain(to.as_raw_fd()).unwrap(), 6);
        drop((pipe, to));
        assert_eq!(home.free.borrow().len(), 1);
        assert_eq!(home.taken.get(), 0);
        let mut got = String::new();
        far.read_to_string(&mut got).unwrap();
        assert_eq!(got, " bytes");
    }
}
