//! Observability: one event feeds the counters and the access log.
//!
//! A core reports to its [`CoreObs`], which adds to counters that only this core writes and, when the access log is
//! on, copies one record into a ring. Control holds the other side, [`Obs`]: it reads the counters for `/metrics` and
//! owns the log thread, which formats and writes. A core never blocks, locks or allocates for any of it, and never
//! makes a system call.
#![forbid(unsafe_code)]

mod access_log;
mod core_report;
mod counters;
mod endpoint_troubles;
mod errno;
mod event;
pub mod fields;
mod http2;
pub mod limits;
mod line;
mod log_queue;
mod log_record;
mod metrics;
mod metrics_page;
mod plan_counters;
pub mod process;
mod redactor;
pub(crate) mod text;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

pub use access_log::{AccessLog, LineStyle};
pub use core_report::CoreReport;
pub use endpoint_troubles::EndpointTroubles;
pub use event::{ExchangeEvent, Http2Tally, RequestId};
pub use process::LogLevel;
pub use redactor::Redactor;
pub use weir_config::LogFormat;

use weir_proto_h2::Error as H2Error;

use crate::fault::Reason;
use crate::plan::{EndpointSets, ListenerId, Plan, RouteId, UpstreamId};
use crate::tls::{TlsFailure, TlsParameters};
use access_log::LogThread;
use core_report::ReportQueue;
use counters::CoreCounts;
use endpoint_troubles::FailureCause;
use event::grpc_place;
use limits::LOG_RING_BYTES;
pub(crate) use metrics_page::{MetricKind, MetricsPage};
use plan_counters::{PlanCounters, PlanNames};

/// One core's side: what it counts and where it puts log records. Owned by the core, not shared.
pub struct CoreObs {
    shared: Arc<CoreShared>,
    sheet: Arc<PlanCounters>,
    ring: RefCell<rtrb::Producer<u8>>,
}

/// What control can see of a core.
struct CoreShared {
    counts: CoreCounts,
    /// The newest sheet. Locked at a reload and for a scrape, never by an exchange.
    sheet: Mutex<Arc<PlanCounters>>,
    /// Whether exchanges are logged; shared by all cores, written at a reload.
    logging: Arc<AtomicBool>,
    /// What cores report to control; shared by all cores.
    reports: ReportQueue,
    /// Whether the core is gone.
    ended: AtomicBool,
}

impl CoreShared {
    fn sheet(&self) -> MutexGuard<'_, Arc<PlanCounters>> {
        // The value is replaced whole, so a panic elsewhere cannot have left it broken.
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreObs {
    /// A core that counts for itself and logs nowhere: for tests of what is above.
    pub fn detached(plan: &Plan, endpoints: &EndpointSets) -> Self {
        let names = Arc::new(PlanNames::of(plan, endpoints, None));
        Self::with(&names, Arc::default(), ReportQueue::default(), 1).0
    }

    fn with(
        names: &Arc<PlanNames>,
        logging: Arc<AtomicBool>,
        reports: ReportQueue,
        ring_bytes: usize,
    ) -> (Self, rtrb::Consumer<u8>) {
        let sheet = Arc::new(PlanCounters::new(names.clone(), None));
        let counts = CoreCounts::default();
        counts.plan_epoch.set(names.plan_epoch);
        counts.endpoints_epoch.set(names.epoch);
        let shared = Arc::new(CoreShared {
            counts,
            sheet: Mutex::new(sheet.clone()),
            logging,
            reports,
            ended: AtomicBool::new(false),
        });
        let (producer, consumer) = rtrb::RingBuffer::new(ring_bytes);
        (
            Self {
                shared,
                sheet,
                ring: RefCell::new(producer),
            },
            consumer,
        )
    }

    /// Counts and logs an exchange that is over. `plan` and `endpoints` are those it ran under: exchanges that began
    /// before they changed are counted by name.
    pub fn exchange(&self, plan: &Plan, endpoints: &EndpointSets, event: &ExchangeEvent<'_>) {
        self.shared.counts.exchanges_ended.add(1);
        if endpoints.epoch == self.sheet.epoch() {
            self.count(
                event,
                event.listener,
                event.route,
                event.upstream,
                event.endpoint,
            );
        } else {
            self.count_old(plan, endpoints, event);
        }
        if self.shared.logging.load(Ordering::Relaxed) {
            self.log(endpoints.epoch, event);
        }
    }

    #[inline]
    fn count(
        &self,
        event: &ExchangeEvent<'_>,
        listener: ListenerId,
        route: Option<RouteId>,
        upstream: Option<UpstreamId>,
        endpoint: Option<u32>,
    ) {
        let class = event.class();
        let grpc = event.grpc_status.map(grpc_place);
        if let Some(counts) = self.sheet.listener(listener) {
            counts.exchanges[class].add(1);
            counts.bytes_in.add(event.bytes_in);
            counts.bytes_out.add(event.bytes_out);
            if let Some(reason) = event.reason {
                counts.reasons[reason as usize].add(1);
            }
            if let Some(status) = grpc {
                counts.grpc[status].add(1);
            }
        }
        if let Some(counts) = route.and_then(|id| self.sheet.route(id)) {
            counts.exchanges[class].add(1);
            counts.bytes_in.add(event.bytes_in);
            counts.bytes_out.add(event.bytes_out);
            counts.total.record(event.total_us);
        }
        let Some(id) = upstream else { return };
        if let Some(counts) = self.sheet.upstream(id) {
            counts.exchanges[class].add(1);
            counts.queued_us.add(event.queue_us);
            if event.connect_us > 0 {
                counts.connect.record(event.connect_us);
            }
            if event.first_byte_us > 0 {
                counts.first_byte.record(event.first_byte_us);
            }
            if let Some(reason) = event.reason {
                counts.reasons[reason as usize].add(1);
            }
            if let Some(status) = grpc {
                counts.grpc[status].add(1);
            }
        }
        if let Some(counts) = endpoint.and_then(|at| self.sheet.endpoint(id, at)) {
            counts.exchanges[class].add(1);
            if event.reason.is_none() {
                counts.answered.add(1);
            }
            if event.first_byte_us > 0 {
                counts.first_byte.record(event.first_byte_us);
            }
        }
    }

    #[cold]
    fn count_old(&self, plan: &Plan, endpoints: &EndpointSets, event: &ExchangeEvent<'_>) {
        let sheet = &self.sheet;
        let upstream = event.upstream.and_then(|id| sheet.find_upstream(plan, id));
        let endpoint = event.upstream.zip(event.endpoint);
        self.count(
            event,
            // A listener that is gone has no counters any more: an id beyond the list.
            sheet
                .find_listener(plan, event.listener)
                .unwrap_or(ListenerId(u32::MAX)),
            event.route.and_then(|id| sheet.find_route(plan, id)),
            upstream,
            endpoint.and_then(|(id, at)| sheet.find_endpoint((plan, endpoints), id, at)),
        );
    }

    fn log(&self, epoch: u64, event: &ExchangeEvent<'_>) {
        if !log_record::write(&mut self.ring.borrow_mut(), epoch, event) {
            self.shared.counts.log_dropped.add(1);
        }
    }

    /// A connection was accepted.
    pub fn connection_opened(&self, listener: ListenerId) {
        if let Some(counts) = self.sheet.listener(listener) {
            counts.opened.add(1);
        }
        self.shared.counts.connections_opened.add(1);
    }

    /// An accepted connection is over.
    pub fn connection_closed(&self, listener: ListenerId) {
        self.shared.counts.connections_closed.add(1);
        if let Some(counts) = self.sheet.listener(listener) {
            counts.closed.add(1);
        }
    }

    /// A connection was turned away: counts its reason, and logs it unless the ring is half full already, so that a
    /// flood of them leaves room for exchanges. Its ids are those of the plan that the
    /// core runs.
    pub fn connection_refused(&self, event: &ExchangeEvent<'_>) {
        if let Some((counts, reason)) = self.sheet.listener(event.listener).zip(event.reason) {
            counts.reasons[reason as usize].add(1);
        }
        if !self.shared.logging.load(Ordering::Relaxed) {
            return;
        }
        let half_full = {
            let ring = self.ring.borrow();
            ring.slots() < ring.buffer().capacity() / 2
        };
        if half_full {
            self.shared.counts.log_dropped.add(1);
        } else {
            self.log(self.sheet.epoch(), event);
        }
    }

    /// A TLS handshake with a client has succeeded.
    pub fn tls_opened(&self, listener: ListenerId, agreed: &TlsParameters) {
        if let Some(counts) = self.sheet.listener(listener) {
            let place = 2 * usize::from(agreed.is_13) + usize::from(agreed.is_resumed);
            counts.handshakes[place].add(1);
        }
    }

    /// A TLS connection with a client has failed.
    pub fn tls_failed(&self, listener: ListenerId, failure: TlsFailure) {
        if let Some(counts) = self.sheet.listener(listener) {
            counts.tls_failures[failure as usize].add(1);
        }
    }

    /// A client's connection speaks HTTP/2.
    pub fn http2_opened(&self, listener: ListenerId) {
        if let Some(counts) = self.sheet.listener(listener) {
            counts.http2.connections.add(1);
        }
    }

    /// Things have happened on a client's connection of HTTP/2.
    pub fn http2_happened(&self, listener: ListenerId, tally: &Http2Tally) {
        if let Some(counts) = self.sheet.listener(listener) {
            counts.http2.add(tally);
        }
    }

    /// A client's connection of HTTP/2 has ended: why, if that was for an error, and whether the client was told.
    pub fn http2_ended(&self, listener: ListenerId, failure: Option<H2Error>, was_told: bool) {
        if let Some(counts) = self.sheet.listener(listener) {
            counts.http2.end(failure, was_told);
        }
    }

    /// A connection of HTTP/2 to an endpoint has ended for an error.
    pub fn upstream_http2_failed(&self, upstream: UpstreamId, error: H2Error) {
        if let Some(counts) = self.sheet.upstream(upstream) {
            counts.http2_errors[error.index()].add(1);
        }
    }

    /// A connection to an endpoint was made.
    pub fn upstream_connected(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.sheet.endpoint(upstream, endpoint) {
            counts.opened.add(1);
        }
    }

    /// A connection to an endpoint is over.
    pub fn upstream_closed(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.sheet.endpoint(upstream, endpoint) {
            counts.closed.add(1);
        }
    }

    /// An attempt runs on a connection that was open already.
    pub fn upstream_reused(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.sheet.endpoint(upstream, endpoint) {
            counts.reused.add(1);
        }
    }

    /// A connection to an endpoint could not be made.
    pub fn upstream_failed(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.sheet.endpoint(upstream, endpoint) {
            counts.failed.add(1);
        }
    }

    /// An attempt has failed at an endpoint; `errno` is what the system said, 0 if it said nothing.
    pub fn attempt_failed(&self, upstream: UpstreamId, endpoint: u32, reason: Reason, errno: u16) {
        if let Some(counts) = self.sheet.endpoint(upstream, endpoint) {
            counts.reasons[reason as usize].add(1);
            counts
                .last_cause
                .set(FailureCause::new(reason, errno).to_bits());
            counts.failures.add(1);
        }
    }

    /// An exchange is tried again.
    pub fn retry(&self, upstream: UpstreamId) {
        if let Some(counts) = self.sheet.upstream(upstream) {
            counts.retries.add(1);
        }
    }

    /// An exchange begins to wait for a connection.
    pub fn queue_entered(&self, upstream: UpstreamId) {
        if let Some(counts) = self.sheet.upstream(upstream) {
            counts.queue_entered.add(1);
        }
    }

    /// An exchange waits no more, with a connection or without.
    pub fn queue_left(&self, upstream: UpstreamId) {
        if let Some(counts) = self.sheet.upstream(upstream) {
            counts.queue_left.add(1);
        }
    }

    /// An exchange has begun: its head is complete.
    pub fn exchange_started(&self) {
        self.shared.counts.exchanges_started.add(1);
    }

    /// A fresh connection was given to another core.
    pub fn handed_on(&self) {
        self.shared.counts.handed_on.add(1);
    }

    /// A fresh connection was taken from another core.
    pub fn taken_over(&self) {
        self.shared.counts.taken_over.add(1);
    }

    /// Another core's mailbox was full.
    pub fn mailbox_full(&self) {
        self.shared.counts.mailbox_full.add(1);
    }

    /// An accept failed.
    pub fn accept_error(&self) {
        self.shared.counts.accept_errors.add(1);
    }

    /// So many connections and requests were told to end because they held most of the memory for messages.
    pub fn shed(&self, count: u64) {
        self.shared.counts.shed.add(count);
    }

    /// An exchange ended in a panic, which is a bug of Weir's.
    pub fn panicked(&self) {
        self.shared.counts.panics.add(1);
    }

    /// So many fields of a request were dropped for their odd names.
    pub fn fields_dropped(&self, count: u32) {
        self.shared.counts.fields_dropped.add(u64::from(count));
    }

    /// Bytes of blocks in use, as of now; report it now and then.
    pub fn pool_used(&self, bytes: u64) {
        self.shared.counts.pool_used_bytes.set(bytes);
    }

    /// Says something in the process log, by way of the log thread; dropped and counted when that lags behind.
    pub fn say(&self, level: LogLevel, text: &str) {
        if !log_record::write_message(&mut self.ring.borrow_mut(), level, text) {
            self.shared.counts.log_dropped.add(1);
        }
    }

    /// Counts by the ids of `plan` and `endpoints` from here on. What the former ones had by the same name keeps its
    /// counters.
    pub fn plan_changed(&mut self, plan: &Plan, endpoints: &EndpointSets) {
        let mut newest = self.shared.sheet();
        if newest.epoch() < endpoints.epoch {
            // Control has not prepared it: this core is on its own.
            let names = PlanNames::of(plan, endpoints, Some(&newest.names));
            *newest = Arc::new(PlanCounters::new(Arc::new(names), Some(&newest)));
        }
        self.sheet = newest.clone();
        let names = &self.sheet.names;
        self.shared.counts.plan_epoch.set(names.plan_epoch);
        self.shared.counts.endpoints_epoch.set(names.epoch);
    }
}

impl Drop for CoreObs {
    /// However the core's thread ends, control learns of it.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

/// Control's side: prepares the cores' counters, reads them, and owns the log thread.
pub struct Obs {
    cores: Vec<Arc<CoreShared>>,
    log: LogThread,
    logging: Arc<AtomicBool>,
    reports: ReportQueue,
}

impl Obs {
    /// Starts the log thread and makes one [`CoreObs`] a core.
    ///
    /// # Errors
    /// The access log cannot be opened, or the thread cannot be started.
    pub fn start(
        cores: usize,
        (plan, endpoints): (&Plan, &EndpointSets),
        access_log: Option<AccessLog>,
    ) -> io::Result<(Self, Vec<CoreObs>)> {
        let names = Arc::new(PlanNames::of(plan, endpoints, None));
        let logging = Arc::new(AtomicBool::new(access_log.is_some()));
        let reports = ReportQueue::default();
        let (sides, rings): (Vec<_>, Vec<_>) = (0..cores)
            .map(|_| CoreObs::with(&names, logging.clone(), reports.clone(), LOG_RING_BYTES))
            .unzip();
        let shared: Vec<_> = sides.iter().map(|side| side.shared.clone()).collect();
        let log = LogThread::start(
            rings.into_iter().zip(shared.clone()).collect(),
            names,
            access_log,
        )?;
        Ok((
            Self {
                cores: shared,
                log,
                logging,
                reports,
            },
            sides,
        ))
    }

    /// Prepares names and counters for `plan` and `endpoints`. Call it before sending them to the cores, so that these
    /// need not build anything.
    pub fn prepare(&self, plan: &Plan, endpoints: &EndpointSets) {
        let old = self.cores.first().map(|core| core.sheet().names.clone());
        let names = Arc::new(PlanNames::of(plan, endpoints, old.as_deref()));
        self.log.names(names.clone());
        for core in &self.cores {
            let mut sheet = core.sheet();
            *sheet = Arc::new(PlanCounters::new(names.clone(), Some(&sheet)));
        }
    }

    /// Changes where the access log goes; `None` turns it off. The destination was opened by whoever made it, so
    /// nothing can fail here.
    pub fn set_access_log(&self, access_log: Option<AccessLog>) {
        self.logging.store(access_log.is_some(), Ordering::Relaxed);
        self.log.set(access_log);
    }

    /// A core that has ended, if any.
    pub fn ended_core(&self) -> Option<usize> {
        let ended = |core: &Arc<CoreShared>| core.ended.load(Ordering::Acquire);
        self.cores.iter().position(ended)
    }

    /// Exchanges under way and client connections open, all cores together.
    pub fn load(&self) -> (u64, u64) {
        metrics::load(&self.cores)
    }

    /// Adds all counters to a page of metrics.
    pub(crate) fn metrics(&self, page: &mut MetricsPage) {
        metrics::render(&self.cores, page);
        let help = "Bytes of log lines that could not be written.";
        page.family("weir_log_lost_bytes_total", MetricKind::Counter, help);
        page.sample(&[], self.log.lost_bytes());
        let help = "Log lines dropped because their destination was behind.";
        page.family("weir_log_unwritten_total", MetricKind::Counter, help);
        page.sample(&[], self.log.unwritten());
        let help = "Lines of the process log that were left out.";
        page.family("weir_process_log_dropped_total", MetricKind::Counter, help);
        page.sample(&[], process::dropped());
    }

    /// Writes what is left in the log and ends its thread, within [`limits::LOG_FLUSH_MAX`]. Call it when the cores
    /// have ended.
    pub fn stop(&self) {
        self.log.stop();
    }
}

/// A named thread whose failure to start is an error, not a panic.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(test)]
mod tests;
