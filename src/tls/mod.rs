//! TLS, the only module that names rustls: termination, connections to endpoints, files and tickets.
//!
//! Control loads and validates ([`load`]); a core only makes connections of what it is handed. [`TlsRx`] and [`TlsTx`]
//! wrap the halves of a connection and keep the promises of the seam, so that nothing above knows the difference.
#![forbid(unsafe_code)]

mod agreed;
mod client;
mod failure;
mod gate;
mod halves;
mod hello;
mod incoming;
mod load;
mod server;
mod session;
mod throw_away;
mod x509;

pub use agreed::{Agreed, Protocol};
pub use client::{Client, Name};
pub use failure::Failure;
pub use gate::Gate;
pub use halves::{TlsRx, TlsTx};
pub use load::{Certificate, Loaded, Stamp, load, load_what_is_here};
pub use server::{Server, Tickets};
pub use throw_away::throw_away;
pub use x509::Identity;
pub(crate) use x509::span;
