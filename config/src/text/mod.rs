//! Text without any meaning of TOML or of Weir: source, words, units, JSON, diagnostics.

pub(crate) mod diagnostic;
pub(crate) mod json;
pub(crate) mod problem;
pub(crate) mod source;
pub(crate) mod suggest;
pub(crate) mod units;
