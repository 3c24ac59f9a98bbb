//! `headers`.

/// How Weir changes the fields of requests and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderRules {}
