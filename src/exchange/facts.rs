//! What an exchange knows about its client.

use std::net::IpAddr;
use std::rc::Rc;

use crate::tls::CertificateIdentity;

/// The facts about the client. Edits, decisions and the log read them.
#[derive(Default)]
pub(super) struct Facts {
    /// The client's address: the peer's, or the one that a trusted proxy names.
    pub(super) client: Option<IpAddr>,
    /// The peer is a trusted proxy, so Weir believes what its fields say about the client.
    pub(super) trusts_peer: bool,
    /// The client used TLS, to Weir or to a trusted proxy.
    pub(super) is_https: bool,
    /// The request is a gRPC call.
    pub(super) is_grpc_call: bool,
    /// The identity in the client's certificate, if it showed one.
    pub(super) identity: Option<Rc<CertificateIdentity>>,
}
