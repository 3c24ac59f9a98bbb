//! The `Vary` field of answers.

use weir_proto_h1::FieldId;

use super::AnswerView;

/// Says that the answer differs by this field of the request, unless the answer says so already. Caches read one line
/// more surely than several, so the names share one.
//= rfc9110#12.5.5
// A star covers every field.
pub(super) fn add_vary(answer: &mut AnswerView<'_>, name: &str) {
    let (head, block, edits) = (&*answer.head, answer.block, &mut *answer.edits);
    let in_head = head.all(FieldId::Vary).map(|field| field.value.get(block));
    let in_head = in_head.filter(|_| !edits.removed().has(FieldId::Vary));
    let is_vary = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(b"Vary");
    let in_edits = edits.iter().filter(is_vary).map(|(_, value)| value);
    let mut merged = Vec::new();
    for value in in_head.chain(in_edits) {
        let mut elements = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        if elements.any(|each| each == b"*" || each.eq_ignore_ascii_case(name.as_bytes())) {
            return;
        }
        merged.extend_from_slice(value);
        merged.extend_from_slice(b", ");
    }
    if merged.is_empty() {
        edits.append("Vary", name);
        return;
    }
    merged.extend_from_slice(name.as_bytes());
    edits.remove("Vary");
    edits.append("Vary", merged);
}
