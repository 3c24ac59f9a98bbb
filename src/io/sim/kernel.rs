//! The part of the world that all cores share: the clock, events, listeners and connections.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

use super::conn::{Conn, ConnId, Side};
use super::datagrams::{DatagramInTransit, DatagramSockets};
use super::exec::WakeHub;
use super::faults::{Faults, Reach};
use super::rng::Rng;
use super::trace::{Actor, Trace, What};
use crate::io::Address;

/// The kernel behind its lock, and the wakers' state. Handles that may cross cores hold one.
pub(super) struct SharedKernel {
    kernel: Mutex<Kernel>,
    pub(super) hub: WakeHub,
}

impl SharedKernel {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            kernel: Mutex::new(Kernel::new(seed)),
            hub: WakeHub::default(),
        }
    }

    /// Works on the kernel, unlocks it, and then wakes the tasks concerned.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Kernel) -> R) -> R {
        let (result, wakes) = {
            let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut kernel);
            (result, std::mem::take(&mut kernel.env.wakes))
        };
        self.hub
            .as_kernel(|| wakes.into_iter().for_each(Waker::wake));
        result
    }
}

/// What every part of the kernel needs.
pub(super) struct Env {
    /// Nanoseconds since the world began.
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) events: Events,
    pub(super) trace: Trace,
    /// Tasks to wake once the kernel is unlocked.
    pub(super) wakes: Vec<Waker>,
    /// Receives and sends that the running task has started in this turn.
    pub(super) begun: u32,
}

impl Env {
    pub(super) fn note(&mut self, actor: Actor, what: What, id: u64, n: u64) {
        self.trace.add(self.now, actor, what, id, n);
    }
}

/// A future event.
pub(super) enum KernelEvent {
    /// A sleep ends.
    Wake(Actor, Waker),
    /// A receive may complete.
    Recv(ConnId, Side),
    /// A send may complete.
    Send(ConnId, Side),
    /// Bytes that this side has sent arrive.
    Arrive(ConnId, Side),
    /// A reset arrives at this side.
    Reset(ConnId, Side),
    /// A connect reaches its address. The number counts the tries that met a full queue.
    Syn(OpId, u32),
    /// A connect or accept completes.
    Complete(OpId),
    /// A datagram arrives. In a box, because all other events are small and are moved often.
    Datagram(Box<DatagramInTransit>),
}

/// The time of an event, and a random number that orders events of the same time.
pub(super) type EventKey = (u64, u64);

/// All future events.
pub(super) struct Events {
    queue: BTreeMap<EventKey, KernelEvent>,
    ties: Rng,
    count: u64,
}

impl Events {
    pub(super) fn push(&mut self, at: u64, event: KernelEvent) -> EventKey {
        self.count += 1;
        let key = (at, self.ties.next() << 32 | self.count & 0xFFFF_FFFF);
        self.queue.insert(key, event);
        key
    }

    pub(super) fn remove(&mut self, key: EventKey) {
        self.queue.remove(&key);
    }

    pub(super) fn replace(&mut self, key: EventKey, event: KernelEvent) {
        if let Some(old) = self.queue.get_mut(&key) {
            *old = event;
        }
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(&(at, _), _)| at)
    }
}

/// Identifies an accept or a connect in flight.
pub(super) type OpId = u64;

struct KernelOp {
    actor: Actor,
    waker: Option<Waker>,
    /// The outcome, which the caller sees once `complete` is set.
    result: Option<io::Result<ConnId>>,
    complete: bool,
    kind: OpKind,
}

enum OpKind {
    Accept,
    Connect { to: Address, from: IpAddr },
}

struct ListenerEntry {
    address: Address,
    queue: VecDeque<ConnId>,
    accepts: VecDeque<OpId>,
    /// Accepts no new connections.
    is_stopped: bool,
}

pub(super) struct Kernel {
    pub(super) env: Env,
    pub(super) faults: Faults,
    pub(super) faults_at: BTreeMap<Address, Faults>,
    pub(super) reach: BTreeMap<Address, Reach>,
    /// Connections that a listener's queue holds (Linux's default SOMAXCONN is 4,096).
    pub(super) backlog: usize,
    /// How many of 1,000 connects go to the first socket of their address, whatever the draw for the others says.
    pub(super) favoured_permille: u32,
    pub(super) datagrams: DatagramSockets,
    conns: BTreeMap<ConnId, Conn>,
    listeners: BTreeMap<u64, ListenerEntry>,
    ops: BTreeMap<OpId, KernelOp>,
    last_id: u64,
    last_port: u16,
}

impl Kernel {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let faults = Faults::drawn(&mut rng.fork());
        let events = Events {
            queue: BTreeMap::new(),
            ties: rng.fork(),
            count: 0,
        };
        Self {
            env: Env {
                now: 0,
                rng,
                events,
                trace: Trace::new(),
                wakes: Vec::new(),
                begun: 0,
            },
            faults,
            faults_at: BTreeMap::new(),
            reach: BTreeMap::new(),
            backlog: 4096,
            favoured_permille: 0,
            datagrams: DatagramSockets::default(),
            conns: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ops: BTreeMap::new(),
            last_id: 0,
            last_port: 10_000,
        }
    }

    /// Takes the next due event.
    pub(super) fn take_due(&mut self) -> Option<KernelEvent> {
        let (&(at, _), _) = self.env.events.queue.first_key_value()?;
        if at > self.env.now {
            return None;
        }
        self.env.events.queue.pop_first().map(|(_, event)| event)
    }

    pub(super) fn apply(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Wake(actor, waker) => {
                self.env.note(actor, What::Slept, 0, 0);
                self.env.wakes.push(waker);
            }
            KernelEvent::Recv(id, side) => self.conn(id, |conn, env| conn.on_recv(env, side)),
            KernelEvent::Send(id, side) => self.conn(id, |conn, env| conn.on_send(env, side)),
            KernelEvent::Arrive(id, side) => self.conn(id, |conn, env| conn.on_arrive(env, side)),
            KernelEvent::Reset(id, side) => self.conn(id, |conn, env| conn.on_reset(env, side)),
            KernelEvent::Syn(op, tries) => self.on_syn(op, tries),
            KernelEvent::Complete(op) => self.on_complete(op),
            KernelEvent::Datagram(datagram) => self.datagrams.deliver(&mut self.env, *datagram),
        }
    }

    /// Works on a connection, if it still exists.
    pub(super) fn conn(&mut self, id: ConnId, work: impl FnOnce(&mut Conn, &mut Env)) {
        if let Some(conn) = self.conns.get_mut(&id) {
            work(conn, &mut self.env);
        }
    }

    /// Works on a connection that exists because the caller holds one of its ends.
    pub(super) fn held<R>(
        &mut self,
        id: ConnId,
        work: impl FnOnce(&mut Conn, &mut Env) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match self.conns.get_mut(&id) {
            Some(conn) => work(conn, &mut self.env),
            None => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }

    pub(super) fn close(&mut self, id: ConnId, side: Side) {
        self.conn(id, |conn, env| conn.close(env, side));
        if self.conns.get(&id).is_some_and(Conn::is_over) {
            self.conns.remove(&id);
        }
    }

    pub(super) fn client_of(&self, id: ConnId) -> Option<SocketAddr> {
        self.conns.get(&id).and_then(|conn| conn.client)
    }

    /// Connections that the actor holds open, except those of doorbells.
    pub(super) fn open_connections(&self, actor: Actor) -> usize {
        self.conns
            .values()
            .filter(|conn| !conn.bell && conn.held_by(actor))
            .count()
            + self.datagrams.open_of(actor)
    }

    /// Opens a socket for datagrams: in place of a listener, which is closed, or for one peer.
    pub(super) fn open_datagrams(
        &mut self,
        actor: Actor,
        listener: Option<u64>,
        peer: Option<SocketAddr>,
        ip: IpAddr,
    ) -> io::Result<u64> {
        let bound = listener.and_then(|id| self.listeners.remove(&id));
        let local = match bound.map(|bound| bound.address) {
            Some(Address::Ip(address)) => address,
            Some(Address::Unix(_)) => return Err(ErrorKind::InvalidInput.into()),
            None => self.client_address(ip),
        };
        let id = self.id();
        self.datagrams.open(id, actor, local, peer);
        Ok(id)
    }

    /// Connections that the actor has accepted and holds open.
    pub(super) fn accepted_connections(&self, actor: Actor) -> usize {
        self.conns
            .values()
            .filter(|conn| !conn.bell && conn.accepted_by(actor))
            .count()
    }

    /// Makes a connection. With `None` for the second end, the acceptor sets its actor later.
    pub(super) fn pair(
        &mut self,
        first: Actor,
        second: Option<Actor>,
        client: Option<SocketAddr>,
        faults: Faults,
    ) -> ConnId {
        let id = self.id();
        let mut conn = Conn::new(id, client, faults);
        conn.set_actor(0, first);
        if let Some(second) = second {
            conn.set_actor(1, second);
        }
        self.conns.insert(id, conn);
        id
    }

    /// Makes a connection for rings, which side 0 receives.
    pub(super) fn bell(&mut self, actor: Actor) -> ConnId {
        let latency_us_max = self.faults.latency_us_max;
        let id = self.pair(
            actor,
            None,
            None,
            Faults {
                latency_us_max,
                ..Faults::none()
            },
        );
        self.conn(id, |conn, _| conn.bell = true);
        id
    }

    pub(super) fn listen(&mut self, address: Address) -> u64 {
        let id = self.id();
        let listener = ListenerEntry {
            address,
            queue: VecDeque::new(),
            accepts: VecDeque::new(),
            is_stopped: false,
        };
        self.listeners.insert(id, listener);
        id
    }

    pub(super) fn stop_listening(&mut self, id: u64) {
        if let Some(listener) = self.listeners.get_mut(&id) {
            listener.is_stopped = true;
        }
    }

    pub(super) fn accept_queued(&mut self, id: u64, actor: Actor) -> io::Result<Option<ConnId>> {
        if self.env.rng.chance(self.faults.accept_error_permille) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let open = self.listeners.get_mut(&id);
        let conn = open.and_then(|open| open.queue.pop_front());
        if let Some(conn) = conn {
            self.conn(conn, |conn, _| conn.set_actor(1, actor));
        }
        Ok(conn)
    }

    pub(super) fn close_listener(&mut self, id: u64, actor: Actor) {
        let Some(listener) = self.listeners.remove(&id) else {
            return;
        };
        self.env
            .note(actor, What::ListenerClosed, id, listener.queue.len() as u64);
        for conn in listener.queue {
            self.conn(conn, |conn, _| conn.set_abort(1));
            self.close(conn, 1);
        }
        for op in listener.accepts {
            self.resolve(op, Err(ErrorKind::InvalidInput.into()));
        }
    }

    pub(super) fn is_listening(&self, address: &Address) -> bool {
        self.listeners
            .values()
            .any(|listener| listener.address == *address)
    }

    pub(super) fn start_accept(&mut self, listener: u64, actor: Actor) -> OpId {
        let op = self.op(actor, OpKind::Accept);
        match self.listeners.get_mut(&listener) {
            None => self.resolve(op, Err(ErrorKind::InvalidInput.into())),
            Some(_) if self.env.rng.chance(self.faults.accept_error_permille) => {
                self.resolve(op, Err(io::Error::from_raw_os_error(libc::EMFILE)));
            }
            Some(open) => {
                open.accepts.push_back(op);
                self.match_accepts(listener);
            }
        }
        op
    }

    pub(super) fn start_connect(&mut self, to: Address, from: IpAddr, actor: Actor) -> OpId {
        let mut at = self.env.now + self.faults.delay(&mut self.env.rng);
        if let Some(Reach::Slow(more)) = self.reach.get(&to) {
            at = at.saturating_add(more.as_nanos() as u64);
        }
        let op = self.op(actor, OpKind::Connect { to, from });
        self.env.events.push(at, KernelEvent::Syn(op, 0));
        op
    }

    pub(super) fn poll_op(&mut self, id: OpId, waker: &Waker) -> Poll<io::Result<ConnId>> {
        let Some(op) = self.ops.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::InvalidInput.into()));
        };
        if op.complete
            && let Some(result) = op.result.take()
        {
            self.ops.remove(&id);
            return Poll::Ready(result);
        }
        op.waker = Some(waker.clone());
        Poll::Pending
    }

    /// Cancels an operation whose result was not taken, and closes the connection that it may have brought.
    pub(super) fn cancel_op(&mut self, id: OpId) {
        let Some(op) = self.ops.remove(&id) else {
            return;
        };
        let side = matches!(op.kind, OpKind::Accept) as Side;
        self.listeners
            .values_mut()
            .for_each(|open| open.accepts.retain(|&other| other != id));
        if let Some(Ok(conn)) = op.result {
            self.close(conn, side);
        }
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn op(&mut self, actor: Actor, kind: OpKind) -> OpId {
        let id = self.id();
        self.ops.insert(
            id,
            KernelOp {
                actor,
                waker: None,
                result: None,
                complete: false,
                kind,
            },
        );
        id
    }

    /// Decides the outcome of an operation, which completes a little later.
    fn resolve(&mut self, id: OpId, result: io::Result<ConnId>) {
        if let Some(op) = self.ops.get_mut(&id) {
            op.result = Some(result);
            let at = self.env.now + self.faults.delay(&mut self.env.rng);
            self.env.events.push(at, KernelEvent::Complete(id));
        }
    }

    fn on_complete(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else {
            return;
        };
        op.complete = true;
        let (what, conn) = match (&op.kind, &op.result) {
            (OpKind::Accept, Some(Ok(conn))) => (What::Accepted, *conn),
            (OpKind::Connect { .. }, Some(Ok(conn))) => (What::Connected, *conn),
            _ => (What::Refused, 0),
        };
        self.env.wakes.extend(op.waker.take());
        let actor = op.actor;
        self.env.note(actor, what, conn, 0);
    }

    /// Handles a connect that has reached its address.
    fn on_syn(&mut self, id: OpId, tries: u32) {
        let Some(KernelOp {
            actor,
            kind: OpKind::Connect { to, from },
            ..
        }) = self.ops.get(&id)
        else {
            return;
        };
        let (actor, to, from) = (*actor, to.clone(), *from);
        match self.reach.get(&to) {
            Some(Reach::BlackHole) => return self.retry_syn(id, tries),
            Some(Reach::Refused) => {
                return self.resolve(id, Err(ErrorKind::ConnectionRefused.into()));
            }
            Some(Reach::Open | Reach::Slow(_)) | None => {}
        }
        if self.env.rng.chance(self.faults_for(&to).refuse_permille) {
            return self.resolve(id, Err(ErrorKind::ConnectionRefused.into()));
        }
        let open: Vec<u64> = self.listeners_of(&to);
        if open.is_empty() {
            let unix = matches!(to, Address::Unix(_));
            let kind = if unix {
                ErrorKind::NotFound
            } else {
                ErrorKind::ConnectionRefused
            };
            return self.resolve(id, Err(kind.into()));
        }
        let is_favoured = self.favoured_permille > 0 && self.env.rng.chance(self.favoured_permille);
        let sockets = if is_favoured { 1 } else { open.len() };
        let listener = open[self.env.rng.below(sockets)];
        if self
            .listeners
            .get(&listener)
            .is_some_and(|open| open.queue.len() >= self.backlog)
        {
            return self.retry_syn(id, tries);
        }
        let client = matches!(to, Address::Ip(_)).then(|| self.client_address(from));
        let faults = self.faults_for(&to).clone();
        let conn = self.pair(actor, None, client, faults);
        if let Some(open) = self.listeners.get_mut(&listener) {
            open.queue.push_back(conn);
        }
        self.resolve(id, Ok(conn));
        self.match_accepts(listener);
    }

    /// No answer came: tries again after 1 s, 2 s, 4 s and so on, and gives up after 127 s, as Linux does.
    fn retry_syn(&mut self, id: OpId, tries: u32) {
        let at = self.env.now + (1_000_000_000 << tries);
        if tries < 7 {
            self.env.events.push(at, KernelEvent::Syn(id, tries + 1));
        } else {
            self.resolve(id, Err(ErrorKind::TimedOut.into()));
        }
    }

    /// Gives queued connections to waiting accepts, in random order.
    fn match_accepts(&mut self, listener: u64) {
        loop {
            let Some(open) = self.listeners.get_mut(&listener) else {
                return;
            };
            if open.queue.is_empty() || open.accepts.is_empty() {
                return;
            }
            let which = self.env.rng.below(open.accepts.len());
            let (Some(conn), Some(op)) = (open.queue.pop_front(), open.accepts.remove(which))
            else {
                return;
            };
            if let Some(actor) = self.ops.get(&op).map(|op| op.actor) {
                self.conn(conn, |conn, _| conn.set_actor(1, actor));
            }
            self.resolve(op, Ok(conn));
        }
    }

    fn faults_for(&self, address: &Address) -> &Faults {
        self.faults_at.get(address).unwrap_or(&self.faults)
    }

    fn listeners_of(&self, address: &Address) -> Vec<u64> {
        let open = self
            .listeners
            .iter()
            .filter(|(_, open)| open.address == *address && !open.is_stopped);
        open.map(|(&id, _)| id).collect()
    }

    fn client_address(&mut self, ip: IpAddr) -> SocketAddr {
        self.last_port = if self.last_port == u16::MAX {
            10_000
        } else {
            self.last_port + 1
        };
        SocketAddr::new(ip, self.last_port)
    }
}
