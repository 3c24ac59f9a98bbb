//! Answers that Weir makes itself: errors, redirects, fixed responses.
//!
//! An error says why in three places that agree: the `reason` in the log, `Proxy-Status` (RFC 9209), and an
//! `application/problem+json` body (RFC 9457) with the number of the exchange.

use std::io::Write;
use std::net::IpAddr;
use std::rc::Rc;

use weir_proto_h1::{BodyKind, Decimal, Edits, Framing, Head, Method, Trailers, encode_response};

use super::grpc;
use super::record::Record;
use super::request_id;
use crate::conn::{Down, Outbox};
use crate::core::Core;
use crate::fault::{Fault, Reason};
use crate::io::{Net, Tx};
use crate::plan::{ListenerId, Plan};

/// An answer to a fault.
pub(super) struct Problem {
    /// The status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Makes the answer to a fault; its fields go into `edits`.
pub(super) fn problem(reason: Reason, id: &[u8], via: &str, edits: &mut Edits) -> Problem {
    let status = reason.status();
    let title = weir_proto_h1::encode::reason(status);
    let (text, code) = (reason.text(), reason.code());
    // Digits, or what was found to be as plain.
    let id = std::str::from_utf8(id).unwrap_or_default();
    let mut body = Vec::with_capacity(256);
    // Writing to a Vec does not fail; every text here is ours and needs no escaping.
    let _ = writeln!(
        body,
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{text}","reason":"{code}","request_id":"{id}"}}"#,
    );
    edits.append("Content-Type", "application/problem+json");
    edits.append("Cache-Control", "no-store");
    status_field(reason, via, edits);
    Problem { status, body }
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
    down.kit.edits.append_fixed("Date", &core.date());
    request_id::show(record, down.kit);
    //= rfc9110#8.6
    // What HEAD is answered with may say how long the answer to GET is; there is none that is empty in HTTP/2.
    let is_head = down.request().method == Method::Head;
    if is_head && !matches!(status, 204 | 304) && !(body.is_empty() && down.is_http2()) {
        let length = Decimal::new(body.len() as u64);
        down.kit.edits.append("Content-Length", length.as_bytes());
    }
    let head = Head::with_status(status);
    // In HTTP/2 an answer that is all head says so in the head: to gRPC clients it is another answer else.
    let kind = match body.len() {
        0 => BodyKind::None,
        len => BodyKind::Length(len as u64),
    };
    if record.is_call {
        record.grpc_status = grpc::said_in(down.kit.edits.iter());
    }
    let framing = down.respond(&head, &[], kind)?;
    record.status = status;
    if framing.body != BodyKind::None && !body.is_empty() {
        record.bytes_out += body.len() as u64;
        down.send_data(core.net.pool().copy(body))?;
    }
    down.send_end(&Trailers::default())
}

/// Writes the answer for a connection that is one too many, and reports it: nothing was read on it.
pub fn refuse_connection<N: Net, T: Tx>(
    core: &Core<N>,
    plan: &Plan,
    out: &mut Outbox<T>,
    (listener, peer): (ListenerId, Option<IpAddr>),
    reason: Reason,
) {
    let now = core.net.now();
    let mut record = Record::new(core.next_id(), now, core.net.wall_ms(), peer);
    let mut edits = Edits::new();
    let mut digits = [0; 32];
    let id = record.id_text(&[], &mut digits);
    let problem = problem(reason, id, &plan.via, &mut edits);
    let listened = plan.listener(listener);
    if listened.is_none_or(|listener| listener.shows_request_id) {
        edits.append(request_id::FIELD, id);
    }
    if reason != Reason::PlainHttp {
        edits.append("Retry-After", "1");
    }
    edits.append("Date", core.date());
    let framing = Framing {
        body: BodyKind::Length(problem.body.len() as u64),
        connection: weir_proto_h1::ConnectionOption::Close,
        accepts_trailers: false,
    };
    encode_response(
        out.open(),
        &[],
        &Head::with_status(problem.status),
        &edits,
        &framing,
    );
    out.put(&problem.body);
    record.status = problem.status;
    record.bytes_out = problem.body.len() as u64;
    record.reason = Some(reason);
    let event = record.event(now, listener);
    core.obs.borrow().connection_refused(plan, &event);
}

/// Reports a connection that is turned away without a word.
pub fn turn_away<N: Net>(
    core: &Core<N>,
    plan: &Plan,
    (listener, peer): (ListenerId, Option<IpAddr>),
    reason: Reason,
) {
    let now = core.net.now();
    let mut record = Record::new(core.next_id(), now, core.net.wall_ms(), peer);
    record.reason = Some(reason);
    let event = record.event(now, listener);
    core.obs.borrow().connection_refused(plan, &event);
}
