//! Serving: the cores, the commands that control sends them, and the life of a client's connection.
//!
//! [`CoreServer`] is one core with everything that serves clients: listeners, the current plan, the mailbox. Other
//! threads send messages to its [`Mailbox`]; beside that, they share with it the counters and the board of
//! [`SharedState`].

// Bytes and indices come from the network: none may panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod accept;
mod boot;
mod client_connection;
mod connection;
mod endpoint_board;
mod http2;
mod idle_connection;
mod mailbox;
mod server;

pub use boot::{CoreSpec, CoreStart, Cores, SharedState, run};
pub use endpoint_board::{EndpointBoard, PostedEndpoints};
pub use idle_connection::IdleConnection;
pub use mailbox::{Command, ListenerShare, Mailbox, MailboxSender, Receipt, Receipts};
pub use server::CoreServer;
