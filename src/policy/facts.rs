//! What steps know about a request and its client.

use std::net::IpAddr;
use std::rc::Rc;

use weir_proto_h1::Span;

use super::Claims;
use super::PolicyKind;
use super::forward_auth::AuthNotes;
use super::limit::{LimitStanding, Permits};
use crate::tls::CertificateIdentity;

/// The facts about a request that do not stand in its head as they are. Steps add to them; later steps, edits and the
/// log read them.
#[derive(Debug, Default)]
pub struct Facts {
    /// The client's address: the peer's, or the one that a trusted proxy names.
    pub client: Option<IpAddr>,
    /// The peer is a trusted proxy, so Weir believes what its fields say about the client.
    pub trusts_peer: bool,
    /// Where the head has the host that the client asked for, if a trusted proxy names it.
    pub forwarded_host: Option<Span>,
    /// The client used TLS, to Weir or to a trusted proxy.
    pub is_https: bool,
    /// The request is a gRPC call.
    pub is_grpc_call: bool,
    /// A copy of the request goes to another upstream.
    pub is_mirrored: bool,
    /// The identity in the client's certificate, if it showed one.
    pub identity: Option<Rc<CertificateIdentity>>,
    /// What a verified token says about the client. `None` until one is verified.
    pub claims: Option<Rc<Claims>>,
    /// The issuer of that token, by its place in the route's `jwt`.
    pub token_issuer: u32,
    /// How the tightest limit stands.
    pub limit_standing: Option<LimitStanding>,
    /// The last policy that would have refused the request but for its `dry_run`.
    pub would_refuse: Option<PolicyKind>,
    /// What steps keep for their later hooks. `None` until a step keeps something.
    pub notes: Option<Box<Notes>>,
}

impl Facts {
    /// Takes the claims of the token, and the place of its issuer among the rules that verified it. Other rules may
    /// verify the token then.
    pub fn take_token(&mut self) -> (Option<Rc<Claims>>, u32) {
        if let Some(notes) = &mut self.notes {
            notes.token_tries = 0;
        }
        (self.claims.take(), std::mem::take(&mut self.token_issuer))
    }
}

/// What steps keep during one exchange. Each policy has its own fields.
#[derive(Debug, Default)]
pub struct Notes {
    /// How many keys of the issuer have not verified the token.
    pub(super) token_tries: usize,
    /// The request's places under `concurrency`.
    pub(super) permits: Permits,
    /// The verdict of `forward_auth`.
    pub(super) auth: AuthNotes,
}
