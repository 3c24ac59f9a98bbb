//! A core's mailbox: a bounded lock-free queue and a doorbell.
//!
//! Control sends commands; other cores hand over connections and send notices. A full queue never blocks the sender: it
//! gets its message back and counts the failure.

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;

use super::CoreServer;
use crate::io::{Address, Bell, Net, Rx, SharedSocket};
use crate::limits::{MAILBOX_MESSAGES_AT_ONCE_MAX, MAILBOX_MESSAGES_MAX};
use crate::plan::{EndpointSets, ListenerId, Plan, Transport};
use crate::shared::count_shared_write;
use crate::tls;
use crate::upstream::SlotNotice;

/// A command from control to a core. `S` is the type of a listening socket.
pub enum Command<S> {
    /// Run this plan from the next exchange on, and listen on these sockets too.
    Plan {
        /// The plan.
        plan: Arc<Plan>,
        /// The endpoints of its upstreams.
        endpoints: Arc<EndpointSets>,
        /// Sockets of its new listeners.
        sockets: Vec<(ListenerId, S)>,
        /// The core drops the receipt once it runs the plan and has closed the listeners that the plan no longer has.
        receipt: Receipt,
    },
    /// Use these endpoints from the next exchange on. The plan stays. A core that misses the command
    /// finds the endpoints on the [`EndpointBoard`](super::EndpointBoard).
    Endpoints {
        /// By upstream of the plan with this `epoch`.
        endpoints: Arc<EndpointSets>,
        /// A core that runs another plan ignores the command: that plan brought its own.
        epoch: u64,
        /// The core drops it when it uses them.
        receipt: Receipt,
    },
    /// Drop the receipt, which shows that the core runs.
    Answer {
        /// The core drops it when it reads the command.
        _receipt: Receipt,
    },
    /// Use these certificates and keys for new connections.
    Tls {
        /// By listener and upstream of the plan with this `epoch`.
        tls: Arc<tls::LoadedTls>,
        /// A core that runs another plan ignores the command: that plan brought its own.
        epoch: u64,
        /// The core drops it when it uses them.
        receipt: Receipt,
    },
    /// Send another descriptor of each listening socket, for a process that takes over.
    ShareListeners {
        /// The core drops it when it has sent all.
        to: mpsc::UnboundedSender<ListenerShare>,
    },
    /// Stop accepting, because another process accepts from the same sockets. Connections stay.
    LeaveListeners {
        /// The core drops it when it accepts no more.
        _receipt: Receipt,
    },
    /// Write `Connection: close` into HTTP/1.1 answers from now on.
    AnnounceEnd,
    /// Stop accepting, let exchanges finish, end after `grace` at the latest.
    Drain {
        /// How long exchanges may take.
        grace: Duration,
    },
    /// End at once.
    Stop,
}

/// A listening socket of a core, for a process that takes over.
pub struct ListenerShare {
    /// The listener's address in the configuration.
    pub address: Address,
    /// What the socket carries.
    pub transport: Transport,
    /// The socket, unless descriptors have run out.
    pub socket: std::io::Result<SharedSocket>,
}

/// Confirms a command. The core drops the receipt when it has carried out the command, or when the core ends.
#[derive(Clone)]
pub struct Receipt {
    _held: mpsc::Sender<Infallible>,
}

/// Waits until every copy of a receipt is dropped.
pub struct Receipts(mpsc::Receiver<Infallible>);

impl Receipts {
    /// Makes a receipt, to copy for each core, and the `Receipts` that wait for all copies.
    pub fn new() -> (Receipt, Self) {
        let (held, all) = mpsc::channel(1);
        (Receipt { _held: held }, Self(all))
    }

    /// Waits until every copy is dropped.
    pub async fn all(mut self) {
        self.0.recv().await;
    }
}

/// A message to a core.
pub(super) enum MailboxMessage<N: Net> {
    Command(Command<N::Socket>),
    /// A connection that another core has accepted at the listener with this address.
    Connection(Address, N::PackedConnection),
    Notice(SlotNotice),
}

/// The sender's side of a core's mailbox.
pub struct MailboxSender<N: Net> {
    queue: Arc<ArrayQueue<MailboxMessage<N>>>,
    bell: N::Bell,
}

impl<N: Net> Clone for MailboxSender<N> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<N: Net> MailboxSender<N> {
    /// Sends a command.
    ///
    /// # Errors
    /// The mailbox is full. The caller gets the command back.
    pub fn send(&self, command: Command<N::Socket>) -> Result<(), Command<N::Socket>> {
        self.post(MailboxMessage::Command(command))
            .map_err(|message| match message {
                MailboxMessage::Command(command) => command,
                MailboxMessage::Connection(..) | MailboxMessage::Notice(_) => {
                    unreachable!("a full mailbox returns the message")
                }
            })
    }

    /// Wakes the core, which then reads the health of endpoints and lets more TLS handshakes continue.
    pub fn ring(&self) {
        count_shared_write();
        self.bell.ring();
    }

    /// Sends a message, or returns it if the mailbox is full.
    pub(super) fn post(&self, message: MailboxMessage<N>) -> Result<(), MailboxMessage<N>> {
        count_shared_write();
        self.queue.push(message)?;
        self.ring();
        Ok(())
    }
}

/// The core's side of its mailbox.
pub struct Mailbox<N: Net> {
    queue: Arc<ArrayQueue<MailboxMessage<N>>>,
    bell: N::Bell,
    rings: N::Rx,
}

impl<N: Net> Mailbox<N> {
    /// Makes a mailbox for the core of `net`.
    ///
    /// # Errors
    /// There is no descriptor left for the doorbell.
    pub fn new(net: &N) -> std::io::Result<(MailboxSender<N>, Self)> {
        let (bell, rings) = net.bell()?;
        let queue = Arc::new(ArrayQueue::new(MAILBOX_MESSAGES_MAX));
        Ok((
            MailboxSender {
                queue: queue.clone(),
                bell: bell.clone(),
            },
            Self { queue, bell, rings },
        ))
    }

    /// Handles messages for as long as the core lives.
    pub(super) async fn serve(mut self, server: Rc<CoreServer<N>>) {
        loop {
            // Before the messages: however many there are, the core knows within one turn which endpoints are down.
            server.upstreams.read_statuses(server.core.net.now());
            let mut messages = 0;
            while messages < MAILBOX_MESSAGES_AT_ONCE_MAX
                && let Some(message) = self.queue.pop()
            {
                messages += 1;
                count_shared_write();
                match message {
                    MailboxMessage::Command(command) => server.execute(command),
                    MailboxMessage::Connection(address, parcel) => {
                        server.adopt(&address, parcel);
                        server.core.counts.end_transfer(server.core.index);
                    }
                    MailboxMessage::Notice(note) => server.upstreams.receive_notice(note),
                }
            }
            if messages == MAILBOX_MESSAGES_AT_ONCE_MAX {
                // Other cores may post as fast as this core reads, so let its other tasks run.
                self.rings.let_others_run().await;
                continue;
            }
            if !matches!(poll_fn(|cx| self.rings.poll_recv(cx)).await, Ok(Some(_))) {
                return;
            }
            self.bell.heard();
            server.core.grant_work();
        }
    }
}
