//! The access log and its thread.
//!
//! The thread owns the reading ends of all cores' rings and the names of recent plans. It formats lines and puts them
//! into the queue of the destination, whose own thread writes them: the log thread never waits for a disk or a reader,
//! because it also passes on what cores say in the process log. Control talks to it through a note that says what
//! should be, not what to do: writing it never waits for the thread.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Thread};

use super::counters::Count;
use super::event::Exchange;
use super::limits::{
    LOG_BATCH_BYTES, LOG_FLUSH_MAX, LOG_PLANS_MAX, LOG_QUEUE_BYTES_MAX, LOG_REST, LOG_REST_MAX,
};
use super::line::Format;
use super::record::{self, Record};
use super::redact::Redact;
use super::sheet::Names;
use super::sink::{Destination, Place, Queue};
use super::{CoreShared, line, process};

/// Where the lines go and what they look like. Dropping it lets the thread that writes them finish and end.
pub struct AccessLog {
    queue: Arc<Queue>,
    place: Option<Place>,
    style: Style,
}

/// Bytes of lines that could not be written.
static LOST_BYTES: AtomicU64 = AtomicU64::new(0);

/// What lines look like.
pub struct Style {
    pub(super) format: Format,
    pub(super) redact: Redact,
}

impl Style {
    /// Lines of this form without these secrets.
    pub fn new(format: Format, redact: Redact) -> Self {
        Self { format, redact }
    }
}

impl From<Format> for Style {
    /// Without the secrets that are known.
    fn from(format: Format) -> Self {
        Self::new(format, Redact::new(Some(&[])))
    }
}

impl AccessLog {
    /// To standard output.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn stdout(style: impl Into<Style>) -> io::Result<Self> {
        Self::to(Destination::stdout(), style.into())
    }

    /// To the end of a file, which is made when it is not there, readable for owner and group. A FIFO that somebody
    /// reads and a terminal serve as well.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread to be had.
    pub fn file(path: PathBuf, style: impl Into<Style>) -> io::Result<Self> {
        Self::to(Destination::file(path)?, style.into())
    }

    fn to(destination: Destination, style: Style) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(LOG_QUEUE_BYTES_MAX));
        let (theirs, place) = (queue.clone(), destination.place());
        super::spawn("weir-access-log", move || {
            write_queued(&theirs, destination)
        })?;
        Ok(Self {
            queue,
            place,
            style,
        })
    }

    /// Takes the place of `old`. Where both write to the same file or pipe, the thread of `old` goes on: two would cut
    /// each other's lines.
    fn succeed(&mut self, old: &mut Self) {
        if self.place.is_some() && self.place == old.place {
            std::mem::swap(&mut self.queue, &mut old.queue);
        }
    }

    /// Gives lines to the writer, and has an empty buffer for the next ones.
    fn write(&self, lines: String) -> String {
        let (Ok(buffer) | Err(buffer)) = self.queue.push(lines);
        buffer
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The life of the thread that writes to a destination.
fn write_queued(queue: &Queue, mut destination: Destination) {
    let mut lost_bytes = 0;
    while let Some(lines) = queue.next() {
        match destination.write(lines.as_bytes(), queue) {
            Ok(()) if lost_bytes > 0 => {
                process::warn(format_args!(
                    "access log: {destination} takes lines again; {lost_bytes} bytes of them are lost"
                ));
                lost_bytes = 0;
            }
            Ok(()) => {}
            Err((lost, error)) => {
                LOST_BYTES.fetch_add(lost as u64, Ordering::Relaxed);
                if lost_bytes == 0 {
                    process::error(format_args!(
                        "access log: {destination} takes no lines, they are lost until it does: {error}"
                    ));
                }
                lost_bytes += lost;
            }
        }
        queue.done(lines);
    }
}

/// A core's ring and its counters.
pub(super) type Source = (rtrb::Consumer<u8>, Arc<CoreShared>);

/// Control's handle to the log thread.
pub(super) struct LogThread {
    note: Arc<Mutex<Note>>,
    thread: Thread,
    ended: mpsc::Receiver<()>,
    unwritten: Arc<Count>,
}

/// What control wants of the thread.
#[derive(Default)]
struct Note {
    names: VecDeque<Arc<Names>>,
    change: Option<Option<AccessLog>>,
    stop: bool,
}

impl LogThread {
    pub(super) fn start(
        sources: Vec<Source>,
        names: Arc<Names>,
        log: Option<AccessLog>,
    ) -> io::Result<Self> {
        let note = Arc::new(Mutex::new(Note {
            names: [names].into(),
            ..Note::default()
        }));
        let (alive, ended) = mpsc::channel();
        let unwritten = Arc::<Count>::default();
        let writer = Writer {
            note: note.clone(),
            names: VecDeque::new(),
            sources: sources.into_iter().map(Reading::new).collect(),
            log,
            lines: String::new(),
            unwritten: unwritten.clone(),
            _alive: alive,
        };
        let thread = super::spawn("weir-log", move || writer.run())?;
        Ok(Self {
            note,
            thread: thread.thread().clone(),
            ended,
            unwritten,
        })
    }

    /// Makes the names of a plan known, before any core runs it.
    pub(super) fn names(&self, names: Arc<Names>) {
        push_bounded(&mut lock(&self.note).names, names);
    }

    pub(super) fn set(&self, log: Option<AccessLog>) {
        lock(&self.note).change = Some(log);
        self.thread.unpark();
    }

    /// Bytes of lines that could not be written.
    pub(super) fn lost_bytes(&self) -> u64 {
        LOST_BYTES.load(Ordering::Relaxed)
    }

    /// Lines that were dropped because the destination was behind.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten.get()
    }

    pub(super) fn stop(&self) {
        lock(&self.note).stop = true;
        self.thread.unpark();
        // The thread's end drops its side. Both it and the destination's thread may need their time.
        let _ = self.ended.recv_timeout(LOG_FLUSH_MAX * 2);
    }
}

fn lock(note: &Mutex<Note>) -> MutexGuard<'_, Note> {
    // Every change of a note is a single assignment, so a panic cannot leave it broken.
    note.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push_bounded(all: &mut VecDeque<Arc<Names>>, names: Arc<Names>) {
    all.truncate(LOG_PLANS_MAX - 1);
    all.push_front(names);
}

/// The thread itself.
struct Writer {
    note: Arc<Mutex<Note>>,
    /// Recent plans' names, newest first.
    names: VecDeque<Arc<Names>>,
    sources: Vec<Reading>,
    log: Option<AccessLog>,
    lines: String,
    unwritten: Arc<Count>,
    _alive: mpsc::Sender<()>,
}

/// One core's ring, with what is left of a record that was not complete yet.
struct Reading {
    ring: rtrb::Consumer<u8>,
    core: Arc<CoreShared>,
    bytes: Vec<u8>,
    dropped: u64,
    /// Lines that the destination was not ready for, since the log last said so.
    unwritten: u64,
}

impl Reading {
    fn new((ring, core): Source) -> Self {
        Self {
            ring,
            core,
            bytes: Vec::new(),
            dropped: 0,
            unwritten: 0,
        }
    }
}

impl Writer {
    fn run(mut self) {
        let mut rest = LOG_REST;
        loop {
            let stop = self.read_note();
            let worked = self.read_rings();
            if stop && !worked {
                if let Some(log) = &self.log {
                    log.queue.wait_written(LOG_FLUSH_MAX);
                }
                return;
            }
            if !stop {
                rest = if worked {
                    LOG_REST
                } else {
                    LOG_REST_MAX.min(rest * 2)
                };
                thread::park_timeout(rest);
            }
        }
    }

    fn read_note(&mut self) -> bool {
        let (change, stop) = {
            let mut note = lock(&self.note);
            while let Some(names) = note.names.pop_back() {
                push_bounded(&mut self.names, names);
            }
            (note.change.take(), note.stop)
        };
        if let Some(log) = change {
            // What the cores have put in so far belongs to the old destination.
            self.read_rings();
            let mut old = std::mem::replace(&mut self.log, log);
            if let (Some(new), Some(old)) = (&mut self.log, &mut old) {
                new.succeed(old);
            }
        }
        stop
    }

    /// Writes what is in the rings; whether there was anything.
    fn read_rings(&mut self) -> bool {
        let mut worked = false;
        for at in 0..self.sources.len() {
            while self.read_some(at) {
                worked = true;
            }
            self.tell_dropped(at);
        }
        self.flush();
        worked
    }

    fn read_some(&mut self, at: usize) -> bool {
        let Some(reading) = self.sources.get_mut(at) else {
            return false;
        };
        if !record::drain(&mut reading.ring, &mut reading.bytes, LOG_BATCH_BYTES) {
            return false;
        }
        let bytes = std::mem::take(&mut reading.bytes);
        let mut rest = bytes.as_slice();
        while let Some(record) = record::next(&mut rest) {
            match record {
                Record::Exchange(epoch, event) => self.exchange(at, epoch, &event),
                Record::Message(level, text) => process::say(level, String::from_utf8_lossy(text)),
            }
        }
        let rest = bytes.len() - rest.len();
        if let Some(reading) = self.sources.get_mut(at) {
            reading.bytes = bytes;
            reading.bytes.drain(..rest);
        }
        true
    }

    fn exchange(&mut self, at: usize, epoch: u64, event: &Exchange<'_>) {
        let Some(log) = &self.log else {
            return;
        };
        if !log.queue.has_room() {
            self.unwritten.add(1);
            if let Some(reading) = self.sources.get_mut(at) {
                reading.unwritten += 1;
            }
            return;
        }
        if self.names.front().is_none_or(|names| names.epoch < epoch) {
            // The plan is newer than the last note; its names were left there before any core got it.
            let mut note = lock(&self.note);
            while let Some(names) = note.names.pop_back() {
                push_bounded(&mut self.names, names);
            }
        }
        let names = self.names.iter().find(|names| names.epoch == epoch);
        let names = names.map(Arc::as_ref);
        line::exchange(&mut self.lines, &log.style, event, names);
        if self.lines.len() >= LOG_BATCH_BYTES {
            self.flush();
        }
    }

    fn tell_dropped(&mut self, at: usize) {
        let Some(reading) = self.sources.get_mut(at) else {
            return;
        };
        if self.log.as_ref().is_some_and(|log| !log.queue.has_room()) {
            return;
        }
        let dropped = reading.core.counts.log_dropped.get();
        let missed = dropped - reading.dropped + std::mem::take(&mut reading.unwritten);
        reading.dropped = dropped;
        let (true, Some(log)) = (missed > 0, &self.log) else {
            return;
        };
        if !line::dropped(&mut self.lines, log.style.format, at, missed) {
            process::warn(format_args!(
                "access log: {missed} lines of core {at} were dropped"
            ));
        }
    }

    fn flush(&mut self) {
        if let Some(log) = &self.log {
            if !self.lines.is_empty() {
                self.lines = log.write(std::mem::take(&mut self.lines));
            }
        } else {
            self.lines.clear();
        }
    }
}
