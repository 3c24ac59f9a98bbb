//! Extended CONNECT as an HTTP/1.1 upgrade.

use weir_proto_h1::{FieldId, Head, Span};

use crate::io::{Chunk, Pool};

const METHOD: &[u8] = b"GET";
const KEY_NAME: &[u8] = b"Sec-WebSocket-Key";
const KEY_BYTES: usize = 24;

/// Turns an extended CONNECT into the HTTP/1.1 request that means the same, so that routes, logs and endpoints treat
/// both alike.
//= rfc8441#5
// HTTP/1.1 opens a WebSocket with GET and a key, which is not secret.
pub(super) fn convert_to_upgrade(head: &mut Head, block: &mut Chunk, pool: &Pool) {
    // The client's own key means nothing in HTTP/2, and the request must not have two.
    head.remove(FieldId::SecWebSocketKey);
    let mut added = [0; METHOD.len() + KEY_NAME.len() + KEY_BYTES];
    let (method, field) = added.split_at_mut(METHOD.len());
    let (name, key) = field.split_at_mut(KEY_NAME.len());
    method.copy_from_slice(METHOD);
    name.copy_from_slice(KEY_NAME);
    write_key(key);
    let start = block.len();
    if !block.append(&added) {
        *block = pool.copy(&[&**block, &added].concat());
    }
    let span = |from: usize, len: usize| Span::new(start + from, start + from + len);
    // GET is a valid method.
    let _ = head.set_method(span(0, METHOD.len()), block);
    let name = span(METHOD.len(), KEY_NAME.len());
    let value = span(METHOD.len() + KEY_NAME.len(), KEY_BYTES);
    head.push(FieldId::SecWebSocketKey, name, value);
}

/// Writes sixteen random bytes in base64.
fn write_key(key: &mut [u8]) {
    key.fill_with(|| fastrand::alphanumeric() as u8);
    if let [.., last, first_pad, second_pad] = key {
        // In base64 of sixteen bytes, the last digit carries two bits.
        *last = fastrand::choice(*b"AQgw").unwrap_or(b'A');
        (*first_pad, *second_pad) = (b'=', b'=');
    }
}
