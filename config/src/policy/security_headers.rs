//! `security_headers`.

/// Fields that tell browsers to be careful.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityHeaders {}
