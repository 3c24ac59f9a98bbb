//! Pipes, which move bytes from socket to socket without copying them into user space and back.
//!
//! `splice` moves references to the pages that the network card or the peer has filled. Weir calls it directly because
//! the ring would hand it to a kernel thread. `SPLICE_F_NONBLOCK` covers the pipe alone, so `splice` waits for the
//! socket unless the socket itself is non-blocking.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::rc::Rc;

use super::os::owned;
use crate::limits::{PIPES_KEPT_MAX, PIPES_MAX, SPLICE_BYTES_MAX};

/// The pipes of one core.
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
    /// Sets how many pipes may be in use at once.
    pub(super) fn set_max(&self, most: usize) {
        self.most.set(most.min(PIPES_MAX));
    }
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe in use. Dropping it returns it to its core if it is empty, and closes it otherwise.
pub(super) struct Pipe {
    home: Rc<Pipes>,
    ends: Option<Ends>,
    bytes: usize,
}

impl Pipe {
    /// Takes an empty pipe. Returns `None` at the limit, or if the system grants no more.
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

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Moves up to `at_most` bytes, and at most the pipe's size, from a socket into the pipe. Returns 0 at the end of
    /// the stream.
    pub(super) fn fill(&mut self, socket: i32, at_most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let n = splice(
            socket,
            ends.write.as_raw_fd(),
            at_most.min(SPLICE_BYTES_MAX),
        )?;
        self.bytes += n;
        Ok(n)
    }

    /// Moves as many bytes as the socket takes from the pipe to the socket.
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
        // SAFETY: the system writes two descriptors to an array of two.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return None;
        }
        let [read, write] = ends.map(owned);
        // SAFETY: sets a number of an open descriptor. If the system refuses, the smaller pipe works too, in more
        // steps.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, SPLICE_BYTES_MAX) };
        Some(Self { read, write })
    }
}

/// Moves up to `bytes` from one descriptor to the other without waiting.
fn splice(from: i32, to: i32, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: takes descriptors only; the offsets are null, so the call touches no memory of ours.
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
