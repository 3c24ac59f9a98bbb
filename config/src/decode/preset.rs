//! Defaults of keys, each with its reason.

/// A default, with the reason for it.
#[derive(Debug, Clone, Copy)]
pub struct Preset<T> {
    /// The value of an absent key.
    pub value: T,
    /// The reason: a clause of a standard, another proxy's default, or a judgement.
    pub source: &'static str,
}

/// The default `value`, for the reason `source`.
pub(crate) const fn preset<T>(value: T, source: &'static str) -> Preset<T> {
    Preset { value, source }
}
