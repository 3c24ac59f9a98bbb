//! Text: the file's own with lines and columns, words, numbers with units, and what is wrong with any of them.

pub(crate) mod diagnostic;
pub(crate) mod json;
pub(crate) mod problem;
pub(crate) mod source;
pub(crate) mod suggest;
pub(crate) mod units;
