//! The access log and its thread.
//!
//! The thread owns the reading ends of all cores' rings, the destination, and the names of recent plans. Control
//! talks to it through a note that says what should be, not what to do: writing it never waits for the thread.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Thread};

use super::counters::Count;
use super::event::Exchange;
use super::limits::{LOG_BATCH_BYTES, LOG_FLUSH_MAX, LOG_PLANS_MAX, LOG_REST, LOG_REST_MAX};
use super::record::{self, Record};
use super::sheet::Names;
use super::{CoreShared, line, process};

/// Where the lines go and what they look like.
pub struct AccessLog {
    destination: Destination,
    format: Format,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// One line for people.
    Text,
}

enum Destination {
    Stdout,
    File(PathBuf, File),
}

impl AccessLog {
    /// To standard output.
    pub fn stdout(format: Format) -> Self {
        Self {
            destination: Destination::Stdout,
            format,
        }
    }

    /// To the end of a file, which is made when it is not there, readable for owner and group.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn file(path: PathBuf, format: Format) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self {
            destination: Destination::File(path, file),
            format,
        })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.destination {
            Destination::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Destination::File(_, file) => file.write_all(lines),
        }
    }

    /// Opens the file by its name again; the old one stays in use when that fails.
    fn reopen(&mut self) {
        if let Destination::File(path, file) = &mut self.destination {
            match open(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => process::error(format_args!(
                    "access log: cannot reopen {}: {error}",
                    path.display()
                )),
            }
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// A core's ring and its counters.
pub(super) type Source = (rtrb::Consumer<u8>, Arc<CoreShared>);

/// Control's handle to the log thread.
pub(super) struct LogThread {
    note: Arc<Mutex<Note>>,
    thread: Thread,
    ended: mpsc::Receiver<()>,
    lost_bytes: Arc<Count>,
}

/// What control wants of the thread.
#[derive(Default)]
struct Note {
    names: VecDeque<Arc<Names>>,
    change: Option<Option<AccessLog>>,
    reopen: bool,
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
        let lost_bytes = Arc::<Count>::default();
        let writer = Writer {
            note: note.clone(),
            names: VecDeque::new(),
            sources: sources.into_iter().map(Reading::new).collect(),
            log,
            lines: String::new(),
            lost_bytes: lost_bytes.clone(),
            _alive: alive,
        };
        let thread = super::spawn("weir-log", move || writer.run())?;
        Ok(Self {
            note,
            thread: thread.thread().clone(),
            ended,
            lost_bytes,
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

    pub(super) fn reopen(&self) {
        lock(&self.note).reopen = true;
        self.thread.unpark();
    }

    /// Bytes of lines that could not be written.
    pub(super) fn lost_bytes(&self) -> u64 {
        self.lost_bytes.get()
    }

    pub(super) fn stop(&self) {
        lock(&self.note).stop = true;
        self.thread.unpark();
        // The thread's end drops its side. One that hangs in a write is left behind.
        let _ = self.ended.recv_timeout(LOG_FLUSH_MAX);
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
    lost_bytes: Arc<Count>,
    _alive: mpsc::Sender<()>,
}

/// One core's ring, with what is left of a record that was not complete yet.
struct Reading {
    ring: rtrb::Consumer<u8>,
    core: Arc<CoreShared>,
    bytes: Vec<u8>,
    dropped: u64,
}

impl Reading {
    fn new((ring, core): Source) -> Self {
        Self {
            ring,
            core,
            bytes: Vec::new(),
            dropped: 0,
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
        let (change, reopen, stop) = {
            let mut note = lock(&self.note);
            while let Some(names) = note.names.pop_back() {
                push_bounded(&mut self.names, names);
            }
            (
                note.change.take(),
                std::mem::take(&mut note.reopen),
                note.stop,
            )
        };
        if let Some(log) = change {
            // What the cores have put in so far belongs to the old destination.
            self.read_rings();
            self.log = log;
        }
        if let (true, Some(log)) = (reopen, &mut self.log) {
            log.reopen();
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
                Record::Exchange(epoch, event) => self.exchange(epoch, &event),
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

    fn exchange(&mut self, epoch: u64, event: &Exchange<'_>) {
        let Some(format) = self.log.as_ref().map(|log| log.format) else {
            return;
        };
        if self.names.front().is_none_or(|names| names.epoch < epoch) {
            // The plan is newer than the last note; its names were left there before any core got it.
            let mut note = lock(&self.note);
            while let Some(names) = note.names.pop_back() {
                push_bounded(&mut self.names, names);
            }
        }
        let names = self.names.iter().find(|names| names.epoch == epoch);
        match format {
            Format::Json => line::json(&mut self.lines, event, names.map(Arc::as_ref)),
            Format::Text => line::text(&mut self.lines, event, names.map(Arc::as_ref)),
        }
        if self.lines.len() >= LOG_BATCH_BYTES {
            self.flush();
        }
    }

    fn tell_dropped(&mut self, at: usize) {
        let Some(reading) = self.sources.get_mut(at) else {
            return;
        };
        let dropped = reading.core.counts.log_dropped.get();
        let missed = dropped - reading.dropped;
        reading.dropped = dropped;
        if let (true, Some(log)) = (missed > 0, &self.log) {
            line::dropped(&mut self.lines, log.format, at, missed);
        }
    }

    fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let written = self
            .log
            .as_mut()
            .map(|log| log.write(self.lines.as_bytes()));
        if let Some(Err(error)) = written {
            let bytes = self.lines.len();
            self.lost_bytes.add(bytes as u64);
            process::error(format_args!(
                "access log: {bytes} bytes of lines lost: {error}"
            ));
        }
        self.lines.clear();
    }
}
