//! Names that the file gives to things of its own: upstreams, sets of policies, limits.

/// Whether a text has letters, digits, hyphens, underscores and dots only, and at least one of them. Such a name needs no
/// escapes in header fields, metrics and logs.
pub(crate) fn is_plain_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(is_plain)
}
