//! Defaults, each with its reason.

/// A default value together with the reason for choosing it.
#[derive(Debug, Clone, Copy)]
pub struct Preset<T> {
    /// The value that applies when the key is absent.
    pub value: T,
    /// Where the value comes from: a clause, a peer's default, or a judgement.
    pub source: &'static str,
}

/// A default of `value`, chosen because of `source`.
pub(crate) const fn preset<T>(value: T, source: &'static str) -> Preset<T> {
    Preset { value, source }
}
