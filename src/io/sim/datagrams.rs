//! Datagrams in the simulator: they may get lost, wait and overtake each other.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::kernel::{Env, KernelEvent, SharedKernel};
use super::trace::Actor;
use crate::io::{DatagramPath, DatagramTrain, Datagrams, SentDatagrams, SharedSocket};

/// Datagrams that a socket's queue holds.
const QUEUED_MAX: usize = 256;
/// Datagrams that one poll takes.
const AT_ONCE: usize = 8;
/// The delay after which a task that has used up its share continues.
const LATER_NS: u64 = 10_000;

/// A datagram under way.
pub(super) struct DatagramInTransit {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// All sockets for datagrams.
#[derive(Default)]
pub(super) struct DatagramSockets(BTreeMap<u64, DatagramSocket>);

/// A datagram that has arrived, with its sender.
type QueuedDatagram = (SocketAddr, Vec<u8>);

struct DatagramSocket {
    actor: Actor,
    local: SocketAddr,
    /// The only peer of a connected socket.
    peer: Option<SocketAddr>,
    queue: VecDeque<QueuedDatagram>,
    is_refused: bool,
    waker: Option<Waker>,
}

impl DatagramSockets {
    pub(super) fn open(
        &mut self,
        id: u64,
        actor: Actor,
        local: SocketAddr,
        peer: Option<SocketAddr>,
    ) {
        let socket = DatagramSocket {
            actor,
            local,
            peer,
            queue: VecDeque::new(),
            is_refused: false,
            waker: None,
        };
        self.0.insert(id, socket);
    }

    pub(super) fn close(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// How many sockets an actor has.
    pub(super) fn open_of(&self, actor: Actor) -> usize {
        self.0
            .values()
            .filter(|socket| socket.actor == actor)
            .count()
    }

    fn send(
        &self,
        id: u64,
        env: &mut Env,
        (bytes, to): (&[u8], Option<SocketAddr>),
        delay: u64,
    ) -> io::Result<()> {
        let socket = self.0.get(&id).ok_or(ErrorKind::NotConnected)?;
        let to = to.or(socket.peer).ok_or(ErrorKind::NotConnected)?;
        let datagram = DatagramInTransit {
            from: socket.local,
            to,
            bytes: bytes.to_vec(),
        };
        let at = env.now + delay;
        env.events
            .push(at, KernelEvent::Datagram(Box::new(datagram)));
        Ok(())
    }

    /// Puts a datagram into the queue of its socket: the connected one, else one that is bound to the address, always
    /// the same for a sender. If there is none, a connected sender learns it.
    pub(super) fn deliver(&mut self, env: &mut Env, datagram: DatagramInTransit) {
        let DatagramInTransit { from, to, bytes } = datagram;
        let is_for = |socket: &DatagramSocket, peer| socket.local == to && socket.peer == peer;
        let connected = self.0.iter().find(|(_, each)| is_for(each, Some(from)));
        let found = connected.map(|(id, _)| *id).or_else(|| {
            let bound = self.0.iter().filter(|(_, each)| is_for(each, None));
            let bound: Vec<u64> = bound.map(|(id, _)| *id).collect();
            let which = usize::from(from.port()) % bound.len().max(1);
            bound.get(which).copied()
        });
        let Some(socket) = found.and_then(|id| self.0.get_mut(&id)) else {
            let is_sender =
                |socket: &&mut DatagramSocket| socket.local == from && socket.peer == Some(to);
            if let Some(sender) = self.0.values_mut().find(is_sender) {
                sender.is_refused = true;
                env.wakes.extend(sender.waker.take());
            }
            return;
        };
        if socket.queue.len() < QUEUED_MAX {
            socket.queue.push_back((from, bytes));
        }
        env.wakes.extend(socket.waker.take());
    }

    /// Takes datagrams out of a socket's queue. `None`: there is none, and the task will be woken.
    fn take(&mut self, id: u64, waker: &Waker) -> io::Result<Option<Vec<QueuedDatagram>>> {
        let socket = self.0.get_mut(&id).ok_or(ErrorKind::NotConnected)?;
        if std::mem::take(&mut socket.is_refused) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        if socket.queue.is_empty() {
            socket.waker = Some(waker.clone());
            return Ok(None);
        }
        let count = socket.queue.len().min(AT_ONCE);
        Ok(Some(socket.queue.drain(..count).collect()))
    }
}

/// A socket for datagrams, closed when dropped.
pub struct SimDatagrams {
    pub(super) shared: Arc<SharedKernel>,
    pub(super) id: u64,
    pub(super) actor: Actor,
}

impl SimDatagrams {
    fn send_one(&self, bytes: &[u8], path: Option<&DatagramPath>) -> io::Result<()> {
        self.shared.with(|kernel| {
            if kernel.env.rng.chance(kernel.faults.lost_permille) {
                return Ok(());
            }
            let delay = kernel.faults.delay(&mut kernel.env.rng);
            let to = path.map(|path| path.peer);
            kernel
                .datagrams
                .send(self.id, &mut kernel.env, (bytes, to), delay)
        })
    }
}

impl Datagrams for SimDatagrams {
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(DatagramTrain<'_>, DatagramPath),
    ) -> Poll<io::Result<()>> {
        let taken = self.shared.with(|kernel| {
            kernel.env.begun += 1;
            kernel.datagrams.take(self.id, cx.waker())
        });
        let Some(taken) = taken? else {
            return Poll::Pending;
        };
        for (peer, bytes) in taken {
            let part = [IoSlice::new(&bytes)];
            let path = DatagramPath { peer, local: None };
            each(DatagramTrain::single(&part), path);
        }
        Poll::Ready(Ok(()))
    }

    fn send(&self, train: DatagramTrain<'_>, path: Option<&DatagramPath>) -> SentDatagrams {
        let mut sent = SentDatagrams {
            count: 0,
            error: None,
        };
        for datagram in train.datagrams() {
            match self.send_one(datagram, path) {
                Ok(()) => sent.count += 1,
                Err(error) => sent.error = Some(error),
            }
        }
        sent
    }

    fn share(&self) -> io::Result<SharedSocket> {
        // The simulator has one process.
        Err(ErrorKind::Unsupported.into())
    }

    fn wake_later(&self, cx: &Context<'_>) {
        self.shared.with(|kernel| {
            let event = KernelEvent::Wake(self.actor, cx.waker().clone());
            let at = kernel.env.now + LATER_NS;
            kernel.env.events.push(at, event);
        });
    }
}

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        self.shared.with(|kernel| kernel.datagrams.close(self.id));
    }
}
