//! What steps see of requests and answers.

use std::fmt;
use std::net::SocketAddr;

use weir_proto_h1::{BodyKind, Edits, Head, Request};

use super::filter::Filters;
use crate::ids::{ListenerId, RequestId, RouteId};
use crate::io::{Address, Instant};
use crate::tls::TlsParameters;

/// A request as steps see it.
#[derive(Clone, Copy, Debug)]
pub struct StepRequest<'a> {
    /// The head as parsed. Fields that the client may not send are gone.
    pub head: &'a Head,
    /// The block that holds the head.
    pub block: &'a [u8],
    /// What the head says about this hop.
    pub hop: &'a Request,
    /// The address that the connection came from; `None` on a Unix socket. [`Facts::client`](super::Facts::client) has
    /// the client's, which a trusted proxy may name.
    pub peer: Option<SocketAddr>,
    /// The parameters of the client's TLS connection; `None` without TLS.
    pub tls: Option<TlsParameters>,
    /// The listener that accepted the connection.
    pub listener: ListenerId,
    /// The route; `None` for steps of a listener, which run before the route is known.
    pub route: Option<RouteId>,
    /// The index of the path pattern that matches, among those of the route.
    pub pattern: usize,
    /// The path in the form that routes are matched against; empty for steps of a listener.
    pub path: &'a [u8],
    /// The path that endpoints get, without the query.
    pub sent_path: &'a [u8],
    /// The id that Weir gives the request.
    pub id: RequestId,
    /// The id that the client has given it; empty if it has none that Weir takes over.
    pub given_id: &'a [u8],
    /// Now, by the clock that no one sets.
    pub now: Instant,
    /// Now, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

#[cfg(test)]
impl<'a> StepRequest<'a> {
    /// A request for `/` on the first route of the first listener, for tests.
    pub(crate) fn for_test(head: &'a Head, block: &'a [u8], hop: &'a Request) -> Self {
        Self {
            head,
            block,
            hop,
            peer: None,
            tls: None,
            listener: ListenerId(0),
            route: Some(RouteId(0)),
            pattern: 0,
            path: b"/",
            sent_path: b"/",
            id: RequestId(1, 2),
            given_id: b"",
            now: Instant(1),
            wall_ms: 0,
        }
    }
}

/// The endpoint of an attempt.
#[derive(Clone, Copy)]
pub struct AttemptFacts<'a> {
    /// The name of the upstream.
    pub upstream: &'a str,
    /// The address of the endpoint.
    pub endpoint: &'a Address,
}

impl fmt::Debug for AttemptFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.upstream, self.endpoint)
    }
}

/// An answer as steps see it before its head leaves.
#[derive(Debug)]
pub struct AnswerView<'a> {
    /// The head.
    pub head: &'a mut Head,
    /// The block that holds the head; empty if Weir itself answers.
    pub block: &'a [u8],
    /// What Weir adds to the head and removes from it.
    pub edits: &'a mut Edits,
    /// Whether Weir itself answers.
    pub is_local: bool,
    /// The last attempt; `None` if there was none.
    pub attempt: Option<AttemptFacts<'a>>,
    /// The body that follows. An answer to HEAD has none, but its head may say how long that of GET would be.
    pub body: BodyKind,
    /// The filters that change the body.
    pub filters: &'a mut Filters,
}
