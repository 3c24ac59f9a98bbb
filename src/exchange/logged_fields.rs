//! The path, query and fields that the access log gets of a request and its answer.

use weir_proto_h1::{FieldId, Head, Span};

use super::Exchange;
use crate::io::Net;
use crate::obs::fields;

/// The path and the query of a request as received. If the target does not parse, the best guess at them.
pub(super) fn target<'a>(head: &Head, block: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let path = head.effective_path(block);
    if matches!(path, [b'/', ..] | b"*") {
        return (path, head.has_query.then(|| head.query.get(block)));
    }
    let target = head.target.get(block);
    // Leave out everything before an `@`: it may be a password.
    let start = target.iter().rposition(|&byte| byte == b'@');
    let target = target.get(start.map_or(0, |at| at + 1)..);
    let target = target.unwrap_or_default();
    match target.iter().position(|&byte| byte == b'?') {
        Some(mark) => (
            target.get(..mark).unwrap_or_default(),
            target.get(mark + 1..),
        ),
        None => (target, None),
    }
}

impl<N: Net> Exchange<'_, N> {
    /// Collects the fields that the configuration wants logged: those of the request as received, and those of the
    /// answer as sent.
    pub(super) fn collect_logged_fields(&mut self) {
        let (names, buffers) = (&self.plan.plan.log_fields, &mut *self.buffers);
        buffers.logged.clear();
        for name in &names.request {
            let fields = || all(self.down.head, self.down.block, name);
            // The head has the cookies of HTTP/2 twice: one by one, marked as removed, and joined.
            let all_removed = fields().all(|(_, removed)| removed);
            let values =
                fields().filter_map(|(value, removed)| (removed == all_removed).then_some(value));
            fields::put(&mut buffers.logged, values, separator(name));
        }
        for name in &names.response {
            let relayed = self.record.is_relayed;
            let relayed = relayed.then(|| all(&buffers.up_head, &buffers.up_block, name));
            let relayed = relayed.into_iter().flatten();
            let relayed = relayed.filter_map(|(value, removed)| (!removed).then_some(value));
            let added = buffers.to_client.iter();
            let added = added.filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
            let values = relayed.chain(added.map(|(_, value)| value));
            fields::put(&mut buffers.logged, values, separator(name));
        }
    }
}

/// All values of a field, and whether each was removed.
fn all<'a>(
    head: &'a Head,
    block: &'a [u8],
    name: &'a str,
) -> impl Iterator<Item = (&'a [u8], bool)> {
    let id = FieldId::from_name(name.as_bytes());
    let is_other = move |field: &Span| field.get(block).eq_ignore_ascii_case(name.as_bytes());
    head.fields
        .iter()
        .filter(move |field| field.id == id && (id != FieldId::Other || is_other(&field.name)))
        .map(|field| (field.value.get(block), field.is_removed))
}

/// What joins the values of a field. HTTP/2 splits cookies (RFC 9113, section 8.2.3).
fn separator(name: &str) -> &'static [u8] {
    if name == "cookie" { b"; " } else { b", " }
}
