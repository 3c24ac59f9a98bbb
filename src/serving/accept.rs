//! The listeners of a core. The core accepts connections, and serves them or hands them to another core.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;

use super::CoreServer;
use super::connection;
use super::mailbox::{ListenerShare, MailboxMessage, Receipt};
use crate::core::{Admission, Core, CoreListener, Timer};
use crate::exchange;
use crate::io::{Address, Connection, Instant, Net};
use crate::l4::UdpListener;
use crate::limits::{
    ACCEPT_RETRY_MS, ACCEPTS_AT_ONCE_MAX, CLOSING_LISTENER_ACCEPTS_MAX, CLOSING_LISTENER_MS,
    LISTENER_SETTLE_MS,
};
use crate::obs::{CoreReport, LogLevel};
use crate::plan::{ListenerId, ListenerPlan, Plan, Transport};
use crate::tls;

/// A listener that is open or closing.
pub(super) struct OpenListener<N: Net> {
    listener: Rc<CoreListener>,
    /// `None` once the listener is closing, and for datagrams.
    socket: RefCell<Option<Rc<N::Listener>>>,
    datagrams: Option<Rc<UdpListener<N>>>,
}

impl<N: Net> CoreServer<N> {
    /// Listens on sockets that control has bound.
    pub(super) fn open_listeners(self: &Rc<Self>, sockets: Vec<(ListenerId, N::Socket)>) {
        let (core, plan) = (&self.core, self.plan());
        for (id, socket) in sockets {
            let Some(listener) = plan.plan.listeners.get(id.0 as usize) else {
                continue;
            };
            let failed = |error| {
                core.obs.borrow().report(CoreReport::ListenFailed {
                    core: core.index,
                    listener: listener.name.clone(),
                    error,
                });
            };
            if listener.transport() == Transport::Datagram {
                let socket = core.net.bind_datagrams(socket).map_err(failed);
                if let Ok(socket) = socket {
                    self.open_datagrams(CoreListener::new(id, listener, &core.counts), socket);
                }
                continue;
            }
            let Ok(socket) = core.net.listen(socket).map_err(failed) else {
                continue;
            };
            let socket = Rc::new(socket);
            let listener = CoreListener::new(id, listener, &core.counts);
            for _ in 0..N::ACCEPTS_POSTED {
                core.net
                    .spawn(self.clone().accept(listener.clone(), socket.clone()));
            }
            self.listeners.borrow_mut().push(OpenListener {
                listener,
                socket: RefCell::new(Some(socket)),
                datagrams: None,
            });
        }
    }

    /// Serves a listener for datagrams until it is closed and its last flow has ended.
    fn open_datagrams(self: &Rc<Self>, listener: Rc<CoreListener>, socket: N::Datagrams) {
        let (server, cores) = (self.clone(), self.shared.cores());
        let udp = UdpListener::new(&self.core, &listener, socket, cores, move || server.plan());
        self.listeners.borrow_mut().push(OpenListener {
            listener: listener.clone(),
            socket: RefCell::default(),
            datagrams: Some(udp.clone()),
        });
        let server = self.clone();
        self.core.net.spawn(async move {
            udp.run().await;
            server.forget_listener(&listener);
        });
    }

    fn forget_listener(&self, listener: &Rc<CoreListener>) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|other| !Rc::ptr_eq(&other.listener, listener));
        drop(listeners);
        self.core.wake_end();
    }

    /// Gives listeners their ids and settings in the new plan, and closes the listeners that it does not have. Drops
    /// `receipt` when these are closed.
    pub(super) fn renumber_listeners(self: &Rc<Self>, new: &Plan, receipt: &Receipt) {
        for open in self.listeners.borrow().iter() {
            let listener = &open.listener;
            if listener.is_leaving() {
                continue;
            }
            let mut numbered = new.listeners.iter().zip(0..);
            let is_its = |plan: &ListenerPlan| {
                plan.address == listener.address && plan.transport() == listener.transport
            };
            match numbered.find(|(plan, _)| is_its(plan)) {
                Some((plan, id)) => {
                    listener.id.set(ListenerId(id));
                    *listener.plan.borrow_mut() = Rc::new(plan.clone());
                }
                None => {
                    listener.retire();
                    self.close_listener(open, Some(receipt.clone()));
                }
            }
        }
        self.core.timers.wake_all();
    }

    /// Gives listeners their new certificates and keys.
    pub(super) fn equip_listeners(&self, tls: &tls::LoadedTls) {
        for OpenListener { listener, .. } in self.listeners.borrow().iter() {
            let server = tls.servers.get(listener.id.get().0 as usize);
            let mut plan = ListenerPlan::clone(&listener.plan.borrow());
            plan.tls = server.cloned().flatten();
            *listener.plan.borrow_mut() = Rc::new(plan);
        }
    }

    /// Closes all listeners.
    pub(super) fn close_listeners(self: &Rc<Self>) {
        for open in self.listeners.borrow().iter() {
            self.close_listener(open, None);
        }
    }

    /// Sends control another descriptor of each listening socket, for the process that takes over.
    pub(super) fn share_listeners(&self, to: &mpsc::UnboundedSender<ListenerShare>) {
        for open in self.listeners.borrow().iter() {
            let socket = open.socket.borrow();
            let shared = match (&*socket, &open.datagrams) {
                (Some(socket), _) => Some(self.core.net.share_listener(socket)),
                (None, Some(udp)) if !open.listener.is_leaving() => Some(udp.share()),
                (None, _) => None,
            };
            if let Some(socket) = shared {
                // If control no longer waits, the descriptor is closed again.
                let _ = to.send(ListenerShare {
                    address: open.listener.address.clone(),
                    transport: open.listener.transport,
                    socket,
                });
            }
        }
    }

    /// Stops accepting, because another process accepts from the same sockets now. Connections stay.
    pub(super) fn leave_listeners(&self) {
        for open in self.listeners.borrow().iter() {
            open.listener.hand_over();
            if let Some(socket) = open.socket.take() {
                self.core.net.leave_listener(&socket);
            }
        }
        self.core.wake_accepts();
    }

    /// Closes a listener after accepting every connection that the kernel has established.
    fn close_listener(self: &Rc<Self>, open: &OpenListener<N>, receipt: Option<Receipt>) {
        if open.listener.leave() {
            return;
        }
        if open.listener.transport == Transport::Datagram {
            // Flows go on; its task ends with the last of them.
            return self.core.timers.wake_all();
        }
        self.core.wake_accepts();
        let (server, listener, socket) = (self.clone(), open.listener.clone(), open.socket.take());
        self.core.net.spawn(async move {
            if let Some(socket) = socket {
                server.empty_queue(&listener, &socket).await;
                server.core.net.close_listener(&socket);
            }
            server.forget_listener(&listener);
            drop(receipt);
        });
    }

    /// Accepts the connections in a listener's queue, so that the kernel resets none of them. First gives TCP
    /// handshakes that have begun [`LISTENER_SETTLE_MS`] to complete. Accepts at most [`CLOSING_LISTENER_ACCEPTS_MAX`]
    /// connections, for [`CLOSING_LISTENER_MS`].
    async fn empty_queue(self: &Rc<Self>, listener: &Rc<CoreListener>, socket: &N::Listener) {
        let core = &self.core;
        core.net.stop_listening(socket);
        let timer = core.timers.timer();
        let settled = core.net.now() + Duration::from_millis(LISTENER_SETTLE_MS);
        pause(core, &timer, settled).await;
        let end = settled + Duration::from_millis(CLOSING_LISTENER_MS);
        let mut accepted = 0;
        while accepted < CLOSING_LISTENER_ACCEPTS_MAX && core.net.now() < end && !core.is_stopping()
        {
            match core.net.accept_queued(socket) {
                Ok(None) => return,
                Ok(Some(connection)) => {
                    accepted += 1;
                    self.admit(listener, connection);
                    if accepted % ACCEPTS_AT_ONCE_MAX == 0 {
                        // Other tasks run in between.
                        core.net.sleep_until(core.net.now()).await;
                    }
                }
                Err(_) => {
                    core.obs.borrow().accept_error();
                    let then = core.net.now() + Duration::from_millis(ACCEPT_RETRY_MS);
                    pause(core, &timer, then).await;
                }
            }
        }
    }

    /// Accepts connections until the listener is closed.
    async fn accept(self: Rc<Self>, listener: Rc<CoreListener>, socket: Rc<N::Listener>) {
        let core = &self.core;
        let mut has_failed = false;
        loop {
            wait_for_room(core, &listener).await;
            match core.net.accept(&socket).await {
                Ok(connection) => {
                    has_failed = false;
                    // Other listeners and cores may have taken the room while this accept waited.
                    wait_for_room(core, &listener).await;
                    self.place(&listener, connection);
                }
                Err(_) if listener.accepts_no_more() => return,
                Err(error) => {
                    core.obs.borrow().accept_error();
                    let text = format!("accept on {}: {error}", listener.plan.borrow().name);
                    core.obs.borrow().say(LogLevel::Warn, &text);
                    // One failure may be a client that has left already, so accept the next. Two in a row mean that the
                    // core is out of descriptors or memory, so pause: clients wait in the kernel's queue.
                    if mem::replace(&mut has_failed, true) {
                        let then = core.net.now() + Duration::from_millis(ACCEPT_RETRY_MS);
                        core.net.sleep_until(then).await;
                    }
                }
            }
        }
    }

    /// Serves a fresh connection on this core, or hands it to another core if this core has more than its share.
    fn place(self: &Rc<Self>, listener: &Rc<CoreListener>, connection: Connection<N>) {
        let core = &self.core;
        let other = core.counts.less_loaded(core.index);
        // Another core may have closed this listener already.
        let other = other.filter(|_| !listener.is_leaving());
        let sender = |other| Some((other, self.shared.senders.get(other)?));
        let Some((other, sender)) = other.and_then(sender) else {
            return self.admit(listener, connection);
        };
        let parcel = match core.net.pack(connection) {
            Ok(parcel) => parcel,
            Err(connection) => return self.admit(listener, connection),
        };
        core.counts.begin_transfer(other);
        let message = MailboxMessage::Connection(listener.address.clone(), parcel);
        match sender.post(message) {
            Ok(()) => core.obs.borrow().handed_on(),
            Err(message) => {
                core.counts.end_transfer(other);
                core.obs.borrow().mailbox_full();
                if let MailboxMessage::Connection(_, parcel) = message {
                    self.adopt(&listener.address, parcel);
                }
            }
        }
    }

    /// Serves a connection that another core has accepted.
    pub(super) fn adopt(self: &Rc<Self>, address: &Address, parcel: N::PackedConnection) {
        let core = &self.core;
        let listener = {
            let listeners = self.listeners.borrow();
            let all = listeners.iter().map(|open| &open.listener);
            let accepts = |listener: &&Rc<CoreListener>| listener.transport == Transport::Stream;
            let same = all.filter(|listener| listener.address == *address);
            let same = same.filter(accepts);
            same.min_by_key(|listener| listener.is_leaving()).cloned()
        };
        if let (Some(listener), Ok(connection)) = (listener, core.net.unpack(parcel)) {
            core.obs.borrow().taken_over();
            self.admit(&listener, connection);
        }
    }

    /// Serves a connection if the limits allow it, else refuses it.
    fn admit(self: &Rc<Self>, listener: &Rc<CoreListener>, connection: Connection<N>) {
        let core = &self.core;
        let (reads_http, is_behind_balancer) = {
            let plan = listener.plan.borrow();
            let reads_http = plan.is_http() && plan.tls.is_none();
            (reads_http, plan.proxy_protocol.is_some())
        };
        // A load balancer names the client only later, in its header.
        let client = connection.peer.filter(|_| !is_behind_balancer);
        match Admission::new(core, listener, client.map(|client| client.ip())) {
            Ok(admission) => {
                let served = connection::serve(self.clone(), admission, connection);
                core.net.spawn(served);
            }
            Err(reason) if !reads_http => {
                // The client could not read an answer of HTTP in the clear, and a handshake costs more than a refusal
                // is worth.
                let peer = connection.peer.map(|peer| peer.ip());
                let plan = listener.plan.borrow().clone();
                exchange::report_turned_away(core, (listener.id.get(), &plan), peer, reason);
            }
            Err(reason) => {
                let refused =
                    connection::refuse(self.clone(), listener.id.get(), connection, reason);
                core.net.spawn(refused);
            }
        }
    }
}

/// Waits until all cores together have fewer connections than the plan allows. Clients wait in the kernel's queue
/// meanwhile, because an accepted connection that fails for lack of a descriptor helps no client.
async fn wait_for_room<N: Net>(core: &Core<N>, listener: &CoreListener) {
    poll_fn(|cx| {
        if listener.accepts_no_more() || core.has_room() {
            return Poll::Ready(());
        }
        core.wait_for_room(cx);
        Poll::Pending
    })
    .await;
}

/// Waits until `until`, or until the core stops.
async fn pause<N: Net>(core: &Core<N>, timer: &Timer, until: Instant) {
    timer.set(until);
    poll_fn(|cx| {
        timer.watch(cx);
        match core.is_stopping() || core.net.now() >= until {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
