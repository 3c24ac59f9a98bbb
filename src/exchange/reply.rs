//! Answers that Weir writes itself: errors, redirects, fixed answers.
//!
//! An error says why in three places that agree: the `reason` in the log, `Proxy-Status` (RFC 9209), and an
//! `application/problem+json` body (RFC 9457) with the id of the request.

use std::net::IpAddr;

use weir_proto_h1::{BodyKind, Decimal, Edits, Framing, Head, Method, Trailers, encode_response};

use super::exchange_record::ExchangeRecord;
use super::filtering::FilteredReply;
use super::{Exchange, grpc, request_id};
use crate::conn::Outbox;
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Net, Tx};
use crate::limits::SMALL_ANSWER_BYTES;
use crate::obs;
use crate::plan::{FixedAnswer, ListenerId, ListenerPlan, Plan};
use crate::policy::StepReply;
use crate::policy::errors::ErrorPage;
use crate::policy::filter::Framed;

/// An answer that Weir writes itself.
pub(super) enum Reply<'r> {
    /// A redirect with this status. Its location is in `DecisionBuffers::sent`.
    Redirect(u16),
    /// The fixed answer of a route.
    Fixed(&'r FixedAnswer),
    /// The answer of a policy.
    Step(Box<StepReply>),
    /// A page in place of an endpoint's answer. The head of that is in `ExchangeBuffers::up_head`.
    Replacement(&'r ErrorPage),
    /// An error.
    Problem {
        /// Why.
        reason: Reason,
        /// The value of `Allow`, if the method is at fault.
        allow: Option<String>,
    },
}

impl<N: Net> Exchange<'_, N> {
    /// Writes an answer and sends it.
    pub(super) async fn reply(&mut self, reply: Reply<'_>) -> Result<(), Fault> {
        let length = match &reply {
            Reply::Fixed(respond) => respond.body.len(),
            Reply::Step(step) => step.body.len(),
            Reply::Redirect(_) | Reply::Replacement(_) | Reply::Problem { .. } => 0,
        };
        if length > SMALL_ANSWER_BYTES && !self.core.has_memory() {
            return Err(Fault::local(Phase::Route, Reason::MemoryLimit));
        }
        self.discard_received_body().await;
        let filtered = self.write_reply(&reply)?;
        // From here on the body is in the core's blocks, which count as its memory.
        drop(reply);
        let patience = self.down.context.listener.plan.borrow().timeouts.body_stall;
        if let Some(filtered) = filtered {
            // In a box: few answers of Weir's own have filters.
            Box::pin(self.send_filtered(filtered, patience)).await?;
        }
        self.flush(patience).await
    }

    /// Writes an answer. If its body goes through filters, returns it: the rest of it is still to be sent.
    fn write_reply(&mut self, reply: &Reply<'_>) -> Result<Option<FilteredReply>, Fault> {
        self.begin_answer();
        let edits = &mut self.buffers.to_client;
        let problem;
        let (status, body) = match reply {
            Reply::Redirect(status) => {
                edits.append("Location", &*self.buffers.decision.sent);
                (*status, &[][..])
            }
            Reply::Fixed(respond) => {
                if let Some(content_type) = &respond.content_type {
                    edits.append("Content-Type", &**content_type);
                }
                for (name, value) in &respond.headers {
                    edits.append(&**name, &**value);
                }
                (respond.status, &*respond.body)
            }
            Reply::Step(step) => {
                append_fields(&step.fields, edits);
                match step.reason {
                    None => (step.status, &step.body[..]),
                    Some(reason) => {
                        self.record.reason = Some(reason);
                        problem = self.write_problem(reason);
                        (problem.0, &problem.1[..])
                    }
                }
            }
            Reply::Replacement(page) => {
                self.keep_endpoint_fields();
                let status = self.buffers.up_head.status;
                problem = self.write_page(page, status, None);
                (problem.0, &problem.1[..])
            }
            Reply::Problem { reason, allow } => {
                if let Some(allow) = allow {
                    edits.append("Allow", allow);
                }
                self.append_retry_after(*reason);
                problem = self.write_problem(*reason);
                (problem.0, &problem.1[..])
            }
        };
        if self.facts.is_grpc_call {
            self.record.grpc_status = grpc::status_in(self.buffers.to_client.iter());
        }
        let mut head = Head::with_status(status);
        // Over HTTP/2 an empty answer ends with its head. gRPC clients read a status in a head only if the head ends
        // the answer.
        let kind = match body.len() {
            0 => BodyKind::None,
            len => BodyKind::Length(len as u64),
        };
        let mut filters = self.complete_answer(&mut head, &[], kind);
        //= rfc9110#8.6
        // An answer to HEAD may announce the length of the answer to GET. Over HTTP/2 an empty answer announces none.
        let is_head = self.down.request().method == Method::Head;
        let has_no_length = matches!(status, 204 | 304) || body.is_empty() && self.down.is_http2();
        if is_head && !has_no_length && filters.is_none() {
            let length = Decimal::new(body.len() as u64);
            let edits = &mut self.buffers.to_client;
            edits.append("Content-Length", length.as_bytes());
        }
        let framed = self.filter_answer(&mut filters, &mut head, kind);
        let mut has_body = !body.is_empty();
        if let Framed::Now(kind) = framed {
            let edits = &self.buffers.to_client;
            let framing = self.down.respond(&head, &[], edits, kind)?;
            has_body &= framing.body != BodyKind::None;
        }
        // A client that has gone gets no status.
        self.record.status = status;
        if let Some(mut chain) = filters {
            chain.push(self.core.net.pool().copy(body));
            chain.end(&Trailers::default());
            return Ok(Some(Self::hold_reply(chain, head, framed)));
        }
        if has_body {
            self.record.bytes_out += body.len() as u64;
            self.down.send_data(self.core.net.pool().copy(body))?;
        }
        self.down.send_end(&Trailers::default())?;
        Ok(None)
    }

    /// Adds the fields of an error, and returns its status and body.
    fn write_problem(&mut self, reason: Reason) -> (u16, Vec<u8>) {
        let edits = &mut self.buffers.to_client;
        if self.down.is_http2() && self.facts.is_grpc_call {
            grpc::append_problem(reason, edits);
            return (200, Vec::new());
        }
        if let Some(page) = self.error_page(reason) {
            return self.write_page(page, reason.status(), Some(reason));
        }
        let edits = &mut self.buffers.to_client;
        append_problem_fields(reason, &self.plan.plan.via, edits);
        let mut digits = [0; 32];
        let id = self.record.id_text(self.down.block, &mut digits);
        (reason.status(), make_problem_body(reason, id))
    }
}

fn append_fields(fields: &[(Box<str>, Vec<u8>)], edits: &mut Edits) {
    for (name, value) in fields {
        edits.append(&**name, value);
    }
}

/// The body of the answer to a fault. `id` is Weir's own id, or a given one that needs no escaping.
fn make_problem_body(reason: Reason, id: &[u8]) -> Vec<u8> {
    let status = reason.status();
    let title = weir_proto_h1::encode::reason(status);
    let (text, code) = (reason.text(), reason.code());
    let status = Decimal::new(status.into());
    // All texts are Weir's own and need no escaping.
    [
        br#"{"type":"about:blank","title":""#,
        title.as_bytes(),
        br#"","status":"#,
        status.as_bytes(),
        br#","detail":""#,
        text.as_bytes(),
        br#"","reason":""#,
        code.as_bytes(),
        br#"","request_id":""#,
        id,
        b"\"}\n",
    ]
    .concat()
}

/// Adds the fields of the answer to a fault.
fn append_problem_fields(reason: Reason, via: &str, edits: &mut Edits) {
    edits.append_fixed("Content-Type", b"application/problem+json");
    edits.append_fixed("Cache-Control", b"no-store");
    append_proxy_status(reason, via, edits);
}

/// Adds `Proxy-Status`, which other proxies and their operators read (RFC 9209).
pub(super) fn append_proxy_status(reason: Reason, via: &str, edits: &mut Edits) {
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

/// Answers and reports a connection that Weir does not serve. Weir has read no request on it.
pub fn refuse_connection<N: Net, T: Tx>(
    core: &Core<N>,
    plan: &Plan,
    out: &mut Outbox<T>,
    (listener, peer): (ListenerId, Option<IpAddr>),
    reason: Reason,
) {
    let now = core.net.now();
    let mut record = ExchangeRecord::new(core.next_id(), now, core.net.wall_ms());
    let mut edits = Edits::new();
    let mut digits = [0; 32];
    let id = record.id_text(&[], &mut digits);
    let body = make_problem_body(reason, id);
    append_problem_fields(reason, &plan.via, &mut edits);
    let listened = plan.listener(listener);
    if listened.is_none_or(|listener| listener.shows_request_id) {
        edits.append(request_id::FIELD, id);
    }
    if reason != Reason::PlainHttp {
        edits.append("Retry-After", "1");
    }
    edits.append("Date", core.date());
    let framing = Framing {
        body: BodyKind::Length(body.len() as u64),
        connection: weir_proto_h1::ConnectionOption::Close,
        accepts_trailers: false,
    };
    let status = reason.status();
    encode_response(
        out.open(),
        &[],
        &Head::with_status(status),
        &edits,
        &framing,
    );
    out.put(&body);
    record.status = status;
    record.bytes_out = body.len() as u64;
    record.reason = Some(reason);
    let event = obs::ExchangeEvent {
        client: peer,
        ..record.event(now, listener)
    };
    core.obs.borrow().connection_refused(&event);
}

/// Reports a connection that is closed without an answer.
pub fn report_turned_away<N: Net>(
    core: &Core<N>,
    (listener, plan): (ListenerId, &ListenerPlan),
    peer: Option<IpAddr>,
    reason: Reason,
) {
    let now = core.net.now();
    let mut record = ExchangeRecord::new(core.next_id(), now, core.net.wall_ms());
    record.reason = Some(reason);
    let event = record.event(now, listener);
    let event = obs::ExchangeEvent {
        client: peer,
        version: if plan.is_http() { event.version } else { "TCP" },
        ..event
    };
    core.obs.borrow().connection_refused(&event);
}
