//! The memory that one exchange hands to the next on the same connection.

use std::rc::Rc;

use weir_proto_h1::{Edits, Head};

use super::request_edits::RequestEdits;
use crate::conn::ClientBindings;
use crate::io::Chunk;
use crate::plan::DecisionBuffers;

/// The memory that exchanges work in. Exchanges reuse it, so requests on a warm connection allocate nothing.
pub struct ExchangeBuffers {
    /// Changes to the request on its way to the endpoint.
    pub(super) to_upstream: RequestEdits,
    /// Changes to the answer on its way to the client.
    pub(super) to_client: Edits,
    /// The memory of the plan's decision, with the path for the endpoint or the location of a redirect.
    pub(super) decision: DecisionBuffers,
    /// The head of the endpoint's answer; its spans point into the block.
    pub(super) up_head: Head,
    /// The bytes of that head, until it is logged.
    pub(super) up_block: Chunk,
    /// The logged fields of request and answer.
    pub(super) logged: Vec<u8>,
    /// The endpoint connections that serve this client's connection alone. `None` until there is one.
    pub bindings: Option<Rc<ClientBindings>>,
}

impl ExchangeBuffers {
    /// Makes empty buffers for a client's connection that has these bindings.
    pub fn new(bindings: Option<Rc<ClientBindings>>) -> Self {
        Self {
            to_upstream: RequestEdits::default(),
            to_client: Edits::new(),
            decision: DecisionBuffers::default(),
            up_head: Head::new(),
            up_block: Chunk::default(),
            logged: Vec::new(),
            bindings,
        }
    }
}
