//! `limit`.

/// A limit of the rate of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {}
