//! `jwt`.

/// Tokens that requests must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwt {}
