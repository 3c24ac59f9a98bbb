//! `cors`.

/// Which other origins may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {}
