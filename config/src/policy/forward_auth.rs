//! `forward_auth`.

/// A server that Weir asks whether a request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardAuth {}
