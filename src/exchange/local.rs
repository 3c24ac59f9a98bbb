//! Answers that Weir makes itself: errors, redirects, fixed responses.
//!
//! An error says why in three places that agree: the `reason` in the log, `Proxy-Status` (RFC 9209), and an
//! `application/problem+json` body (RFC 9457) with the number of the exchange.

use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use weir_proto_h1::{BodyKind, Edits, Framing, Head, encode_response};

use super::record::Record;
use crate::conn::{Down, Outbox};
use crate::core::Core;
use crate::fault::{Fault, Reason};
use crate::io::{Net, Tx};
use crate::obs::RequestId;

/// An answer to a fault.
pub(super) struct Problem {
    /// The status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Makes the answer to a fault; its fields go into `edits`.
pub(super) fn problem(reason: Reason, id: RequestId, via: &str, edits: &mut Edits) -> Problem {
    let status = reason.status();
    let title = weir_proto_h1::encode::reason(status);
    let (text, code) = (reason.text(), reason.code());
    let mut body = Vec::with_capacity(256);
    // Writing to a Vec does not fail; every text here is ours and needs no escaping.
    let _ = writeln!(
        body,
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{text}","reason":"{code}","request_id":"{id}"}}"#,
    );
    fields(reason, via, edits);
    Problem { status, body }
}

fn fields(reason: Reason, via: &str, edits: &mut Edits) {
    edits.append("Content-Type", "application/problem+json");
    edits.append("Cache-Control", "no-store");
    status_field(reason, via, edits);
}

/// Says why to proxies and their operators (RFC 9209).
fn status_field(reason: Reason, via: &str, edits: &mut Edits) {
    let (error, code) = (reason.proxy_status().as_bytes(), reason.code().as_bytes());
    edits.append_pieces(
        "Proxy-Status",
        &[
            via.as_bytes(),
            b"; error=",
            error,
            b"; details=\"",
            code,
            b"\"",
        ],
    );
}

/// Writes a local answer to the client; `down.kit.edits` has its fields.
pub(super) fn write<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut Down<'_, N>,
    record: &mut Record,
    status: u16,
    body: &[u8],
) -> Result<(), Fault> {
    let now = UNIX_EPOCH + Duration::from_millis(core.net.wall_ms());
    down.kit.edits.append("Date", httpdate::fmt_http_date(now));
    let head = head(status);
    let edits = std::mem::take(&mut down.kit.edits);
    let framing = down.respond(&head, &[], &edits, BodyKind::Length(body.len() as u64));
    down.kit.edits = edits;
    record.status = status;
    if framing?.body != BodyKind::None && !body.is_empty() {
        record.bytes_out += body.len() as u64;
        down.send_data(core.net.pool().copy(body))?;
    }
    down.send_end(None)
}

/// Writes the answer for a connection that is one too many: nothing was read on it.
pub fn refuse_connection<T: Tx>(out: &mut Outbox<T>, reason: Reason) {
    let mut edits = Edits::new();
    status_field(reason, "weir", &mut edits);
    let mut body = String::new();
    if reason == Reason::PlainHttp {
        // A person's mistake: in words.
        body = format!("{}\n", reason.text());
        edits.append("Content-Type", "text/plain; charset=utf-8");
    } else {
        edits.append("Retry-After", "1");
    }
    let framing = Framing {
        body: BodyKind::Length(body.len() as u64),
        connection: weir_proto_h1::Connection::Close,
        te_trailers: false,
    };
    encode_response(out.open(), &[], &head(reason.status()), &edits, &framing);
    out.put(body.as_bytes());
}

fn head(status: u16) -> Head {
    let mut head = Head::new();
    head.status = status;
    head
}
