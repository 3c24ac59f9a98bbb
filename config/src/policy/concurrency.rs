//! `concurrency`.

/// A limit of the requests that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concurrency {}
