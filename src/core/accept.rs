//! Where connections come in: doors, who may pass, and which core serves whom.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Core;
use super::boot::{DoorCount, Shared};
use super::mailbox::{Letter, Receipt};
use super::timers::Timer;
use crate::conn;
use crate::exchange;
use crate::fault::Reason;
use crate::io::{Address, Connection, Instant, Net};
use crate::limits::{
    ACCEPT_RETRY_MS, ACCEPTS_AT_ONCE_MAX, ACCEPTS_POSTED, CONNECTION_REST_BYTES,
    LISTENER_EMPTY_MAX, LISTENER_EMPTY_MS, LISTENER_SETTLE_MS, SPREAD_MIN, SPREAD_PERCENT_MAX,
};
use crate::obs::LogLevel;
use crate::plan::{ListenerId, ListenerPlan, Plan};
use crate::tls;

/// One listener on one core. Its connections hold on to it, also when it no longer listens.
pub struct Door<N: Net> {
    /// Its place in the plan of the day, for events.
    pub id: Cell<ListenerId>,
    /// Its settings by the plan of the day.
    pub plan: RefCell<Rc<ListenerPlan>>,
    /// The listener is gone or going: connections end after the exchange that they are in.
    is_leaving: Cell<bool>,
    address: Address,
    listener: RefCell<Option<Rc<N::Listener>>>,
    count: Arc<DoorCount>,
}

/// The id that events of a listener carry that the plan no longer has.
const GONE: ListenerId = ListenerId(u32::MAX);

impl<N: Net> Core<N> {
    /// Listens on sockets that control has bound.
    pub(super) fn open_doors(self: &Rc<Self>, sockets: Vec<(ListenerId, N::Socket)>) {
        let plan = self.plan();
        for (id, socket) in sockets {
            let Some(listener) = plan.plan.listeners.get(id.0 as usize) else {
                continue;
            };
            let opened = match self.net.listen(socket) {
                Ok(opened) => Rc::new(opened),
                Err(error) => {
                    let text = format!(
                        "core {} cannot listen on {}: {error}",
                        self.index, listener.name
                    );
                    self.obs.borrow().say(LogLevel::Error, &text);
                    continue;
                }
            };
            let door = Rc::new(Door {
                id: Cell::new(id),
                plan: RefCell::new(Rc::new(listener.clone())),
                is_leaving: Cell::new(false),
                address: listener.address.clone(),
                listener: RefCell::new(Some(opened.clone())),
                count: self.shared.count(&listener.address),
            });
            for _ in 0..ACCEPTS_POSTED {
                self.net
                    .spawn(self.clone().accept(door.clone(), opened.clone()));
            }
            self.doors.borrow_mut().push(door);
        }
    }

    /// Gives the doors their places in the new plan and closes those that it does not have. `receipt` is dropped when
    /// these are closed.
    pub(super) fn renumber_doors(self: &Rc<Self>, new: &Plan, receipt: &Receipt) {
        for door in self.doors.borrow().iter() {
            let place = new.listeners.iter().position(|l| l.address == door.address);
            match place {
                _ if door.is_leaving.get() => {}
                Some(i) => {
                    door.id.set(ListenerId(i as u32));
                    *door.plan.borrow_mut() = Rc::new(new.listeners[i].clone());
                }
                None => {
                    door.id.set(GONE);
                    self.close_door(door, Some(receipt.clone()));
                }
            }
        }
        self.timers.wake_all();
    }

    /// Gives the doors what they terminate TLS with from now on.
    pub(super) fn equip_doors(&self, tls: &tls::LoadedTls) {
        for door in self.doors.borrow().iter() {
            let server = tls.servers.get(door.id.get().0 as usize).cloned().flatten();
            let mut plan = ListenerPlan::clone(&door.plan.borrow());
            plan.tls = server;
            *door.plan.borrow_mut() = Rc::new(plan);
        }
    }

    /// Closes all doors.
    pub(super) fn close_doors(self: &Rc<Self>) {
        for door in self.doors.borrow().iter() {
            self.close_door(door, None);
        }
    }

    /// Closes a door once everybody who has come to it is in.
    fn close_door(self: &Rc<Self>, door: &Rc<Door<N>>, receipt: Option<Receipt>) {
        if door.is_leaving.replace(true) {
            return;
        }
        let waiting = self.waiting_for_room.take();
        waiting.into_iter().for_each(Waker::wake);
        let (core, door) = (self.clone(), door.clone());
        self.net.spawn(async move {
            if let Some(listener) = door.listener.take() {
                core.empty_queue(&door, &listener).await;
                core.net.close_listener(&listener);
            }
            core.doors
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, &door));
            core.wake_waiter();
            drop(receipt);
        });
    }

    /// Accepts what has come to a listener, so that a client whose connection was made gets no reset: first handshakes
    /// that have begun come to their end, then the queue is emptied. At most so many, and for so long.
    async fn empty_queue(self: &Rc<Self>, door: &Rc<Door<N>>, listener: &N::Listener) {
        self.net.stop_listening(listener);
        let timer = self.timers.timer();
        let settled = self.net.now() + Duration::from_millis(LISTENER_SETTLE_MS);
        self.pause(&timer, settled).await;
        let end = settled + Duration::from_millis(LISTENER_EMPTY_MS);
        let mut accepted = 0;
        while accepted < LISTENER_EMPTY_MAX && self.net.now() < end && !self.is_stopping() {
            match self.net.accept_queued(listener) {
                Ok(None) => return,
                Ok(Some(connection)) => {
                    accepted += 1;
                    self.admit(door, connection);
                    if accepted % ACCEPTS_AT_ONCE_MAX == 0 {
                        // Others have their turn in between.
                        self.net.sleep_until(self.net.now()).await;
                    }
                }
                Err(_) => {
                    self.obs.borrow().accept_error();
                    let then = self.net.now() + Duration::from_millis(ACCEPT_RETRY_MS);
                    self.pause(&timer, then).await;
                }
            }
        }
    }

    /// Waits until then, or until connections are to end at once.
    async fn pause(&self, timer: &Timer, until: Instant) {
        timer.set(until);
        poll_fn(|cx| {
            timer.watch(cx);
            match self.is_stopping() || self.net.now() >= until {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// One of the accepts that are posted for a door.
    async fn accept(self: Rc<Self>, door: Rc<Door<N>>, listener: Rc<N::Listener>) {
        loop {
            self.room(&door).await;
            match self.net.accept(&listener).await {
                Ok(connection) => {
                    // Others may have come first while this accept waited.
                    self.room(&door).await;
                    self.welcome(&door, connection);
                }
                Err(_) if door.is_leaving.get() => return,
                Err(error) => {
                    // Out of descriptors or memory, or a client that left already. Waiting a little keeps a lasting
                    // error from eating the core; connections wait in the kernel meanwhile.
                    self.obs.borrow().accept_error();
                    let text = format!("accept on {}: {error}", door.plan.borrow().name);
                    self.obs.borrow().say(LogLevel::Warn, &text);
                    let then = self.net.now() + Duration::from_millis(ACCEPT_RETRY_MS);
                    self.net.sleep_until(then).await;
                }
            }
        }
    }

    /// Waits until there are fewer connections, on all cores, than there may be. Clients wait in the kernel's queue
    /// meanwhile: a connection that is accepted and then fails for want of a descriptor helps nobody.
    async fn room(&self, door: &Door<N>) {
        poll_fn(|cx| {
            if door.is_leaving.get() || self.has_room() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting_for_room.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn has_room(&self) -> bool {
        let max = self.plan.borrow().plan.capacity.connections_max;
        self.has_memory() && self.shared.connections() < u64::from(max)
    }

    /// Has accepts go on that wait for room, if there is some: here, or on another core.
    pub(super) fn offer_room(&self) {
        if !self.waiting_for_room.borrow().is_empty() && self.has_room() {
            let waiting = self.waiting_for_room.take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Serves a fresh connection here, or hands it on if this core has more than its share.
    fn welcome(self: &Rc<Self>, door: &Rc<Door<N>>, connection: Connection<N>) {
        let other = self.shared.less_loaded(self.index);
        // Another core may have closed this door already.
        let Some(other) = other.filter(|_| !door.is_leaving.get()) else {
            return self.admit(door, connection);
        };
        match self.net.pack(connection) {
            Ok(parcel) => {
                self.shared.in_transit.fetch_add(1, Ordering::Relaxed);
                let letter = Letter::Connection(door.address.clone(), parcel);
                match self.shared.mails[other].post(letter) {
                    Ok(()) => self.obs.borrow().handed_on(),
                    Err(letter) => {
                        self.obs.borrow().mailbox_full();
                        if let Letter::Connection(_, parcel) = letter {
                            self.adopt(&door.address, parcel);
                        }
                    }
                }
            }
            Err(connection) => self.admit(door, connection),
        }
    }

    /// Serves a connection that another core has accepted.
    pub(super) fn adopt(self: &Rc<Self>, address: &Address, parcel: N::PackedConnection) {
        let door = {
            let doors = self.doors.borrow();
            let doors = doors.iter().filter(|door| door.address == *address);
            doors.min_by_key(|door| door.is_leaving.get()).cloned()
        };
        if let (Some(door), Ok(connection)) = (door, self.net.unpack(parcel)) {
            self.obs.borrow().taken_over();
            self.admit(&door, connection);
        }
        self.shared.in_transit.fetch_sub(1, Ordering::Relaxed);
    }

    fn admit(self: &Rc<Self>, door: &Rc<Door<N>>, connection: Connection<N>) {
        let plan = door.plan.borrow();
        let (is_tls, is_behind) = (plan.tls.is_some(), plan.proxy_protocol.is_some());
        drop(plan);
        // Behind a load balancer the client is known when that has named it.
        let client = connection.peer.filter(|_| !is_behind);
        match Pass::new(self, door, client.map(|client| client.ip())) {
            Ok(pass) => self.net.spawn(conn::serve(self.clone(), pass, connection)),
            Err(reason) => {
                if is_tls {
                    // An answer in the clear would be noise, and a handshake is more than a refusal is worth.
                    let peer = connection.peer.map(|peer| peer.ip());
                    exchange::turn_away(self, (door.id.get(), peer), reason);
                    return;
                }
                let refused = conn::refuse(self.clone(), door.id.get(), connection, reason);
                self.net.spawn(refused);
            }
        }
    }
}

/// The right of one connection to be here; dropping it counts the connection out.
pub struct Pass<N: Net> {
    core: Rc<Core<N>>,
    /// Through which door it came.
    pub door: Rc<Door<N>>,
    client: Option<IpAddr>,
}

impl<N: Net> Pass<N> {
    fn new(core: &Rc<Core<N>>, door: &Rc<Door<N>>, client: Option<IpAddr>) -> Result<Self, Reason> {
        let (max, per_client_max) = {
            let plan = door.plan.borrow();
            (plan.connections_max, plan.connections_per_client_max)
        };
        if door.count.connections.fetch_add(1, Ordering::Relaxed) >= max {
            door.count.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::ConnectionLimit);
        }
        if let Some(client) = client
            && !door.count.clients.enter(client, per_client_max)
        {
            door.count.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::ClientLimit);
        }
        core.obs.borrow().connection_opened(door.id.get());
        core.connections.set(core.connections.get() + 1);
        core.shared.set_load(core.index, core.connections.get());
        core.net.pool().add_charge(CONNECTION_REST_BYTES);
        Ok(Self {
            core: core.clone(),
            door: door.clone(),
            client,
        })
    }
}

impl<N: Net> Pass<N> {
    /// Counts the connection for the client that is now known.
    pub fn name_client(&mut self, client: IpAddr) -> Result<(), Reason> {
        let max = self.door.plan.borrow().connections_per_client_max;
        if self.client.is_none() {
            if !self.door.count.clients.enter(client, max) {
                return Err(Reason::ClientLimit);
            }
            self.client = Some(client);
        }
        Ok(())
    }

    /// Whether the connection is to end after the exchange that it is in.
    pub fn is_unwanted(&self) -> bool {
        self.core.is_draining() || self.door.is_leaving.get()
    }

    /// Whether the answer at hand is to be the connection's last, where it can say so.
    pub fn is_last_answer(&self) -> bool {
        self.core.is_ending() || self.is_unwanted()
    }
}

impl<N: Net> Drop for Pass<N> {
    fn drop(&mut self) {
        let core = &self.core;
        core.net.pool().drop_charge(CONNECTION_REST_BYTES);
        if let Some(client) = self.client {
            self.door.count.clients.leave(client);
        }
        self.door.count.connections.fetch_sub(1, Ordering::Relaxed);
        core.obs.borrow().connection_closed(self.door.id.get());
        core.connections.set(core.connections.get() - 1);
        core.shared.set_load(core.index, core.connections.get());
        core.offer_room();
        if core.connections.get() == 0 {
            core.wake_waiter();
        }
    }
}

impl<N: Net> Shared<N> {
    /// The core with the fewest connections, if `index` has so many more than the mean that handing one on is worth
    /// it (Seastar places each connection; here only the excess moves).
    fn less_loaded(&self, index: usize) -> Option<usize> {
        let n = self.loads.len();
        let mine = u64::from(self.loads[index].load(Ordering::Relaxed));
        if n < 2 || mine < SPREAD_MIN {
            return None;
        }
        let loads = self
            .loads
            .iter()
            .map(|load| u64::from(load.load(Ordering::Relaxed)));
        let sum: u64 = loads.clone().sum();
        if mine * n as u64 * 100 <= sum * SPREAD_PERCENT_MAX {
            return None;
        }
        loads
            .enumerate()
            .min_by_key(|&(_, load)| load)
            .map(|(i, _)| i)
            .filter(|&i| i != index)
    }

    /// Connections of all cores, and those on the way from one to another.
    fn connections(&self) -> u64 {
        let counts = self.loads.iter().chain([&self.in_transit]);
        counts
            .map(|count| u64::from(count.load(Ordering::Relaxed)))
            .sum()
    }

    /// Says how many connections a core has. Only the core itself does.
    fn set_load(&self, index: usize, connections: usize) {
        self.loads[index].store(connections as u32, Ordering::Relaxed);
    }
}
