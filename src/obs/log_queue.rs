//! The queue of lines between a log and the thread that writes to its destination. If the destination accepts no lines,
//! only that thread waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::limits::{LOG_FLUSH_MAX, LOG_POLL, LOG_SPARE_BUFFERS, PIPE_BYTES_AT_ONCE};

/// A bounded queue of text to write.
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    bytes_max: usize,
}

struct QueueState {
    chunks: VecDeque<String>,
    bytes: usize,
    /// Buffers to reuse.
    spare: Vec<String>,
    is_writing: bool,
    /// When the queue was closed.
    closed: Option<Instant>,
}

impl LogQueue {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(QueueState {
                chunks: VecDeque::new(),
                bytes: 0,
                spare: Vec::new(),
                is_writing: false,
                closed: None,
            }),
            changed: Condvar::new(),
            bytes_max,
        }
    }

    /// Whether the next [`LogQueue::push`] will succeed, if only one thread pushes.
    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < self.bytes_max
    }

    /// Adds text. Returns an empty buffer for the next text. If the queue is full, the text is lost.
    pub(super) fn push(&self, mut text: String) -> Result<String, String> {
        let mut state = self.lock();
        if state.bytes >= self.bytes_max {
            text.clear();
            return Err(text);
        }
        state.bytes += text.len();
        state.chunks.push_back(text);
        let spare = state.spare.pop().unwrap_or_default();
        self.changed.notify_all();
        Ok(spare)
    }

    /// Lets the writer end once everything is written, or [`LOG_FLUSH_MAX`] from now.
    pub(super) fn close(&self) {
        self.lock().closed = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Waits until everything is written, at most for `patience`.
    pub(super) fn wait_written(&self, patience: Duration) {
        let is_busy = |state: &mut QueueState| state.is_writing || !state.chunks.is_empty();
        drop(
            self.changed
                .wait_timeout_while(self.lock(), patience, is_busy),
        );
    }

    /// For the writer: waits for the next text. Returns `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<String> {
        let is_idle = |state: &mut QueueState| state.chunks.is_empty() && state.closed.is_none();
        let state = self.changed.wait_while(self.lock(), is_idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let text = state.chunks.pop_front()?;
        state.is_writing = true;
        Some(text)
    }

    /// For the writer: returns the buffer of a finished text. Returns whether the queue is empty now.
    pub(super) fn done(&self, mut text: String) -> bool {
        let mut state = self.lock();
        state.bytes -= text.len();
        state.is_writing = false;
        if state.spare.len() < LOG_SPARE_BUFFERS {
            text.clear();
            state.spare.push(text);
        }
        self.changed.notify_all();
        state.chunks.is_empty()
    }

    /// For the writer: whether to wait for a destination that accepts nothing.
    fn should_wait(&self) -> bool {
        let closed = self.lock().closed;
        closed.is_none_or(|closed| closed.elapsed() < LOG_FLUSH_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No holder of the lock can panic between two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// Where lines are written. The flags say whether it is a regular file.
pub(super) enum LogDestination {
    Stdout(bool),
    Stderr(bool),
    File(PathBuf, File, bool),
}

impl LogDestination {
    pub(super) fn stdout() -> Self {
        Self::Stdout(is_regular(io::stdout().as_fd()))
    }

    pub(super) fn stderr() -> Self {
        Self::Stderr(is_regular(io::stderr().as_fd()))
    }

    pub(super) fn file(path: PathBuf) -> io::Result<Self> {
        let file = crate::files::open_log(&path)?;
        let is_regular = file.metadata()?.is_file();
        Ok(Self::File(path, file, is_regular))
    }

    /// Identifies the file or pipe, whatever its name.
    pub(super) fn file_id(&self) -> Option<FileId> {
        let found = match self {
            Self::Stdout(_) => rustix::fs::fstat(io::stdout()),
            Self::Stderr(_) => rustix::fs::fstat(io::stderr()),
            Self::File(_, file, _) => rustix::fs::fstat(file),
        };
        found.ok().map(|found| (found.st_dev, found.st_ino))
    }

    /// Writes all of `text`. Waits for a slow reader while the queue allows it.
    ///
    /// # Errors
    /// Gives the number of lost bytes and the cause.
    pub(super) fn write(
        &mut self,
        text: &[u8],
        queue: &LogQueue,
    ) -> Result<(), (usize, io::Error)> {
        match self {
            Self::File(_, file, true) => write_all_text(file, text),
            Self::Stdout(true) => write_all_text(&mut io::stdout().lock(), text),
            Self::Stderr(true) => write_all_text(&mut io::stderr().lock(), text),
            Self::File(_, file, false) => write_in_pieces(file.as_fd(), text, queue),
            Self::Stdout(false) => write_in_pieces(io::stdout().as_fd(), text, queue),
            Self::Stderr(false) => write_in_pieces(io::stderr().as_fd(), text, queue),
        }
    }
}

impl std::fmt::Display for LogDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout(_) => f.write_str("standard output"),
            Self::Stderr(_) => f.write_str("standard error"),
            Self::File(path, ..) => path.display().fmt(f),
        }
    }
}

fn is_regular(descriptor: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(descriptor).is_ok_and(|found| {
        rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::RegularFile
    })
}

fn write_all_text(to: &mut impl io::Write, text: &[u8]) -> Result<(), (usize, io::Error)> {
    to.write_all(text)
        .and_then(|()| to.flush())
        .map_err(|error| (text.len(), error))
}

/// Writes to a destination that may have no room. It asks for room first: other processes share standard output and
/// standard error, so Weir must not make them non-blocking.
fn write_in_pieces(
    to: BorrowedFd<'_>,
    mut text: &[u8],
    queue: &LogQueue,
) -> Result<(), (usize, io::Error)> {
    let tick = Timespec::try_from(LOG_POLL).unwrap_or_default();
    while !text.is_empty() {
        let lost = text.len();
        match poll(&mut [PollFd::new(&to, PollFlags::OUT)], Some(&tick)) {
            Ok(0) | Err(Errno::INTR) if queue.should_wait() => continue,
            Ok(0) | Err(Errno::INTR) => return Err((lost, io::ErrorKind::TimedOut.into())),
            Ok(_) => {}
            Err(errno) => return Err((lost, errno.into())),
        }
        // A pipe with any room accepts this many bytes.
        let piece = text.get(..PIPE_BYTES_AT_ONCE).unwrap_or(text);
        match rustix::io::write(to, piece) {
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process has used the room.
            Err(Errno::AGAIN) if queue.should_wait() => std::thread::sleep(LOG_POLL / 10),
            Err(errno) => return Err((lost, errno.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _, Write as _};

    use super::*;

    /// A full pipe that blocks its writer, as standard output may be.
    fn full_pipe() -> (PipeReader, LogDestination) {
        let (reader, mut writer) = io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        while writer.write(&[b'.'; PIPE_BYTES_AT_ONCE]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, flags).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        (reader, LogDestination::File("pipe".into(), file, false))
    }

    #[test]
    fn a_full_queue_refuses_and_gives_the_buffer_back() {
        let queue = LogQueue::new(10);
        let buffer = queue.push("0123456789ab".to_owned()).unwrap();
        assert_eq!((buffer.as_str(), queue.has_room()), ("", false));
        assert_eq!(queue.push("more".to_owned()), Err(String::new()));
        let text = queue.next().unwrap();
        assert!(!queue.has_room(), "what is being written counts");
        assert!(queue.done(text));
        assert!(queue.has_room());
        assert!(
            queue.push("x".to_owned()).unwrap().capacity() >= 12,
            "used again"
        );
        queue.close();
        assert_eq!(queue.next().as_deref(), Some("x"));
        queue.done("x".to_owned());
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn writes_wait_for_a_slow_reader_until_the_queue_closes() {
        let queue = LogQueue::new(1 << 20);
        let (mut reader, mut destination) = full_pipe();
        let text = vec![b'x'; 3 * PIPE_BYTES_AT_ONCE + 1];
        std::thread::scope(|threads| {
            let written = threads.spawn(|| destination.write(&text, &queue));
            // A reader comes after all and gets every byte in order.
            let mut read = Vec::new();
            let mut piece = [0; PIPE_BYTES_AT_ONCE];
            while read.iter().filter(|byte| **byte == b'x').count() < text.len() {
                let n = reader.read(&mut piece).unwrap();
                read.extend_from_slice(&piece[..n]);
            }
            assert!(written.join().unwrap().is_ok());
        });
        let (stopped, mut destination) = full_pipe();
        queue.close();
        let begun = Instant::now();
        let (lost, error) = destination.write(&text, &queue).unwrap_err();
        assert_eq!((lost, error.kind()), (text.len(), io::ErrorKind::TimedOut));
        assert!(begun.elapsed() < 2 * LOG_FLUSH_MAX);
        drop(stopped);
        let (lost, error) = destination.write(&text, &queue).unwrap_err();
        assert_eq!(
            (lost, error.kind()),
            (text.len(), io::ErrorKind::BrokenPipe)
        );
    }

    #[test]
    fn waiting_for_writes_has_a_limit() {
        let queue = LogQueue::new(100);
        queue.push("x".to_owned()).unwrap();
        let text = queue.next().unwrap();
        let begun = Instant::now();
        queue.wait_written(LOG_POLL);
        assert!(begun.elapsed() >= LOG_POLL);
        queue.done(text);
        queue.wait_written(Duration::from_secs(3_600));
    }
}
