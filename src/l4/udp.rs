//! Passes datagrams on.
//!
//! A flow is what one client address and port sends. It has a socket of its own that is connected to one endpoint, so
//! answers find their way back, and a task that waits for them. Clients' datagrams need no task: the listener's task
//! sends each on as it arrives.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::connection_verdict::ConnectionVerdict;
use super::flow_table::FlowTable;
use super::relay_record::RelayRecord;
use super::steps::{RelayClient, run_steps};
use crate::core::{Admission, Core, CoreListener, Timer};
use crate::exchange::CorePlan;
use crate::fault::{Fault, Reason};
use crate::io::{
    Address, DatagramPath, DatagramTrain, Datagrams, Instant, Net, SharedSocket, errno,
};
use crate::limits::FLOW_KEY_SEED;
use crate::obs::{DatagramTally, DropCause};
use crate::plan::{ListenerTarget, UdpPlan, UpstreamId};
use crate::policy::Facts;
use crate::upstream::{GuardedConnection, RequestInFlight};

/// Passes the datagrams of one listener on.
pub struct UdpListener<N: Net> {
    core: Rc<Core<N>>,
    listener: Rc<CoreListener>,
    socket: N::Datagrams,
    /// Returns the current plan.
    plan: Box<dyn Fn() -> Rc<CorePlan<N>>>,
    /// How many cores share the listener's flows.
    cores: u32,
    flows: RefCell<FlowTable<Flow<N>>>,
    tally: RefCell<DatagramTally>,
    /// The listener's task.
    task: Cell<Option<Waker>>,
}

/// A flow.
struct Flow<N: Net> {
    path: DatagramPath,
    socket: N::Datagrams,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    replies: Cell<u32>,
    replies_max: u32,
    /// Why the flow has ended, once it has.
    ended: Cell<Option<FlowEnd>>,
    /// Its task.
    task: Cell<Option<Waker>>,
}

impl<N: Net> Flow<N> {
    fn new(path: DatagramPath, socket: N::Datagrams, replies_max: u32) -> Self {
        Self {
            path,
            socket,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            replies: Cell::new(0),
            replies_max,
            ended: Cell::new(None),
            task: Cell::new(None),
        }
    }
}

/// Why a flow has ended: a reason and a system error, both absent if `idle` or `replies` ended it.
#[derive(Clone, Copy)]
struct FlowEnd {
    reason: Option<Reason>,
    errno: u16,
}

impl FlowEnd {
    const ORDERLY: Self = Self {
        reason: None,
        errno: 0,
    };

    /// The endpoint refuses datagrams.
    fn refused(error: &io::Error) -> Self {
        Self {
            reason: Some(Reason::ConnectFailed),
            errno: errno(error),
        }
    }

    fn of(reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            errno: 0,
        }
    }
}

impl<N: Net> UdpListener<N> {
    /// Makes the listener of a socket. `cores` cores have one each.
    pub fn new(
        core: &Rc<Core<N>>,
        listener: &Rc<CoreListener>,
        socket: N::Datagrams,
        cores: usize,
        plan: impl Fn() -> Rc<CorePlan<N>> + 'static,
    ) -> Rc<Self> {
        Rc::new(Self {
            core: core.clone(),
            listener: listener.clone(),
            socket,
            plan: Box::new(plan),
            cores: u32::try_from(cores).unwrap_or(u32::MAX).max(1),
            flows: RefCell::default(),
            tally: RefCell::default(),
            task: Cell::new(None),
        })
    }

    /// Passes datagrams on until the listener is closed and its last flow has ended, or the core stops.
    pub async fn run(self: Rc<Self>) {
        let timer = self.core.timers.timer();
        poll_fn(|cx| self.poll(cx, &timer)).await;
    }

    /// Another descriptor of the listener's socket, for a process that takes it over.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn share(&self) -> io::Result<SharedSocket> {
        self.socket.share()
    }

    fn poll(self: &Rc<Self>, cx: &mut Context<'_>, timer: &Timer) -> Poll<()> {
        let core = &self.core;
        core.share.renew();
        timer.watch(cx);
        self.task.set(Some(cx.waker().clone()));
        loop {
            if self.listener.is_handed_over() {
                // Another process receives.
                break;
            }
            if core.share.is_spent() {
                self.socket.wake_later(cx);
                break;
            }
            let received = self.socket.poll_receive(cx, &mut |train, path| {
                core.share.spend(train.count() as u32);
                self.take(train, path);
            });
            match received {
                Poll::Ready(Ok(())) => {}
                // An unconnected socket reports nothing that lasts.
                Poll::Ready(Err(_)) => {
                    self.socket.wake_later(cx);
                    break;
                }
                Poll::Pending => break,
            }
        }
        self.report_tally();
        if core.is_stopping() {
            while self.end_oldest(FlowEnd::of(Reason::ShuttingDown)) {}
            return Poll::Ready(());
        }
        let now = core.net.now();
        let idle = self.udp().map(|udp| udp.idle).unwrap_or_default();
        timer.set(Instant::NEVER);
        loop {
            let oldest = self.flows.borrow().oldest();
            match oldest {
                Some((_, moved_at)) if now < moved_at + idle => {
                    timer.set(moved_at + idle);
                    break;
                }
                Some(_) => drop(self.end_oldest(FlowEnd::ORDERLY)),
                None => break,
            }
        }
        match self.listener.is_leaving() && self.flows.borrow().len() == 0 {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// The listener's settings; `None` after a reload has given its address to something else.
    fn udp(&self) -> Option<UdpPlan> {
        match self.listener.plan.borrow().target {
            ListenerTarget::Udp(udp) => Some(udp),
            _ => None,
        }
    }

    /// Passes datagrams of a client on.
    fn take(self: &Rc<Self>, train: DatagramTrain<'_>, path: DatagramPath) {
        let count = train.count() as u32;
        self.tally.borrow_mut().received += count;
        let known = self
            .flows
            .borrow_mut()
            .touch(path.peer, self.core.net.now());
        let flow = match known {
            Some(flow) => flow,
            None => match self.open(path) {
                Ok(flow) => flow,
                Err(cause) => return self.tally.borrow_mut().drop_for(cause, count),
            },
        };
        let sent = flow.socket.send(train, None);
        let bytes = train_bytes(train, sent.count);
        flow.bytes_in.set(flow.bytes_in.get() + bytes);
        self.count_unsent(count, sent.count);
        if let Some(error) = sent.error
            && is_refusal(&error)
        {
            self.end(&flow, FlowEnd::refused(&error));
        }
    }

    /// Passes datagrams of an endpoint back.
    fn take_replies(&self, flow: &Flow<N>, train: DatagramTrain<'_>) {
        if flow.ended.get().is_some() {
            return;
        }
        let left = match flow.replies_max {
            0 => u32::MAX,
            most => most.saturating_sub(flow.replies.get()),
        };
        let train = train.first(left as usize);
        let count = train.count() as u32;
        self.flows
            .borrow_mut()
            .touch(flow.path.peer, self.core.net.now());
        let sent = self.socket.send(train, Some(&flow.path));
        self.tally.borrow_mut().sent += sent.count as u32;
        let bytes = train_bytes(train, sent.count);
        flow.bytes_out.set(flow.bytes_out.get() + bytes);
        self.count_unsent(count, sent.count);
        flow.replies.set(flow.replies.get().saturating_add(count));
        if flow.replies_max > 0 && flow.replies.get() >= flow.replies_max {
            flow.ended.set(Some(FlowEnd::ORDERLY));
        }
    }

    fn count_unsent(&self, count: u32, sent: usize) {
        let unsent = count.saturating_sub(sent as u32);
        if unsent > 0 {
            self.tally.borrow_mut().drop_for(DropCause::Unsent, unsent);
        }
    }

    /// Begins a flow.
    fn open(self: &Rc<Self>, path: DatagramPath) -> Result<Rc<Flow<N>>, DropCause> {
        let core = &self.core;
        let udp = self.udp().filter(|_| !self.listener.is_leaving());
        let udp = udp.ok_or(DropCause::Refused)?;
        let flows_max = udp.flows_max.div_ceil(self.cores).max(1) as usize;
        let (id, plan) = (self.listener.id.get(), (self.plan)());
        let settings = self.listener.plan.borrow().clone();
        let client = RelayClient {
            address: Some(path.peer),
            tls: None,
        };
        let mut record = RelayRecord::new(core, "UDP", id, client.ip());
        let facts = run_steps(core, &plan.states, (id, &settings), client, &mut record);
        let facts = facts.map_err(|reason| {
            record.reason = Some(reason);
            record.report_refused(core);
            DropCause::Refused
        })?;
        while self.flows.borrow().len() >= flows_max || !core.has_room() {
            if !self.end_oldest(FlowEnd::of(Reason::FlowEvicted)) {
                return Err(DropCause::Refused);
            }
        }
        let admission = Admission::new(core, &self.listener, None);
        let admission = admission.map_err(|_| DropCause::Refused)?;
        record.upstream = Some(udp.upstream);
        let upstream = plan.upstreams.get(udp.upstream.0 as usize);
        let upstream = upstream.ok_or(DropCause::NoEndpoint)?;
        let guarded = upstream.admit_connection(core.net.now());
        let guarded = guarded.map_err(|reason| {
            record.reason = Some(reason);
            record.report_refused(core);
            DropCause::Refused
        })?;
        let picked = upstream.pick_for_key(key_of(path.peer));
        let (index, endpoint) = picked.ok_or(DropCause::NoEndpoint)?;
        record.endpoint = Some(index);
        record.attempts = 1;
        let Address::Ip(address) = endpoint.address else {
            return Err(DropCause::NoEndpoint);
        };
        let request = RequestInFlight::begin(endpoint.clone());
        let socket = core.net.connect_datagrams(address).map_err(|error| {
            endpoint.count_failure(Reason::from_connect(&error), errno(&error));
            DropCause::NoEndpoint
        })?;
        let flow = Rc::new(Flow::new(path, socket, udp.replies_max));
        self.flows
            .borrow_mut()
            .add(path.peer, flow.clone(), core.net.now());
        let keeps = (facts, admission);
        let served = self.clone().serve(
            flow.clone(),
            (plan.clone(), guarded),
            request,
            record,
            keeps,
        );
        core.net.spawn(served);
        Ok(flow)
    }

    /// Passes the answers of a flow back until the flow ends.
    async fn serve(
        self: Rc<Self>,
        flow: Rc<Flow<N>>,
        (plan, guarded): (Rc<CorePlan<N>>, Option<GuardedConnection>),
        request: RequestInFlight<N>,
        mut record: RelayRecord,
        keeps: (Facts, Admission<N>),
    ) {
        let id = record.upstream.unwrap_or(UpstreamId(u32::MAX));
        let upstream = plan.upstreams.get(id.0 as usize);
        let verdict = plan.plan.upstream(id).zip(upstream);
        let mut verdict = verdict.map(|(planned, upstream)| {
            ConnectionVerdict::new(&self.core, planned, upstream, guarded)
        });
        let end = poll_fn(|cx| {
            let end = self.poll_flow(cx, &flow);
            if let Some(verdict) = verdict.as_mut().filter(|_| flow.replies.get() > 0) {
                verdict.served(&request);
            }
            end
        });
        let end = end.await;
        // The flow that has the client's place now may be a later one.
        let is_current = {
            let mut flows = self.flows.borrow_mut();
            match flows.remove(flow.path.peer) {
                Some(current) if !Rc::ptr_eq(&current, &flow) => {
                    flows.add(flow.path.peer, current, self.core.net.now());
                    false
                }
                found => found.is_some(),
            }
        };
        if is_current && self.listener.is_leaving() {
            self.wake();
        }
        (record.bytes_in, record.bytes_out) = (flow.bytes_in.get(), flow.bytes_out.get());
        (record.reason, record.errno) = (end.reason, end.errno);
        if let (Some(reason), true) = (end.reason, end.errno > 0)
            && let Some(verdict) = &mut verdict
        {
            verdict.failed(&request, Fault::connect(reason), end.errno);
        }
        record.report(&self.core, &plan);
        drop(keeps);
    }

    fn poll_flow(&self, cx: &mut Context<'_>, flow: &Flow<N>) -> Poll<FlowEnd> {
        let core = &self.core;
        core.share.renew();
        flow.task.set(Some(cx.waker().clone()));
        let end = loop {
            if let Some(end) = flow.ended.get() {
                break Poll::Ready(end);
            }
            if core.share.is_spent() {
                flow.socket.wake_later(cx);
                break Poll::Pending;
            }
            let received = flow.socket.poll_receive(cx, &mut |train, _| {
                core.share.spend(train.count() as u32);
                self.take_replies(flow, train);
            });
            match received {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    break Poll::Ready(FlowEnd::refused(&error));
                }
                Poll::Pending => break Poll::Pending,
            }
        };
        self.report_tally();
        end
    }

    /// Ends the flow that has been silent longest. Returns whether there was one.
    fn end_oldest(&self, end: FlowEnd) -> bool {
        let oldest = {
            let mut flows = self.flows.borrow_mut();
            let client = flows.oldest().map(|(client, _)| client);
            client.and_then(|client| flows.remove(client))
        };
        let Some(flow) = oldest else { return false };
        self.end(&flow, end);
        true
    }

    /// Ends a flow.
    fn end(&self, flow: &Flow<N>, end: FlowEnd) {
        if flow.ended.get().is_none() {
            flow.ended.set(Some(end));
        }
        if let Some(task) = flow.task.take() {
            task.wake();
        }
    }

    fn report_tally(&self) {
        let tally = self.tally.take();
        let id = self.listener.id.get();
        self.core.obs.borrow().datagrams(id, &tally);
    }

    /// Wakes the listener's task, because it may have to end.
    fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// Bytes of the first `count` datagrams.
fn train_bytes(train: DatagramTrain<'_>, count: usize) -> u64 {
    match count {
        0 => 0,
        _ => train.first(count).bytes() as u64,
    }
}

/// Whether an error means that the endpoint, or the way to it, takes no datagrams (ICMP). Other errors concern one datagram.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

/// The key of a client: the same on every core and in every process.
fn key_of(client: SocketAddr) -> u64 {
    let octets = match client.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    };
    let ip = u128::from_be_bytes(octets);
    let words = [ip as u64, (ip >> 64) as u64, u64::from(client.port())];
    words.into_iter().fold(FLOW_KEY_SEED, |key, word| {
        (key ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}
