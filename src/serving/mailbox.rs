//! A core's mailbox: a bounded lock-free queue and a doorbell.
//!
//! Control sends commands; other cores hand connections over. A full queue never blocks the sender, which gets its
//! message back and counts that.

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;

use super::CoreServer;
use crate::io::{Address, Bell, Net, Rx};
use crate::limits::{LETTERS_AT_ONCE_MAX, MAILBOX_LETTERS_MAX};
use crate::plan::{EndpointSets, ListenerId, Plan};
use crate::tls;
use crate::upstream::Note;

/// What control asks of a core; `S` is a listening socket.
pub enum Command<S> {
    /// Runs this plan from the next exchange on, and listens on these sockets besides.
    Plan {
        /// The plan.
        plan: Arc<Plan>,
        /// The endpoints of its upstreams.
        endpoints: Arc<EndpointSets>,
        /// Sockets of listeners that are new in it.
        sockets: Vec<(ListenerId, S)>,
        /// Dropped when that is so, and listeners that are not in it any more are closed.
        receipt: Receipt,
    },
    /// Has upstreams use these endpoints from the next exchange on. The plan stays.
    Endpoints {
        /// By upstream of the plan of `epoch`.
        endpoints: Arc<EndpointSets>,
        /// If the core runs another plan, that one has brought its own.
        epoch: u64,
        /// Dropped when that is so.
        receipt: Receipt,
    },
    /// Nothing but an answer: the core runs.
    Answer {
        /// Dropped when it is read.
        _receipt: Receipt,
    },
    /// Uses these certificates and keys for connections that begin from now on.
    Tls {
        /// By listener and upstream of the plan of `epoch`.
        tls: Arc<tls::LoadedTls>,
        /// If the core runs another plan, that one has brought its own.
        epoch: u64,
        /// Dropped when that is so.
        receipt: Receipt,
    },
    /// Answers over HTTP/1.1 say from now on that their connection ends.
    AnnounceEnd,
    /// Stops accepting, lets exchanges finish, ends after `grace` at the latest.
    Drain {
        /// How long exchanges may take.
        grace: Duration,
    },
    /// Ends at once.
    Stop,
}

/// Goes with a command, and says by being dropped that it was obeyed, or that the core has ended.
#[derive(Clone)]
pub struct Receipt {
    _held: mpsc::Sender<Infallible>,
}

/// Waits until all copies of a receipt are dropped.
pub struct Receipts(mpsc::Receiver<Infallible>);

impl Receipts {
    /// A receipt, to be copied for each core, and what waits for all of them.
    pub fn new() -> (Receipt, Self) {
        let (held, all) = mpsc::channel(1);
        (Receipt { _held: held }, Self(all))
    }

    /// Waits for all of them.
    pub async fn all(mut self) {
        self.0.recv().await;
    }
}

pub(super) enum MailboxMessage<N: Net> {
    Command(Command<N::Socket>),
    Connection(Address, N::PackedConnection),
    Note(Note),
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
    /// The mailbox is full: the command comes back.
    pub fn send(&self, command: Command<N::Socket>) -> Result<(), Command<N::Socket>> {
        self.post(MailboxMessage::Command(command))
            .map_err(|message| match message {
                MailboxMessage::Command(command) => command,
                MailboxMessage::Connection(..) | MailboxMessage::Note(_) => {
                    unreachable!("what comes back is what was sent")
                }
            })
    }

    /// Wakes the core, which then opens its handshake_queue for handshakes.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    pub(super) fn post(&self, message: MailboxMessage<N>) -> Result<(), MailboxMessage<N>> {
        self.queue.push(message)?;
        self.bell.ring();
        Ok(())
    }
}

/// The core's side of its mailbox.
pub struct Mailbox<N: Net> {
    queue: Arc<ArrayQueue<MailboxMessage<N>>>,
    doorbell: N::Rx,
}

impl<N: Net> Mailbox<N> {
    /// Makes a mailbox in this core's world.
    ///
    /// # Errors
    /// Out of file descriptors for the doorbell.
    pub fn new(net: &N) -> std::io::Result<(MailboxSender<N>, Self)> {
        let (bell, doorbell) = net.bell()?;
        let queue = Arc::new(ArrayQueue::new(MAILBOX_LETTERS_MAX));
        Ok((
            MailboxSender {
                queue: queue.clone(),
                bell,
            },
            Self { queue, doorbell },
        ))
    }

    /// Answers messages for as long as the core lives.
    pub(super) async fn serve(mut self, server: Rc<CoreServer<N>>) {
        loop {
            let mut messages = 0;
            while messages < LETTERS_AT_ONCE_MAX
                && let Some(message) = self.queue.pop()
            {
                messages += 1;
                match message {
                    MailboxMessage::Command(command) => server.obey(command),
                    MailboxMessage::Connection(address, parcel) => server.adopt(&address, parcel),
                    MailboxMessage::Note(note) => server.upstreams.hear(note),
                }
            }
            if messages == LETTERS_AT_ONCE_MAX {
                // Other cores may post as fast as messages are taken.
                self.doorbell.let_others_run().await;
                continue;
            }
            if !matches!(poll_fn(|cx| self.doorbell.poll_recv(cx)).await, Ok(Some(_))) {
                return;
            }
            server.core.handshake_queue.open();
        }
    }
}
