//! Extended CONNECT as the upgrade that it stands for.

use weir_proto_h1::{FieldId, Head, Span};

/// Makes of an extended CONNECT what the same request is in HTTP/1.1: routes, logs and endpoints know it as that.
//= rfc8441#5
// A GET with the handshake that a WebSocket begins with there; its key is nobody's secret.
pub(super) fn as_upgrade(head: &mut Head, text: &mut Vec<u8>) {
    // One that the client says is of no use here, and must not be a second.
    head.remove(FieldId::SecWebSocketKey);
    let put = |text: &mut Vec<u8>, bytes: &[u8]| {
        let start = text.len();
        text.extend_from_slice(bytes);
        Span::new(start, text.len())
    };
    let method = put(text, b"GET");
    // GET is a token.
    let _ = head.set_method(method, text);
    let mut key = [b'A'; 24];
    key[..22].fill_with(|| fastrand::alphanumeric() as u8);
    // The last digit of sixteen bytes has two bits.
    key[21] = b"AQgw"[fastrand::usize(..4)];
    key[22..].fill(b'=');
    let name = put(text, b"Sec-WebSocket-Key");
    let value = put(text, &key);
    head.push(FieldId::SecWebSocketKey, name, value);
}
