//! `errors`.

/// The bodies of errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors {}
