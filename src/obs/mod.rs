//! Observability: metrics, the access log and the process log. One event feeds both the counters and the access log.
//!
//! Each core reports events to its [`CoreObs`], which adds to counters that only this core writes. If the access log is
//! on, it also copies one record into a ring. Control owns the other side, [`Obs`], which reads the counters for
//! `/metrics` and runs the log thread. Reporting never makes a core block, lock, allocate or call the system.
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
mod mirrors;
mod plan_counters;
pub mod process;
mod redactor;
mod relays;
mod sessions;
pub(crate) mod text;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

pub use access_log::{AccessLog, LineStyle};
pub use core_report::{CoreReport, EjectionCause};
pub use endpoint_troubles::EndpointTroubles;
pub use event::{ExchangeEvent, Http2Tally};

pub use crate::ids::RequestId;
pub use mirrors::MirrorOutcome;
pub use process::LogLevel;
pub use redactor::Redactor;
pub use relays::{DatagramTally, DropCause};
pub use sessions::SessionOutcome;
pub use weir_config::LogFormat;

use weir_proto_h2::Error as H2Error;

use crate::fault::Reason;
use crate::plan::{EndpointSets, ListenerId, Plan, RouteId, UpstreamId};
use crate::shared::{AtomicBool, Ordering};
use crate::tls::{TlsFailure, TlsParameters};
use access_log::LogThread;
use core_report::ReportQueue;
use counters::CoreCounts;
use endpoint_troubles::FailureCause;
use event::grpc_place;
use limits::LOG_RING_BYTES;
pub(crate) use metrics_page::{MetricKind, MetricsPage};
use plan_counters::{PlanCounters, PlanNames};

/// A core's side: its counters and its ring of log records. Only that core uses it.
pub struct CoreObs {
    shared: Arc<CoreShared>,
    plan_counters: Arc<PlanCounters>,
    ring: RefCell<rtrb::Producer<u8>>,
}

/// The part of a core's state that control sees.
struct CoreShared {
    counts: CoreCounts,
    /// The newest counters. A reload and a scrape lock them; an exchange never does.
    plan_counters: Mutex<Arc<PlanCounters>>,
    /// Whether exchanges are logged. All cores share it, and a reload writes it.
    logging: Arc<AtomicBool>,
    /// Reports from all cores to control.
    reports: ReportQueue,
    /// Whether the core has ended.
    ended: AtomicBool,
}

impl CoreShared {
    fn plan_counters(&self) -> MutexGuard<'_, Arc<PlanCounters>> {
        // The value is replaced as a whole, so a panic elsewhere cannot have left it broken.
        self.plan_counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreObs {
    /// A core that counts alone and logs nothing, for tests of other modules.
    pub fn detached(plan: &Plan, endpoints: &EndpointSets) -> Self {
        let names = Arc::new(PlanNames::of(plan, endpoints, None));
        Self::with(&names, Arc::default(), ReportQueue::default(), 1).0
    }

    /// Reads what the core reports, in place of control.
    pub fn report_reader(&self) -> impl Fn() -> Option<CoreReport> + use<> {
        let reports = self.shared.reports.clone();
        move || reports.pop()
    }

    fn with(
        names: &Arc<PlanNames>,
        logging: Arc<AtomicBool>,
        reports: ReportQueue,
        ring_bytes: usize,
    ) -> (Self, rtrb::Consumer<u8>) {
        let plan_counters = Arc::new(PlanCounters::new(names.clone(), None));
        let counts = CoreCounts::default();
        counts.plan_epoch.set(names.plan_epoch);
        counts.endpoints_epoch.set(names.epoch);
        let shared = Arc::new(CoreShared {
            counts,
            plan_counters: Mutex::new(plan_counters.clone()),
            logging,
            reports,
            ended: AtomicBool::new(false),
        });
        let (producer, consumer) = rtrb::RingBuffer::new(ring_bytes);
        (
            Self {
                shared,
                plan_counters,
                ring: RefCell::new(producer),
            },
            consumer,
        )
    }

    /// Counts and logs a completed exchange that ran under `plan` and `endpoints`. If the core has changed to others
    /// since, the exchange counts by name.
    pub fn exchange(&self, plan: &Plan, endpoints: &EndpointSets, event: &ExchangeEvent<'_>) {
        self.shared.counts.exchanges_ended.add(1);
        if endpoints.epoch == self.plan_counters.epoch() {
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
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.exchanges[class].add(1);
            counts.bytes_in.add(event.bytes_in);
            counts.bytes_out.add(event.bytes_out);
            if let Some(reason) = event.reason {
                counts.reasons[reason as usize].add(1);
            }
            if let Some(policy) = event.policy {
                counts.policies[policy as usize].add(1);
            }
            if let Some(status) = grpc {
                counts.grpc[status].add(1);
            }
        }
        if let Some(counts) = route.and_then(|id| self.plan_counters.route(id)) {
            counts.exchanges[class].add(1);
            counts.bytes_in.add(event.bytes_in);
            counts.bytes_out.add(event.bytes_out);
            counts.total.record(event.total_us);
        }
        if let Some(id) = upstream {
            self.count_upstream(event, id, endpoint);
        }
    }

    /// Counts a completed sub-request that ran under `plan` and `endpoints`, for its upstream and endpoint alone.
    pub fn call(&self, plan: &Plan, endpoints: &EndpointSets, event: &ExchangeEvent<'_>) {
        let Some(id) = event.upstream else { return };
        if endpoints.epoch == self.plan_counters.epoch() {
            self.count_upstream(event, id, event.endpoint);
        } else if let Some(now) = self.plan_counters.find_upstream(plan, id) {
            let endpoint = event
                .endpoint
                .and_then(|at| self.plan_counters.find_endpoint((plan, endpoints), id, at));
            self.count_upstream(event, now, endpoint);
        }
    }

    /// Counts a sub-request that the core did not make, because it makes as many as it may.
    pub fn call_dropped(&self) {
        self.shared.counts.calls_dropped.add(1);
    }

    #[inline]
    fn count_upstream(&self, event: &ExchangeEvent<'_>, id: UpstreamId, endpoint: Option<u32>) {
        let class = event.class();
        let grpc = event.grpc_status.map(grpc_place);
        if let Some(counts) = self.plan_counters.upstream(id) {
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
        if let Some(counts) = endpoint.and_then(|at| self.plan_counters.endpoint(id, at)) {
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
        let plan_counters = &self.plan_counters;
        let upstream = event
            .upstream
            .and_then(|id| plan_counters.find_upstream(plan, id));
        let endpoint = event.upstream.zip(event.endpoint);
        self.count(
            event,
            // A removed listener has no counters, so this id is beyond the list.
            plan_counters
                .find_listener(plan, event.listener)
                .unwrap_or(ListenerId(u32::MAX)),
            event
                .route
                .and_then(|id| plan_counters.find_route(plan, id)),
            upstream,
            endpoint.and_then(|(id, at)| plan_counters.find_endpoint((plan, endpoints), id, at)),
        );
    }

    fn log(&self, epoch: u64, event: &ExchangeEvent<'_>) {
        if !log_record::write(&mut self.ring.borrow_mut(), epoch, event) {
            self.shared.counts.log_dropped.add(1);
        }
    }

    /// Counts an accepted connection.
    pub fn connection_opened(&self, listener: ListenerId) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.opened.add(1);
        }
        self.shared.counts.connections_opened.add(1);
    }

    /// Counts the end of an accepted connection.
    pub fn connection_closed(&self, listener: ListenerId) {
        self.shared.counts.connections_closed.add(1);
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.closed.add(1);
        }
    }

    /// Counts the reason of a refused connection. Logs it too, unless the ring is half full: a flood of refused
    /// connections leaves room for exchanges. Its ids are those of the plan that the core runs.
    pub fn connection_refused(&self, event: &ExchangeEvent<'_>) {
        if let Some((counts, reason)) = self
            .plan_counters
            .listener(event.listener)
            .zip(event.reason)
        {
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
            self.log(self.plan_counters.epoch(), event);
        }
    }

    /// Counts a successful TLS handshake with a client.
    pub fn tls_opened(&self, listener: ListenerId, agreed: &TlsParameters) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            let place = 2 * usize::from(agreed.is_13) + usize::from(agreed.is_resumed);
            counts.handshakes[place].add(1);
        }
    }

    /// Counts a failed TLS connection with a client.
    pub fn tls_failed(&self, listener: ListenerId, failure: TlsFailure) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.tls_failures[failure as usize].add(1);
        }
    }

    /// Counts a client connection that speaks HTTP/2.
    pub fn http2_opened(&self, listener: ListenerId) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.http2.connections.add(1);
        }
    }

    /// Counts events of a client's HTTP/2 connection.
    pub fn http2_happened(&self, listener: ListenerId, tally: &Http2Tally) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.http2.add(tally);
        }
    }

    /// Counts the end of a client's HTTP/2 connection: its error, if any, and whether Weir sent a GOAWAY.
    pub fn http2_ended(
        &self,
        listener: ListenerId,
        failure: Option<H2Error>,
        has_sent_goaway: bool,
    ) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            counts.http2.end(failure, has_sent_goaway);
        }
    }

    /// Counts an HTTP/2 connection to an endpoint that ended in an error.
    pub fn upstream_http2_failed(&self, upstream: UpstreamId, error: H2Error) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.http2_errors[error.index()].add(1);
        }
    }

    /// Counts a connection opened to an endpoint.
    pub fn upstream_connected(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.plan_counters.endpoint(upstream, endpoint) {
            counts.opened.add(1);
        }
    }

    /// Counts the end of a connection to an endpoint.
    pub fn upstream_closed(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.plan_counters.endpoint(upstream, endpoint) {
            counts.closed.add(1);
        }
    }

    /// Counts an attempt on a connection that was open already.
    pub fn upstream_reused(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.plan_counters.endpoint(upstream, endpoint) {
            counts.reused.add(1);
        }
    }

    /// Counts a connection to an endpoint that could not be opened.
    pub fn upstream_failed(&self, upstream: UpstreamId, endpoint: u32) {
        if let Some(counts) = self.plan_counters.endpoint(upstream, endpoint) {
            counts.failed.add(1);
        }
    }

    /// Counts a failed attempt. `errno` is the system's error number, or 0.
    pub fn attempt_failed(&self, upstream: UpstreamId, endpoint: u32, reason: Reason, errno: u16) {
        if let Some(counts) = self.plan_counters.endpoint(upstream, endpoint) {
            counts.reasons[reason as usize].add(1);
            counts
                .last_cause
                .set(FailureCause::new(reason, errno).to_bits());
            counts.failures.add(1);
        }
    }

    /// Counts the outcome of an attempt at an endpoint that may be ejected by its share of good ones.
    pub fn attempt_judged(&self, upstream: UpstreamId, endpoint: u32, is_good: bool) {
        if let Some(counts) = self.plan_counters.endpoint(upstream, endpoint) {
            let counter = if is_good { &counts.good } else { &counts.bad };
            counter.add(1);
        }
    }

    /// Counts an attempt after the first.
    pub fn retry(&self, upstream: UpstreamId) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.retries.add(1);
        }
    }

    /// Counts a second attempt beside another.
    pub fn hedged(&self, upstream: UpstreamId) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.hedges.add(1);
        }
    }

    /// Counts a second attempt that brought the answer before the first.
    pub fn hedge_won(&self, upstream: UpstreamId) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.hedges_won.add(1);
        }
    }

    /// Counts what has become of a client's session.
    pub fn session_settled(&self, upstream: UpstreamId, outcome: SessionOutcome) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.sessions[outcome as usize].add(1);
        }
    }

    /// Counts a copy of a request for an upstream.
    pub fn mirrored(&self, upstream: UpstreamId, outcome: MirrorOutcome) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.mirrored[outcome as usize].add(1);
        }
    }

    /// Counts an attempt that starts to wait for a connection.
    pub fn queue_entered(&self, upstream: UpstreamId) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.queue_entered.add(1);
        }
    }

    /// Counts an attempt that stops waiting, with or without a connection.
    pub fn queue_left(&self, upstream: UpstreamId) {
        if let Some(counts) = self.plan_counters.upstream(upstream) {
            counts.queue_left.add(1);
        }
    }

    /// Counts an exchange whose head is complete.
    pub fn exchange_started(&self) {
        self.shared.counts.exchanges_started.add(1);
    }

    /// Counts a fresh connection handed to another core.
    pub fn handed_on(&self) {
        self.shared.counts.handed_on.add(1);
    }

    /// Counts a fresh connection taken over from another core.
    pub fn taken_over(&self) {
        self.shared.counts.taken_over.add(1);
    }

    /// Counts a message that found another core's mailbox full.
    pub fn mailbox_full(&self) {
        self.shared.counts.mailbox_full.add(1);
    }

    /// Counts a failed accept.
    pub fn accept_error(&self) {
        self.shared.counts.accept_errors.add(1);
    }

    /// Counts connections and requests that the core ends because they use the most memory.
    pub fn shed(&self, count: u64) {
        self.shared.counts.shed.add(count);
    }

    /// Counts an exchange that panicked.
    pub fn panicked(&self) {
        self.shared.counts.panics.add(1);
    }

    /// Counts request fields dropped because of their names.
    pub fn fields_dropped(&self, count: u32) {
        self.shared.counts.fields_dropped.add(u64::from(count));
    }

    /// Records how many bytes of blocks are in use. The core calls this now and then.
    pub fn pool_used(&self, bytes: u64) {
        self.shared.counts.pool_used_bytes.set(bytes);
    }

    /// Writes a line to the process log by way of the log thread. If the ring is full, the line is dropped and counted.
    pub fn say(&self, level: LogLevel, text: &str) {
        if !log_record::write_message(&mut self.ring.borrow_mut(), level, text) {
            self.shared.counts.log_dropped.add(1);
        }
    }

    /// Counts by the ids of `plan` and `endpoints` from now on. Parts that existed before under the same name keep
    /// their counters.
    pub fn plan_changed(&mut self, plan: &Plan, endpoints: &EndpointSets) {
        let mut newest = self.shared.plan_counters();
        if newest.epoch() == endpoints.epoch {
            self.plan_counters = newest.clone();
        } else {
            // Control has prepared no counters, as in a test of a single core, or already those of a later plan.
            let names = PlanNames::of(plan, endpoints, Some(&newest.names));
            self.plan_counters = Arc::new(PlanCounters::new(Arc::new(names), Some(&newest)));
            if newest.epoch() < endpoints.epoch {
                *newest = self.plan_counters.clone();
            }
        }
        let names = &self.plan_counters.names;
        self.shared.counts.plan_epoch.set(names.plan_epoch);
        self.shared.counts.endpoints_epoch.set(names.epoch);
    }
}

impl Drop for CoreObs {
    /// Reports to control that the core has ended, for any cause.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

/// Control's side: prepares and reads the cores' counters, and owns the log thread.
pub struct Obs {
    cores: Vec<Arc<CoreShared>>,
    log: LogThread,
    logging: Arc<AtomicBool>,
    reports: ReportQueue,
}

impl Obs {
    /// Starts the log thread. Returns a [`CoreObs`] for each core.
    ///
    /// # Errors
    /// The system starts no thread.
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

    /// Prepares names and counters for `plan` and `endpoints`. Call this before sending them to the cores, so that no
    /// core has to build anything.
    pub fn prepare(&self, plan: &Plan, endpoints: &EndpointSets) {
        let old = self
            .cores
            .first()
            .map(|core| core.plan_counters().names.clone());
        let names = Arc::new(PlanNames::of(plan, endpoints, old.as_deref()));
        self.log.names(names.clone());
        for core in &self.cores {
            let mut plan_counters = core.plan_counters();
            *plan_counters = Arc::new(PlanCounters::new(names.clone(), Some(&plan_counters)));
        }
    }

    /// Replaces the access log; `None` turns it off. The caller has opened its destination already, so this cannot
    /// fail.
    pub fn set_access_log(&self, access_log: Option<AccessLog>) {
        self.logging.store(access_log.is_some(), Ordering::Relaxed);
        self.log.set(access_log);
    }

    /// The first core that has ended, if any.
    pub fn ended_core(&self) -> Option<usize> {
        let ended = |core: &Arc<CoreShared>| core.ended.load(Ordering::Acquire);
        self.cores.iter().position(ended)
    }

    /// Whether every core runs the plan of this epoch.
    pub fn all_run(&self, plan_epoch: u64) -> bool {
        let runs = |core: &Arc<CoreShared>| core.counts.plan_epoch.get() == plan_epoch;
        self.cores.iter().all(runs)
    }

    /// Active exchanges and open client connections of all cores.
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
        let help = "Process log lines that were dropped.";
        page.family("weir_process_log_dropped_total", MetricKind::Counter, help);
        page.sample(&[], process::dropped());
    }

    /// Writes the remaining log lines and ends the log thread, within [`limits::LOG_FLUSH_MAX`]. Call this after the
    /// cores have ended.
    pub fn stop(&self) {
        self.log.stop();
    }
}

/// Starts a named thread. Unlike `thread::spawn` it returns an error instead of panicking.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(test)]
mod tests;
