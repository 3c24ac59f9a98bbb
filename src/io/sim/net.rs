//! The simulator's implementation of [`Net`]: the handles that programs under test and scripts hold.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use super::conn::{ConnId, Side};
use super::datagrams::SimDatagrams;
use super::kernel::{EventKey, Kernel, KernelEvent, OpId, SharedKernel};
use super::trace::{Actor, What};
use super::world::WorldState;
use crate::io::chunk::advance_queue;
use crate::io::receive_size::ReceiveSize;
use crate::io::{Address, Bell, Chunk, Connection, Instant, Net, Pool, Rx, SharedSocket, Tx};
use crate::limits::BLOCK_BYTES;

/// The start of every world in milliseconds since the Unix epoch: 2026-01-01T00:00:00Z.
const WALL_MS_START: u64 = 1_767_225_600_000;

/// The delay after which a task that has used up its share continues, behind the tasks that are ready now.
const LATER_NS: u64 = 10_000;

/// How late a sleep may end: the resolution of real timers.
const TIMER_NS: usize = 1_000_000;

/// The handle of one core or one script to the world.
#[derive(Clone)]
pub struct Sim {
    core: Rc<SimCore>,
}

struct SimCore {
    world: Rc<WorldState>,
    actor: Actor,
    ip: IpAddr,
    pool: Pool,
}

impl Sim {
    pub(super) fn new(world: &Rc<WorldState>, actor: Actor, ip: IpAddr) -> Self {
        let core = SimCore {
            world: world.clone(),
            actor,
            ip,
            pool: Pool::new(),
        };
        Self {
            core: Rc::new(core),
        }
    }

    fn shared(&self) -> &Arc<SharedKernel> {
        &self.core.world.shared
    }

    fn open_datagrams(
        &self,
        listener: Option<u64>,
        peer: Option<SocketAddr>,
    ) -> io::Result<SimDatagrams> {
        let (actor, ip) = (self.core.actor, self.core.ip);
        let opened = |kernel: &mut Kernel| kernel.open_datagrams(actor, listener, peer, ip);
        Ok(SimDatagrams {
            id: self.shared().with(opened)?,
            shared: self.shared().clone(),
            actor,
        })
    }

    fn connection(&self, socket: EndHandle) -> Connection<Self> {
        let peer = (socket.side == 1).then(|| socket.client()).flatten();
        self.connection_with(socket, peer)
    }

    fn connection_with(&self, socket: EndHandle, peer: Option<SocketAddr>) -> Connection<Self> {
        let socket = Rc::new(socket);
        let rx = SimRx::new(socket.clone(), self.core.pool.clone());
        Connection {
            rx,
            tx: SimTx::new(socket),
            peer,
        }
    }
}

impl Net for Sim {
    type Socket = SimSocket;
    type Listener = SimListener;
    type Datagrams = SimDatagrams;
    type Rx = SimRx;
    type Tx = SimTx;
    type PackedConnection = SimPackedConnection;
    type Bell = SimBell;

    fn now(&self) -> Instant {
        self.core.world.look_at_clock()
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS_START + self.now().0 / 1_000_000
    }

    fn pool(&self) -> &Pool {
        &self.core.pool
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.core.world.spawn(self.core.actor, task);
    }

    async fn sleep_until(&self, at: Instant) {
        Sleep {
            net: self.clone(),
            at,
            key: None,
        }
        .await;
    }

    fn listen(&self, socket: SimSocket) -> io::Result<SimListener> {
        Ok(SimListener {
            socket,
            actor: self.core.actor,
        })
    }

    fn bind_datagrams(&self, socket: SimSocket) -> io::Result<SimDatagrams> {
        self.open_datagrams(Some(socket.id), None)
    }

    fn connect_datagrams(&self, to: SocketAddr) -> io::Result<SimDatagrams> {
        self.open_datagrams(None, Some(to))
    }

    async fn accept(&self, listener: &SimListener) -> io::Result<Connection<Self>> {
        let (id, actor) = (listener.socket.id, self.core.actor);
        let op = self.shared().with(|kernel| kernel.start_accept(id, actor));
        let conn = PendingOperation {
            shared: self.shared().clone(),
            op,
        }
        .await?;
        Ok(self.connection(EndHandle {
            shared: self.shared().clone(),
            conn,
            side: 1,
        }))
    }

    fn stop_listening(&self, listener: &SimListener) {
        let id = listener.socket.id;
        self.shared().with(|kernel| kernel.stop_listening(id));
    }

    fn accept_queued(&self, listener: &SimListener) -> io::Result<Option<Connection<Self>>> {
        let (id, actor) = (listener.socket.id, self.core.actor);
        let conn = self.shared().with(|kernel| kernel.accept_queued(id, actor));
        Ok(conn?.map(|conn| {
            self.connection(EndHandle {
                shared: self.shared().clone(),
                conn,
                side: 1,
            })
        }))
    }

    fn close_listener(&self, listener: &SimListener) {
        listener.close();
    }

    fn share_listener(&self, _: &SimListener) -> io::Result<SharedSocket> {
        // The simulator has one process.
        Err(ErrorKind::Unsupported.into())
    }

    fn leave_listener(&self, listener: &SimListener) {
        listener.close();
    }

    async fn connect(&self, to: &Address) -> io::Result<Connection<Self>> {
        let (ip, actor) = (self.core.ip, self.core.actor);
        let op = self
            .shared()
            .with(|kernel| kernel.start_connect(to.clone(), ip, actor));
        let conn = PendingOperation {
            shared: self.shared().clone(),
            op,
        }
        .await?;
        let peer = match to {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        };
        Ok(self.connection_with(
            EndHandle {
                shared: self.shared().clone(),
                conn,
                side: 0,
            },
            peer,
        ))
    }

    /// Copies: starts a receive of random size that no `poll_recv` waits for.
    fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        from: &mut SimRx,
        to: &mut SimTx,
        at_most: usize,
    ) -> Poll<usize> {
        if from.waiting || from.ended.is_some() {
            return Poll::Ready(0);
        }
        if to.queued > 0 && ready!(to.poll_send(cx)).is_err() {
            return Poll::Ready(0);
        }
        // The system sometimes grants no pipe.
        if !from.passing && self.shared().with(|kernel| kernel.env.rng.chance(50)) {
            return Poll::Ready(0);
        }
        from.poll_pass(cx, to, at_most)
    }

    fn pack(&self, connection: Connection<Self>) -> Result<SimPackedConnection, Connection<Self>> {
        let Connection { rx, tx, peer } = connection;
        if rx.touched || tx.touched {
            return Err(Connection { rx, tx, peer });
        }
        let socket = rx.socket.clone();
        drop((rx, tx));
        match Rc::try_unwrap(socket) {
            Ok(socket) => Ok(SimPackedConnection { socket, peer }),
            Err(socket) => {
                let rx = SimRx::new(socket.clone(), self.core.pool.clone());
                Err(Connection {
                    rx,
                    tx: SimTx::new(socket),
                    peer,
                })
            }
        }
    }

    fn unpack(&self, parcel: SimPackedConnection) -> io::Result<Connection<Self>> {
        let SimPackedConnection { socket, peer } = parcel;
        let (actor, conn, side) = (self.core.actor, socket.conn, socket.side);
        self.shared().with(|kernel| {
            kernel.conn(conn, |conn, env| {
                conn.set_actor(side, actor);
                env.note(actor, What::Unpacked, conn.id, 0);
            });
        });
        Ok(self.connection_with(socket, peer))
    }

    fn bell(&self) -> io::Result<(SimBell, SimRx)> {
        let actor = self.core.actor;
        let conn = self.shared().with(|kernel| kernel.bell(actor));
        let far = EndHandle {
            shared: self.shared().clone(),
            conn,
            side: 1,
        };
        let near = Rc::new(EndHandle {
            shared: self.shared().clone(),
            conn,
            side: 0,
        });
        let bell = SimBell {
            state: Arc::new(SimBellState {
                rung: AtomicBool::new(false),
                far,
            }),
        };
        Ok((bell, SimRx::new(near, self.core.pool.clone())))
    }
}

/// A bound listening socket, closed when dropped.
pub struct SimSocket {
    shared: Arc<SharedKernel>,
    id: u64,
}

impl SimSocket {
    pub(super) fn bind(shared: &Arc<SharedKernel>, address: Address) -> Self {
        let id = shared.with(|kernel| kernel.listen(address));
        Self {
            shared: shared.clone(),
            id,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.shared
            .with(|kernel| kernel.close_listener(self.id, Actor::Script(0)));
    }
}

/// A listening socket on its core.
pub struct SimListener {
    socket: SimSocket,
    actor: Actor,
}

impl SimListener {
    fn close(&self) {
        self.socket
            .shared
            .with(|kernel| kernel.close_listener(self.socket.id, self.actor));
    }
}

/// An accepted connection on its way to another core, closed when dropped.
pub struct SimPackedConnection {
    socket: EndHandle,
    peer: Option<SocketAddr>,
}

/// One end of a connection, closed when dropped.
struct EndHandle {
    shared: Arc<SharedKernel>,
    conn: ConnId,
    side: Side,
}

impl EndHandle {
    fn client(&self) -> Option<SocketAddr> {
        self.shared.with(|kernel| kernel.client_of(self.conn))
    }
}

impl Drop for EndHandle {
    fn drop(&mut self) {
        self.shared
            .with(|kernel| kernel.close(self.conn, self.side));
    }
}

#[derive(Clone)]
pub struct SimBell {
    state: Arc<SimBellState>,
}

struct SimBellState {
    rung: AtomicBool,
    far: EndHandle,
}

impl Bell for SimBell {
    fn ring(&self) {
        if !self.state.rung.swap(true, Ordering::AcqRel) {
            let far = &self.state.far;
            far.shared
                .with(|kernel| kernel.conn(far.conn, |conn, env| conn.ring(env)));
        }
    }

    fn heard(&self) {
        self.state.rung.store(false, Ordering::Release);
    }
}

/// Receiving half of a connection.
pub struct SimRx {
    socket: Rc<EndHandle>,
    pool: Pool,
    size: ReceiveSize,
    /// A receive was started at some time.
    touched: bool,
    /// A receive is in flight.
    waiting: bool,
    /// A receive is in flight whose bytes go to another connection.
    passing: bool,
    ended: Option<ErrorKind>,
}

impl SimRx {
    fn new(socket: Rc<EndHandle>, pool: Pool) -> Self {
        Self {
            socket,
            pool,
            size: ReceiveSize::default(),
            touched: false,
            waiting: false,
            passing: false,
            ended: None,
        }
    }

    /// Receives bytes for another connection. The first limit holds while the receive is in flight.
    fn poll_pass(&mut self, cx: &Context<'_>, to: &mut SimTx, at_most: usize) -> Poll<usize> {
        (self.touched, self.passing) = (true, true);
        let EndHandle { shared, conn, side } = &*self.socket;
        let limit = at_most.min(BLOCK_BYTES[BLOCK_BYTES.len() - 1]);
        let received = ready!(shared.with(|kernel| {
            kernel.held(*conn, |conn, env| {
                conn.poll_recv(env, *side, limit, cx.waker())
            })
        }));
        self.passing = false;
        Poll::Ready(match received {
            Ok(bytes) if bytes.is_empty() => {
                self.ended = Some(ErrorKind::UnexpectedEof);
                0
            }
            Ok(bytes) => {
                to.push(self.pool.copy(&bytes));
                bytes.len()
            }
            Err(error) => {
                self.ended = Some(error.kind());
                0
            }
        })
    }
}

impl Rx for SimRx {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self.ended {
            Some(ErrorKind::UnexpectedEof) => return Poll::Ready(Ok(None)),
            Some(kind) => return Poll::Ready(Err(kind.into())),
            None => (self.touched, self.waiting) = (true, true),
        }
        let EndHandle { shared, conn, side } = &*self.socket;
        let limit = self.size.bytes();
        let received = ready!(shared.with(|kernel| {
            kernel.held(*conn, |conn, env| {
                conn.poll_recv(env, *side, limit, cx.waker())
            })
        }));
        (self.waiting, self.passing) = (false, false);
        Poll::Ready(match received {
            Ok(bytes) if bytes.is_empty() => {
                self.ended = Some(ErrorKind::UnexpectedEof);
                Ok(None)
            }
            Ok(bytes) => {
                self.size.adapt(bytes.len());
                // The block has the size asked for, as on a real system, however few bytes have arrived.
                let mut filling = self.pool.filling(limit.max(bytes.len()));
                filling.fill(&bytes);
                Ok(Some(filling.freeze()))
            }
            Err(error) => {
                self.ended = Some(error.kind());
                Err(error)
            }
        })
    }

    fn expect(&mut self, bytes: usize) {
        self.size = ReceiveSize::for_bytes(bytes);
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        let EndHandle { shared, conn, side } = &*self.socket;
        shared.with(|kernel| {
            kernel.conn(*conn, |conn, env| {
                let event = KernelEvent::Wake(conn.actor(*side), cx.waker().clone());
                env.events.push(env.now + LATER_NS, event);
            });
        });
    }
}

impl Drop for SimRx {
    fn drop(&mut self) {
        if !(self.waiting || self.passing) || self.ended.is_some() {
            return;
        }
        // Only a shutdown of the socket ends a receive in flight. Chance decides whether that ends the sending
        // direction too, unless the connection must end in a reset.
        let EndHandle { shared, conn, side } = &*self.socket;
        shared.with(|kernel| {
            kernel.conn(*conn, |conn, env| {
                conn.deafen(env, *side);
                if !conn.aborts(*side) && env.rng.chance(500) {
                    conn.finish(env, *side);
                }
            });
        });
    }
}

/// Sending half of a connection.
pub struct SimTx {
    socket: Rc<EndHandle>,
    queue: VecDeque<Chunk>,
    queued: usize,
    /// Something was pushed or ended at some time.
    touched: bool,
    /// The last bytes leave with the end.
    holds_back: bool,
    /// Some sends are left to a driver.
    has_driver: bool,
    ended: Option<ErrorKind>,
}

impl SimTx {
    fn new(socket: Rc<EndHandle>) -> Self {
        let EndHandle { shared, conn, .. } = &*socket;
        let mut has_driver = false;
        shared.with(|kernel| kernel.conn(*conn, |conn, _| has_driver = conn.has_driver()));
        Self {
            socket,
            queue: VecDeque::new(),
            queued: 0,
            touched: false,
            holds_back: false,
            has_driver,
            ended: None,
        }
    }

    fn advance(&mut self, n: usize) {
        self.queued -= n;
        advance_queue(&mut self.queue, n);
    }

    /// Leaves the queue to the driver's next batch, if chance wants that.
    #[cold]
    fn join_batch(&mut self) {
        if self.queued == 0 || self.holds_back || self.ended.is_some() {
            return;
        }
        let EndHandle { shared, conn, side } = &*self.socket;
        let (queue, bytes) = (&self.queue, self.queued);
        let mut is_batched = false;
        shared.with(|kernel| {
            kernel.conn(*conn, |conn, env| {
                is_batched = conn.may_batch(env, *side, bytes);
                if is_batched {
                    conn.batch(env, *side, &first_bytes(queue, bytes));
                }
            });
        });
        if is_batched {
            self.advance(bytes);
        }
    }

    #[cold] // Keeps counts of instructions without faults comparable.
    fn left_to_driver(&self) -> usize {
        let EndHandle { shared, conn, side } = &*self.socket;
        let mut left = 0;
        shared.with(|kernel| kernel.conn(*conn, |conn, env| left = conn.left(env.now, *side)));
        left
    }

    fn leave_batch(&self) {
        if !self.has_driver {
            return;
        }
        let EndHandle { shared, conn, side } = &*self.socket;
        shared.with(|kernel| kernel.conn(*conn, |conn, _| conn.leave_batch(*side)));
    }
}

impl Tx for SimTx {
    fn push(&mut self, chunk: Chunk) {
        self.touched = true;
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.queue.push_back(chunk);
        }
    }

    fn queued(&self) -> usize {
        match self.has_driver {
            true => self.queued + self.left_to_driver(),
            false => self.queued,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.touched = true;
        if self.has_driver {
            self.join_batch();
        }
        loop {
            if let Some(kind) = self.ended {
                return Poll::Ready(Err(kind.into()));
            }
            if self.queued() == 0 {
                return Poll::Ready(Ok(()));
            }
            let EndHandle { shared, conn, side } = &*self.socket;
            let queue = &self.queue;
            let sent = ready!(shared.with(|kernel| {
                kernel.held(*conn, |conn, env| {
                    let most = conn.send_bytes_max();
                    conn.poll_send(env, *side, || first_bytes(queue, most), cx.waker())
                })
            }));
            match sent {
                Ok(n) => {
                    self.advance(n);
                    if self.queued == 0 && self.holds_back {
                        let EndHandle { shared, conn, side } = &*self.socket;
                        shared.with(|kernel| kernel.conn(*conn, |conn, _| conn.hold_back(*side)));
                    }
                }
                Err(error) => {
                    self.ended = Some(error.kind());
                    self.queue.clear();
                    self.queued = 0;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn hold_for_end(&mut self) {
        self.holds_back = true;
        self.leave_batch();
    }

    fn has_sent_all(&mut self) -> bool {
        self.leave_batch();
        self.queued() == 0
    }

    fn finish(&mut self) {
        self.touched = true;
        if self.ended.is_some() {
            return;
        }
        assert_eq!(
            self.queued, 0,
            "finish was called before what is queued was sent"
        );
        let EndHandle { shared, conn, side } = &*self.socket;
        shared.with(|kernel| kernel.conn(*conn, |conn, env| conn.finish(env, *side)));
    }

    fn abort(&mut self) {
        self.touched = true;
        self.ended = Some(ErrorKind::ConnectionAborted);
        let EndHandle { shared, conn, side } = &*self.socket;
        shared.with(|kernel| kernel.conn(*conn, |conn, _| conn.set_abort(*side)));
    }
}

impl Drop for SimTx {
    fn drop(&mut self) {
        if self.queued() == 0 || self.ended.is_some() {
            return;
        }
        // Torn down with unsent bytes and without `abort`: the peer may see a reset or, worse, an orderly end.
        let EndHandle { shared, conn, side } = &*self.socket;
        shared.with(|kernel| {
            kernel.conn(*conn, |conn, env| {
                if env.rng.chance(500) {
                    conn.set_abort(*side);
                }
            });
        });
    }
}

fn first_bytes(queue: &VecDeque<Chunk>, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in queue {
        let n = chunk.len().min(most - bytes.len());
        bytes.extend_from_slice(&chunk[..n]);
        if bytes.len() == most {
            break;
        }
    }
    bytes
}

/// A connect or accept in flight, cancelled when dropped.
struct PendingOperation {
    shared: Arc<SharedKernel>,
    op: OpId,
}

impl Future for PendingOperation {
    type Output = io::Result<ConnId>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<ConnId>> {
        self.shared
            .with(|kernel| kernel.poll_op(self.op, cx.waker()))
    }
}

impl Drop for PendingOperation {
    fn drop(&mut self) {
        self.shared.with(|kernel| kernel.cancel_op(self.op));
    }
}

/// A sleep; once dropped, it wakes no task.
struct Sleep {
    net: Sim,
    at: Instant,
    key: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { net, at, key } = &mut *self;
        let event = KernelEvent::Wake(net.core.actor, cx.waker().clone());
        net.shared().with(|kernel| {
            let env = &mut kernel.env;
            if env.now >= at.0 {
                return Poll::Ready(());
            }
            match *key {
                Some(key) => env.events.replace(key, event),
                None if *at == Instant::NEVER => {}
                None => {
                    let late = env.rng.below(TIMER_NS) as u64;
                    *key = Some(env.events.push(at.0.saturating_add(late), event));
                }
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.net
                .shared()
                .with(|kernel| kernel.env.events.remove(key));
        }
    }
}
