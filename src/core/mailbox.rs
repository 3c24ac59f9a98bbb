//! What other threads have to say to a core: a bounded lock-free queue and a doorbell.
//!
//! Control sends commands; other cores hand connections on. A full queue never blocks the sender: it is told, counts
//! it and keeps what it wanted to send.

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;

use super::Core;
use crate::io::{Address, Bell, Net, Rx};
use crate::limits::{LETTERS_AT_ONCE_MAX, MAILBOX_LETTERS_MAX};
use crate::plan::{ListenerId, Plan};
use crate::tls;
use crate::upstream::Note;

/// What control asks of a core; `S` is a listening socket.
pub enum Command<S> {
    /// Runs this plan from the next exchange on, and listens on these sockets besides.
    Plan {
        /// The plan.
        plan: Arc<Plan>,
        /// Sockets of listeners that are new in it.
        sockets: Vec<(ListenerId, S)>,
        /// Dropped when that is so, and listeners that are not in it any more are closed.
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

pub(super) enum Letter<N: Net> {
    Command(Command<N::Socket>),
    Connection(Address, N::PackedConnection),
    Note(Note),
}

/// The sender's side of a core's mailbox.
pub struct Mail<N: Net> {
    queue: Arc<ArrayQueue<Letter<N>>>,
    bell: N::Bell,
}

impl<N: Net> Clone for Mail<N> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<N: Net> Mail<N> {
    /// Sends a command.
    ///
    /// # Errors
    /// The mailbox is full: the command comes back.
    pub fn send(&self, command: Command<N::Socket>) -> Result<(), Command<N::Socket>> {
        self.post(Letter::Command(command))
            .map_err(|letter| match letter {
                Letter::Command(command) => command,
                Letter::Connection(..) | Letter::Note(_) => {
                    unreachable!("what comes back is what was sent")
                }
            })
    }

    /// Wakes the core, which then opens its gate for handshakes.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    pub(super) fn post(&self, letter: Letter<N>) -> Result<(), Letter<N>> {
        self.queue.push(letter)?;
        self.bell.ring();
        Ok(())
    }
}

/// The core's side of its mailbox.
pub struct Mailbox<N: Net> {
    queue: Arc<ArrayQueue<Letter<N>>>,
    ear: N::Rx,
}

impl<N: Net> Mailbox<N> {
    /// Makes a mailbox in this core's world.
    ///
    /// # Errors
    /// Out of file descriptors for the doorbell.
    pub fn new(net: &N) -> std::io::Result<(Mail<N>, Self)> {
        let (bell, ear) = net.bell()?;
        let queue = Arc::new(ArrayQueue::new(MAILBOX_LETTERS_MAX));
        Ok((
            Mail {
                queue: queue.clone(),
                bell,
            },
            Self { queue, ear },
        ))
    }

    /// Answers letters for as long as the core lives.
    pub(super) async fn serve(mut self, core: Rc<Core<N>>) {
        loop {
            let mut letters = 0;
            while letters < LETTERS_AT_ONCE_MAX
                && let Some(letter) = self.queue.pop()
            {
                letters += 1;
                match letter {
                    Letter::Command(command) => core.obey(command),
                    Letter::Connection(door, parcel) => core.adopt(&door, parcel),
                    Letter::Note(note) => core.places.hear(note),
                }
            }
            if letters == LETTERS_AT_ONCE_MAX {
                // Other cores may post as fast as letters are taken.
                self.ear.let_others_run().await;
                continue;
            }
            if !matches!(poll_fn(|cx| self.ear.poll_recv(cx)).await, Ok(Some(_))) {
                return;
            }
            core.handshake_queue.open();
        }
    }
}
