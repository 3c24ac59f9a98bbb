//! `compress`.

/// How Weir compresses answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compress {}
