//! Copies of requests for another upstream (`mirror`).
//!
//! A copy has the head and body that the endpoint of the first attempt gets. Weir collects the body as its pieces pass by,
//! and sends the copy in a task of its own once the body is whole, so the request does not wait. Weir drops and counts a
//! copy that exceeds a limit.

use std::sync::Arc;

use super::Exchange;
use super::attempts::Attempts;
use super::call::{self, CopiedBody};
use super::replay::Replay;
use crate::core::MirroredBytes;
use crate::io::{Chunk, Net};
use crate::obs::MirrorOutcome;
use crate::policy::{AnswerBody, Call, CallRequest, MIRROR_FIELD, Mirror};
use weir_proto_h1::BodyKind;

/// A copy of a request whose body is still arriving.
pub(super) struct MirrorCopy {
    mirror: Arc<Mirror>,
    request: CallRequest,
    pieces: Replay,
    /// The length of the body so far.
    length: usize,
    held: MirroredBytes,
    has_body: bool,
}

impl<'a, N: Net> Attempts<'a, N> {
    /// Begins the copy of a request, before its first attempt sends it.
    #[cold]
    pub(super) fn begin_mirror(&mut self, exchange: &mut Exchange<'a, N>) {
        exchange.facts.is_mirrored = false;
        let steps = self.route.map_or(&[][..], |route| &route.steps);
        let mut mirrors = steps.iter().filter_map(|step| step.step.as_mirror());
        let Some(mirror) = mirrors.next() else { return };
        let has_body = match exchange.down.request().body {
            BodyKind::None => false,
            BodyKind::Length(length) => {
                let fits = |max| length <= max as u64;
                if !mirror.body_bytes_max.is_none_or(fits) {
                    return exchange.count_copy(mirror, MirrorOutcome::TooLarge);
                }
                mirror.body_bytes_max.is_some()
            }
            BodyKind::Chunked | BodyKind::UntilClose => mirror.body_bytes_max.is_some(),
        };
        self.mirror = Some(Box::new(MirrorCopy {
            request: exchange.copy_head(mirror),
            mirror: mirror.clone(),
            pieces: Replay::default(),
            length: 0,
            held: exchange.core.calls.begin_mirror(),
            has_body,
        }));
        if !has_body {
            self.send_mirror(exchange);
        }
    }

    /// Adds a piece of the request's body to the copy.
    #[cold]
    pub(super) fn mirror_piece(&mut self, exchange: &Exchange<'a, N>, piece: &Chunk) {
        let Some(copy) = self.mirror.as_deref_mut() else {
            return;
        };
        let max = copy.mirror.body_bytes_max.unwrap_or(0);
        copy.length += piece.len();
        let outcome = if copy.length > max {
            MirrorOutcome::TooLarge
        } else if exchange.core.is_memory_short() {
            MirrorOutcome::NoRoom
        } else {
            let taken = copy.pieces.keep_all(piece, exchange.core.net.pool());
            if copy.held.add(taken) {
                return;
            }
            MirrorOutcome::NoRoom
        };
        exchange.count_copy(&copy.mirror, outcome);
        self.mirror = None;
    }

    /// Sends the copy: the client has sent the whole request.
    #[cold]
    pub(super) fn send_mirror(&mut self, exchange: &Exchange<'a, N>) {
        let (Some(copy), Some(plan)) = (self.mirror.take(), exchange.shared_plan) else {
            return;
        };
        let MirrorCopy {
            mirror,
            request,
            pieces,
            length,
            held,
            has_body,
        } = *copy;
        let call = Box::new(Call {
            upstream: mirror.upstream,
            request,
            timeout: mirror.timeout,
            body: AnswerBody::Discarded,
            body_bytes_max: 0,
        });
        let body = CopiedBody {
            kind: match has_body {
                true => BodyKind::Length(length as u64),
                false => BodyKind::None,
            },
            pieces: pieces.pieces,
            accepts_trailers: exchange.down.request().accepts_trailers,
            held,
        };
        let is_sent = call::detach(
            exchange.core,
            plan.clone(),
            exchange.down.context,
            call,
            body,
        );
        let outcome = match is_sent {
            true => MirrorOutcome::Sent,
            false => MirrorOutcome::NoRoom,
        };
        exchange.count_copy(&mirror, outcome);
    }

    /// Drops a copy whose request has ended before all of it had arrived.
    #[cold]
    pub(super) fn drop_mirror(&mut self, exchange: &Exchange<'a, N>) {
        if let Some(copy) = self.mirror.take() {
            exchange.count_copy(&copy.mirror, MirrorOutcome::Incomplete);
        }
    }
}

impl<N: Net> Exchange<'_, N> {
    fn count_copy(&self, mirror: &Mirror, outcome: MirrorOutcome) {
        self.core.obs.borrow().mirrored(mirror.upstream, outcome);
    }

    /// The head of a copy: what the endpoint gets, with the mark of a copy.
    fn copy_head(&self, mirror: &Mirror) -> CallRequest {
        let (head, block) = (&*self.down.head, &self.down.block[..]);
        let edits = &self.buffers.to_upstream.edits;
        let path = edits.path().unwrap_or_else(|| head.effective_path(block));
        let mut target = path.to_vec();
        if head.has_query {
            target.push(b'?');
            target.extend_from_slice(head.query.get(block));
        }
        let own = head.authority.get(block);
        let authority = match (&mirror.host, own.is_empty()) {
            (Some(host), _) => host.as_bytes(),
            (None, false) => own,
            (None, true) => edits.authority().unwrap_or_default(),
        };
        let mut request = CallRequest::default();
        request.begin(head.method_span.get(block), authority, &target);
        let received = head.iter().map(|field| {
            let name = field.name.get(block);
            let is_kept = !edits.removes(field.id, name);
            (is_kept, name, field.value.get(block))
        });
        let received = received.filter(|(is_kept, ..)| *is_kept);
        let received = received.map(|(_, name, value)| (name, value));
        let is_mark = |name: &[u8]| name.eq_ignore_ascii_case(MIRROR_FIELD.as_bytes());
        for (name, value) in received.chain(edits.iter()) {
            if !is_mark(name) {
                request.field(name, value);
            }
        }
        request.field(MIRROR_FIELD.as_bytes(), b"1");
        request
    }
}
