//! The schedule and the event loop: when to send, and what to count.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use weir_benches::net::Poll;

use crate::Options;
use crate::connection::{Connection, Progress, SharedBuffers};
use crate::report::Report;
use crate::stream::Stream;

/// Idle connections that may be opening at the same time.
const OPENING_MAX: usize = 64;
/// How long to wait for outstanding responses after the measured time.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long opening the idle connections may take.
const OPENING_TIME_MAX: Duration = Duration::from_secs(120);
/// The run ends after this many failures without a single response.
const FAILURES_MAX: u64 = 1000;
const BLOCK_BYTES: usize = 1024 * 1024;

pub(crate) struct Load {
    options: Options,
    poll: Poll,
    shared: SharedBuffers,
    /// The first `options.connections` slots carry the load; the others are idle.
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    phase: Phase,
    epoch: Instant,
    report: Report,
    failures: u64,
    last_error: Option<Errno>,
}

/// A slot for one connection after another.
struct Slot {
    connection: Option<Connection>,
    generation: u32,
    /// The intended send time of the request in flight, in nanoseconds since the epoch.
    intended_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Load,
    Draining,
}

/// Times in nanoseconds since the epoch.
struct MeasuredWindow {
    start_ns: u64,
    end_ns: u64,
}

impl Load {
    pub(crate) fn new(options: Options) -> Result<Self, Box<dyn Error>> {
        let count = options.connections + options.idle;
        let slots = (0..count)
            .map(|_| Slot {
                connection: None,
                generation: 0,
                intended_ns: None,
            })
            .collect();
        Ok(Self {
            poll: Poll::new()?,
            shared: SharedBuffers {
                heads: options.requests.clone(),
                next: 0,
                upload_bytes: options.upload_bytes,
                block: vec![b'u'; BLOCK_BYTES],
            },
            slots,
            free: VecDeque::new(),
            phase: Phase::Opening,
            epoch: Instant::now(),
            report: Report::new()?,
            failures: 0,
            last_error: None,
            options,
        })
    }

    /// Runs the load. The threads begin it `together`; the first of them prints the events.
    ///
    /// # Errors
    /// Why it could not run to its end.
    pub(crate) fn run(mut self, together: &Barrier) -> Result<Report, Box<dyn Error>> {
        let has_idle = self.options.idle > 0;
        if has_idle {
            self.open_idle()?;
        }
        together.wait();
        if has_idle {
            self.print("idle");
            std::thread::sleep(self.options.settle);
        }
        self.phase = Phase::Load;
        self.free = (0..self.options.connections).collect();
        let warmup_ns = self.options.warmup.as_nanos() as u64;
        let begin_ns = self.now_ns();
        let start_ns = begin_ns + warmup_ns;
        let window = MeasuredWindow {
            start_ns,
            end_ns: start_ns + self.options.measured.as_nanos() as u64,
        };
        let mut schedule = Schedule::new(&self.options, begin_ns);
        let mut started = false;
        loop {
            let now_ns = self.now_ns();
            if !started && now_ns >= window.start_ns {
                started = true;
                self.print("start");
            }
            if now_ns >= window.end_ns {
                self.print("end");
                self.report.seconds = (now_ns - window.start_ns) as f64 / 1e9;
                break;
            }
            self.send_due(&mut schedule, now_ns)?;
            let boundary_ns = if started {
                window.end_ns
            } else {
                window.start_ns
            };
            let wake_ns = schedule.next_ns(self.free.is_empty()).min(boundary_ns);
            let limit = Duration::from_nanos(wake_ns.saturating_sub(self.now_ns()));
            self.poll_once(limit, &window)?;
        }
        self.phase = Phase::Draining;
        self.drain(&window)?;
        self.report.unsent = self.charge_unsent(&mut schedule, &window);
        Ok(self.report)
    }

    /// Opens the idle connections. Each carries one request first.
    fn open_idle(&mut self) -> Result<(), Box<dyn Error>> {
        let window = MeasuredWindow {
            start_ns: u64::MAX,
            end_ns: u64::MAX,
        };
        let first = self.options.connections;
        let mut next = first;
        while self.report.answers < self.options.idle as u64 {
            let opening = next - first - self.report.answers as usize;
            for _ in opening..OPENING_MAX {
                if next < self.slots.len() {
                    self.start(next, self.now_ns())?;
                    next += 1;
                }
            }
            self.poll_once(Duration::from_millis(100), &window)?;
            if self.failures > 0 || self.epoch.elapsed() > OPENING_TIME_MAX {
                return Err(self.failure(&format!(
                    "opened only {} idle connections",
                    self.report.answers
                )));
            }
        }
        Ok(())
    }

    fn send_due(&mut self, schedule: &mut Schedule, now_ns: u64) -> Result<(), Box<dyn Error>> {
        while let Some(index) = self.free.front().copied() {
            let Some(intended_ns) = schedule.take(now_ns) else {
                return Ok(());
            };
            self.free.pop_front();
            self.start(index, intended_ns)?;
        }
        Ok(())
    }

    /// Starts a request in a slot, over a new connection if the slot has none.
    fn start(&mut self, index: usize, intended_ns: u64) -> Result<(), Box<dyn Error>> {
        let slot = &mut self.slots[index];
        slot.intended_ns = Some(intended_ns);
        let opened = slot.connection.is_some();
        let connection = match &mut slot.connection {
            Some(connection) => connection,
            none => {
                let fd = match self.options.address.connect() {
                    Ok(fd) => fd,
                    Err(error) => return self.fail(index, Some(error)),
                };
                slot.generation = slot.generation.wrapping_add(1);
                self.poll
                    .add(&fd, u64::from(slot.generation) << 32 | index as u64)?;
                none.insert(Connection::new(Stream::new(fd, self.options.tls.as_ref())?))
            }
        };
        match connection.start(&mut self.shared, opened) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(index, Some(error)),
        }
    }

    /// Waits for events and handles them.
    fn poll_once(
        &mut self,
        limit: Duration,
        window: &MeasuredWindow,
    ) -> Result<(), Box<dyn Error>> {
        let events = std::mem::take(self.poll.wait(Some(limit))?);
        for event in &events {
            let key = event.data.u64();
            let index = (key & u64::from(u32::MAX)) as usize;
            let slot = &mut self.slots[index];
            if slot.generation != (key >> 32) as u32 {
                continue;
            }
            let Some(connection) = &mut slot.connection else {
                continue;
            };
            match connection.drive(event.flags, &mut self.shared) {
                Progress::Pending => {}
                Progress::Done { ok, reusable } => self.finish(index, ok, reusable, window)?,
                Progress::Broken => self.lose_connection(index)?,
            }
        }
        self.poll.reuse(events);
        Ok(())
    }

    fn finish(
        &mut self,
        index: usize,
        ok: bool,
        reusable: bool,
        window: &MeasuredWindow,
    ) -> Result<(), Box<dyn Error>> {
        let now_ns = self.now_ns();
        let slot = &mut self.slots[index];
        if !reusable || (self.options.new_connections && self.phase != Phase::Opening) {
            slot.connection = None;
        }
        let Some(intended_ns) = slot.intended_ns.take() else {
            return Ok(());
        };
        if !ok {
            return self.fail(index, None);
        }
        self.report.answers += 1;
        if (window.start_ns..window.end_ns).contains(&now_ns) {
            self.report.requests += 1;
        }
        if (window.start_ns..window.end_ns).contains(&intended_ns) {
            self.report.record(now_ns - intended_ns);
        }
        self.release(index);
        Ok(())
    }

    fn lose_connection(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let slot = &mut self.slots[index];
        slot.connection = None;
        if slot.intended_ns.is_some() {
            return self.fail(index, None);
        }
        if index >= self.options.connections {
            self.report.idle_lost += 1;
        } else {
            self.report.reconnects += 1;
        }
        Ok(())
    }

    /// Counts a failed request and frees its slot.
    fn fail(&mut self, index: usize, error: Option<Errno>) -> Result<(), Box<dyn Error>> {
        self.slots[index].connection = None;
        self.slots[index].intended_ns = None;
        self.last_error = error.or(self.last_error);
        self.failures += 1;
        self.report.errors += 1;
        self.release(index);
        if self.report.answers == 0 && self.failures >= FAILURES_MAX {
            return Err(self.failure("no request succeeded"));
        }
        Ok(())
    }

    fn release(&mut self, index: usize) {
        if index < self.options.connections {
            self.free.push_back(index);
        }
    }

    fn drain(&mut self, window: &MeasuredWindow) -> Result<(), Box<dyn Error>> {
        let end = Instant::now() + DRAIN_MAX;
        while self.free.len() < self.options.connections && Instant::now() < end {
            self.poll_once(Duration::from_millis(20), window)?;
        }
        // Requests without a response by now have taken at least this long.
        let now_ns = self.now_ns();
        for slot in &self.slots {
            if let Some(intended_ns) = slot
                .intended_ns
                .filter(|intended_ns| *intended_ns >= window.start_ns)
            {
                self.report.errors += 1;
                self.report.record(now_ns - intended_ns);
            }
        }
        Ok(())
    }

    /// Counts requests that never found a free connection. They have waited until now.
    fn charge_unsent(&mut self, schedule: &mut Schedule, window: &MeasuredWindow) -> u64 {
        let now_ns = self.now_ns();
        let mut unsent = 0;
        while self.options.rate.is_some() {
            match schedule.take(window.end_ns - 1) {
                None => break,
                Some(intended_ns) if intended_ns < window.start_ns => {}
                Some(intended_ns) => {
                    unsent += 1;
                    self.report.record(now_ns - intended_ns);
                }
            }
        }
        unsent
    }

    fn print(&self, event: &str) {
        if self.options.thread == 0 {
            println!("{{\"event\":\"{event}\"}}");
        }
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn failure(&self, what: &str) -> Box<dyn Error> {
        let why = self
            .last_error
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        format!(
            "{}: {what}, {} failures{why}",
            self.options.address, self.failures
        )
        .into()
    }
}

/// Hands out intended send times in order.
struct Schedule {
    interval_ns: Option<f64>,
    random: Option<Random>,
    begin_ns: f64,
    next: f64,
}

impl Schedule {
    fn new(options: &Options, begin_ns: u64) -> Self {
        Self {
            interval_ns: options.rate.map(|rate| 1e9 / rate),
            random: options
                .poisson
                .then_some(Random(0x9E37_79B9_7F4A_7C15 + options.thread as u64)),
            begin_ns: begin_ns as f64,
            // The threads' requests alternate.
            next: options.thread as f64 / options.threads as f64,
        }
    }

    /// The next intended time that is not after `now_ns`. In a closed loop it is always now.
    fn take(&mut self, now_ns: u64) -> Option<u64> {
        let Some(interval_ns) = self.interval_ns else {
            return Some(now_ns);
        };
        let due_ns = (self.begin_ns + self.next * interval_ns) as u64;
        if due_ns > now_ns {
            return None;
        }
        self.next += self.random.as_mut().map_or(1.0, Random::gap);
        Some(due_ns)
    }

    /// When the next request is due. If no connection is free, a response wakes the loop.
    fn next_ns(&self, none_free: bool) -> u64 {
        match self.interval_ns {
            Some(interval_ns) if !none_free => (self.begin_ns + self.next * interval_ns) as u64,
            _ => u64::MAX,
        }
    }
}

/// A xorshift generator, so that the gaps are the same in each run.
struct Random(u64);

impl Random {
    /// An exponentially distributed gap with mean one.
    fn gap(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let unit = ((self.0 >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -unit.ln()
    }
}
