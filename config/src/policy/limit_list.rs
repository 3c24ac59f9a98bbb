//! What `limit` and `concurrency` have in common: lists whose entries may have names and count by keys.

use crate::decode::decoder::{Decoder, Spanned};
use crate::policy::level::{Origin, Place, Setting};
use crate::policy::limit_key::{LimitKey, check_keys};
use crate::text::diagnostic::Code;
use crate::text::source::Span;

/// The most entries that one route may have, with those of all levels.
pub const LIMITS_MAX: usize = 16;

/// What an entry of either list has.
pub(crate) trait LimitEntry {
    /// What it counts by.
    fn per(&self) -> &[LimitKey];
    /// The name that the file gives it.
    fn name(&self) -> Option<&Spanned<String>>;
    /// Reports what one of the lists alone does not take.
    fn check(&self, span: &Span, place: &Place<'_>, cx: &mut Decoder<'_>);
}

/// An entry, and where the file has it.
pub(crate) struct PlacedEntry<'a, T> {
    pub(crate) value: &'a T,
    /// The level that says so.
    pub(crate) origin: &'a Origin,
    /// Its place among the entries of that level, from 0.
    pub(crate) index: usize,
}

/// The entries of all levels. Reports keys that no request at `place` has, names that occur twice, and too many entries.
pub(crate) fn list_entries<'a, T: LimitEntry>(
    settings: &'a [Setting<'_, Vec<Spanned<T>>>],
    place: &Place<'_>,
    cx: &mut Decoder<'_>,
) -> Vec<PlacedEntry<'a, T>> {
    let mut entries: Vec<PlacedEntry<'a, T>> = Vec::new();
    for setting in settings {
        for (index, Spanned { value, span }) in setting.value.iter().enumerate() {
            check_keys(value.per(), span, place, cx);
            value.check(span, place, cx);
            let is_same = |name: &Spanned<String>| {
                let mut names = entries.iter().filter_map(|entry| entry.value.name());
                names.any(|known| known.value == name.value)
            };
            if let Some(name) = value.name()
                && is_same(name)
            {
                let message = format!("{} has two limits called `{}`", place.origin, name.value);
                cx.error(Code::Duplicate, name.span.clone(), message)
                    .help("rename one of them");
            }
            entries.push(PlacedEntry {
                value,
                origin: setting.origin,
                index,
            });
        }
    }
    if entries.len() > LIMITS_MAX {
        let message = format!(
            "{} has {} limits, at most {LIMITS_MAX}",
            place.origin,
            entries.len()
        );
        cx.error(Code::BadValue, place.span.clone(), message);
    }
    entries
}
