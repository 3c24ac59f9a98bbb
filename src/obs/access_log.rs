//! The access log and its thread.
//!
//! The log thread reads all cores' rings and knows the names of recent plans. It formats lines and queues them for
//! their destination, whose own thread writes them. So the log thread never waits for a disk or a reader, and messages
//! of cores reach the process log in time. Control gives the log thread its orders through shared memory. They describe
//! the desired state, so control never waits for the log thread.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Thread};

use weir_config::LogFormat;

use super::counters::Counter;
use super::event::ExchangeEvent;
use super::limits::{
    LOG_BATCH_BYTES, LOG_FLUSH_MAX, LOG_PLANS_MAX, LOG_QUEUE_BYTES_MAX, LOG_REST, LOG_REST_MAX,
};
use super::log_queue::{FileId, LogDestination, LogQueue};
use super::log_record::{self, LogRecord};
use super::plan_counters::PlanNames;
use super::redactor::Redactor;
use super::{CoreShared, line, process};
use crate::shared::{AtomicU64, Ordering};

/// The destination and the style of the access log. When it is dropped, its writing thread writes what is queued and
/// ends.
pub struct AccessLog {
    queue: Arc<LogQueue>,
    file_id: Option<FileId>,
    style: LineStyle,
}

/// Bytes of lines that Weir could not write.
static LOST_BYTES: AtomicU64 = AtomicU64::new(0);

/// The format of lines, and the secrets to replace in them.
pub struct LineStyle {
    pub(super) format: LogFormat,
    pub(super) redact: Redactor,
}

impl LineStyle {
    pub fn new(format: LogFormat, redact: Redactor) -> Self {
        Self { format, redact }
    }
}

impl From<LogFormat> for LineStyle {
    /// Replaces the secrets that Weir knows.
    fn from(format: LogFormat) -> Self {
        Self::new(format, Redactor::new(Some(&[])))
    }
}

impl AccessLog {
    /// Logs to standard output.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn stdout(style: impl Into<LineStyle>) -> io::Result<Self> {
        Self::to(LogDestination::stdout(), style.into())
    }

    /// Appends to a file, and creates it, readable for owner and group, if it doesn't exist. A terminal and a FIFO with
    /// a reader work too.
    ///
    /// # Errors
    /// The file cannot be opened, or the system starts no thread.
    pub fn file(path: PathBuf, style: impl Into<LineStyle>) -> io::Result<Self> {
        Self::to(LogDestination::file(path)?, style.into())
    }

    fn to(destination: LogDestination, style: LineStyle) -> io::Result<Self> {
        let queue = Arc::new(LogQueue::new(LOG_QUEUE_BYTES_MAX));
        let (theirs, file_id) = (queue.clone(), destination.file_id());
        super::spawn("weir-access-log", move || {
            write_queued(&theirs, destination)
        })?;
        Ok(Self {
            queue,
            file_id,
            style,
        })
    }

    /// Takes over from `old`. If both write to the same file or pipe, the writing thread of `old` continues, because
    /// two threads would tear each other's lines.
    fn succeed(&mut self, old: &mut Self) {
        if self.file_id.is_some() && self.file_id == old.file_id {
            std::mem::swap(&mut self.queue, &mut old.queue);
        }
    }

    /// Queues lines for the writing thread. Returns an empty buffer for the next lines.
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

/// The body of the thread that writes to a destination.
fn write_queued(queue: &LogQueue, mut destination: LogDestination) {
    let mut lost_bytes = 0;
    while let Some(lines) = queue.next() {
        match destination.write(lines.as_bytes(), queue) {
            Ok(()) if lost_bytes > 0 => {
                process::warn(format_args!(
                    "access log: {destination} accepts lines again; {lost_bytes} bytes of lines were lost"
                ));
                lost_bytes = 0;
            }
            Ok(()) => {}
            Err((lost, error)) => {
                LOST_BYTES.fetch_add(lost as u64, Ordering::Relaxed);
                if lost_bytes == 0 {
                    process::error(format_args!(
                        "access log: {destination} accepts no lines, so they are lost until it does: {error}"
                    ));
                }
                lost_bytes += lost;
            }
        }
        queue.done(lines);
    }
}

/// A core's ring and counters.
pub(super) type CoreSource = (rtrb::Consumer<u8>, Arc<CoreShared>);

/// Control's handle to the log thread.
pub(super) struct LogThread {
    orders: Arc<Mutex<LogOrders>>,
    thread: Thread,
    ended: mpsc::Receiver<()>,
    unwritten: Arc<Counter>,
}

/// The state that control wants the log thread to reach.
#[derive(Default)]
struct LogOrders {
    names: VecDeque<Arc<PlanNames>>,
    change: Option<Option<AccessLog>>,
    stop: bool,
}

impl LogThread {
    pub(super) fn start(
        sources: Vec<CoreSource>,
        names: Arc<PlanNames>,
        log: Option<AccessLog>,
    ) -> io::Result<Self> {
        let orders = Arc::new(Mutex::new(LogOrders {
            names: [names].into(),
            ..LogOrders::default()
        }));
        let (alive, ended) = mpsc::channel();
        let unwritten = Arc::<Counter>::default();
        let writer = LogWorker {
            orders: orders.clone(),
            names: VecDeque::new(),
            sources: sources.into_iter().map(CoreRing::new).collect(),
            log,
            lines: String::new(),
            unwritten: unwritten.clone(),
            _alive: alive,
        };
        let thread = super::spawn("weir-log", move || writer.run())?;
        Ok(Self {
            orders,
            thread: thread.thread().clone(),
            ended,
            unwritten,
        })
    }

    /// Adds the names of a plan. Control calls this before any core runs the plan.
    pub(super) fn names(&self, names: Arc<PlanNames>) {
        push_bounded(&mut lock(&self.orders).names, names);
    }

    pub(super) fn set(&self, log: Option<AccessLog>) {
        lock(&self.orders).change = Some(log);
        self.thread.unpark();
    }

    pub(super) fn lost_bytes(&self) -> u64 {
        LOST_BYTES.load(Ordering::Relaxed)
    }

    /// Lines that were dropped because the destination was behind.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten.get()
    }

    pub(super) fn stop(&self) {
        lock(&self.orders).stop = true;
        self.thread.unpark();
        // The channel closes when the log thread ends. Both it and the writing thread may need their full time.
        let _ = self.ended.recv_timeout(LOG_FLUSH_MAX * 2);
    }
}

fn lock(orders: &Mutex<LogOrders>) -> MutexGuard<'_, LogOrders> {
    // Each change of the orders is a single assignment, so a panic cannot have left them broken.
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push_bounded(all: &mut VecDeque<Arc<PlanNames>>, names: Arc<PlanNames>) {
    all.truncate(LOG_PLANS_MAX - 1);
    all.push_front(names);
}

/// The state of the log thread.
struct LogWorker {
    orders: Arc<Mutex<LogOrders>>,
    /// The names of recent plans, newest first.
    names: VecDeque<Arc<PlanNames>>,
    sources: Vec<CoreRing>,
    log: Option<AccessLog>,
    lines: String,
    unwritten: Arc<Counter>,
    _alive: mpsc::Sender<()>,
}

/// A core's ring, and the start of a record that is still incomplete.
struct CoreRing {
    ring: rtrb::Consumer<u8>,
    core: Arc<CoreShared>,
    bytes: Vec<u8>,
    dropped: u64,
    /// Lines dropped because the destination was behind, since the last report of them.
    unwritten: u64,
}

impl CoreRing {
    fn new((ring, core): CoreSource) -> Self {
        Self {
            ring,
            core,
            bytes: Vec::new(),
            dropped: 0,
            unwritten: 0,
        }
    }
}

impl LogWorker {
    fn run(mut self) {
        let mut rest = LOG_REST;
        loop {
            let stop = self.read_orders();
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

    fn read_orders(&mut self) -> bool {
        let (change, stop) = {
            let mut orders = lock(&self.orders);
            while let Some(names) = orders.names.pop_back() {
                push_bounded(&mut self.names, names);
            }
            (orders.change.take(), orders.stop)
        };
        if let Some(log) = change {
            // Records that are in the rings already belong to the old destination.
            self.read_rings();
            let mut old = std::mem::replace(&mut self.log, log);
            if let (Some(new), Some(old)) = (&mut self.log, &mut old) {
                new.succeed(old);
            }
        }
        stop
    }

    /// Formats all records in the rings. Returns whether there were any.
    fn read_rings(&mut self) -> bool {
        let mut worked = false;
        for at in 0..self.sources.len() {
            while self.read_some(at) {
                worked = true;
            }
            self.report_dropped(at);
        }
        self.flush();
        worked
    }

    fn read_some(&mut self, at: usize) -> bool {
        let Some(reading) = self.sources.get_mut(at) else {
            return false;
        };
        if !log_record::drain(&mut reading.ring, &mut reading.bytes, LOG_BATCH_BYTES) {
            return false;
        }
        let bytes = std::mem::take(&mut reading.bytes);
        let mut rest = bytes.as_slice();
        while let Some(record) = log_record::next(&mut rest) {
            match record {
                LogRecord::Exchange(epoch, event) => self.exchange(at, epoch, &event),
                LogRecord::Message(level, text) => {
                    process::say(level, String::from_utf8_lossy(text))
                }
            }
        }
        let rest = bytes.len() - rest.len();
        if let Some(reading) = self.sources.get_mut(at) {
            reading.bytes = bytes;
            reading.bytes.drain(..rest);
        }
        true
    }

    fn exchange(&mut self, at: usize, epoch: u64, event: &ExchangeEvent<'_>) {
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
            // The plan is newer than the names read so far. Control left its names here before any core got the plan.
            let mut orders = lock(&self.orders);
            while let Some(names) = orders.names.pop_back() {
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

    fn report_dropped(&mut self, at: usize) {
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
