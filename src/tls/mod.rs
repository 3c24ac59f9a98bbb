//! TLS: termination, connections to endpoints, certificate files and session tickets. Only this module names rustls.
//!
//! Control loads and validates files ([`load`]); cores only make connections from the result. [`TlsRx`] and [`TlsTx`]
//! wrap the halves of a connection and keep the promises of the I/O seam, so the code above them works on plain and TLS
//! connections alike.
#![forbid(unsafe_code)]

mod certificate_identity;
mod client;
mod failure;
mod fetch;
mod halves;
mod incoming_records;
mod keyed_hash;
mod load;
mod parameters;
mod provider;
mod requested_name;
mod self_signed;
mod server;
mod session;
mod ticket_keys;

pub use certificate_identity::CertificateIdentity;
pub(crate) use certificate_identity::span;
pub use client::{TlsClient, TlsName};
pub use failure::TlsFailure;
pub use fetch::{CheckTls, FetchTls, check_authorities};
pub use halves::{TlsRx, TlsTx};
pub use keyed_hash::{MARK_BYTES, Mark, Marker};
pub use load::{FileStamp, LoadedTls, OwnCertificate, load, load_available};
pub use parameters::{AlpnProtocol, TlsParameters};
pub use self_signed::self_signed;
pub use server::TlsServer;
pub use ticket_keys::{ExportedTicketKeys, TicketKeys};
