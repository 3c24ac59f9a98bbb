//! Error answers with the pages of the file, in place of Weir's own and of endpoints' answers.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_proto_h1::{Field, FieldId};

use super::Exchange;
use super::reply::{Reply, append_proxy_status};
use crate::conn::ResponsePart;
use crate::core::Core;
use crate::fault::{Fault, Reason};
use crate::io::Net;
use crate::limits::{LINGER_MS, SMALL_ANSWER_BYTES, UNREAD_BYTES_MAX};
use crate::policy::errors::{AnswerFacts, ErrorPage};
use crate::upstream::{Endpoint, EndpointSide};

/// The fields of an endpoint's answer that stay if a page replaces it: what the client may do next, and which pages may
/// read the answer.
const KEPT_FIELDS: [FieldId; 5] = [
    FieldId::Allow,
    FieldId::ProxyStatus,
    FieldId::RetryAfter,
    FieldId::Vary,
    FieldId::WwwAuthenticate,
];

impl<'a, N: Net> Exchange<'a, N> {
    /// The page for Weir's own error. gRPC clients read no pages.
    pub(super) fn error_page(&self, reason: Reason) -> Option<&'a ErrorPage> {
        let pages = self.plan.plan.errors_of(self.route);
        self.if_possible(pages.find(reason)?)
    }

    /// The page, unless the client speaks gRPC or memory is short.
    pub(super) fn if_possible(&self, page: &'a ErrorPage) -> Option<&'a ErrorPage> {
        let fits = page.bytes() <= SMALL_ANSWER_BYTES || self.core.has_memory();
        (fits && !self.facts.is_grpc_call).then_some(page)
    }

    /// Adds the fields of a page that replaces an answer with this status, and returns its own status and body.
    pub(super) fn write_page(
        &mut self,
        page: &ErrorPage,
        status: u16,
        reason: Option<Reason>,
    ) -> (u16, Vec<u8>) {
        let mut digits = [0; 32];
        let facts = AnswerFacts {
            status,
            reason,
            request_id: self.record.id_text(self.down.block, &mut digits),
        };
        let edits = &mut self.buffers.to_client;
        let (name, value) = page.field(facts);
        edits.append(name, value);
        edits.append("Cache-Control", "no-store");
        if let Some(reason) = reason {
            append_proxy_status(reason, &self.plan.plan.via, edits);
        }
        (page.status(status), page.body(facts).into_owned())
    }

    /// Keeps fields of the endpoint's answer, whose head is in the buffers.
    pub(super) fn keep_endpoint_fields(&mut self) {
        let (head, block) = (&self.buffers.up_head, &self.buffers.up_block[..]);
        let is_kept = |field: &&Field| {
            const CORS: &[u8] = b"access-control-";
            let name = field.name.get(block);
            let start = name.get(..CORS.len());
            KEPT_FIELDS.contains(&field.id)
                || start.is_some_and(|start| start.eq_ignore_ascii_case(CORS))
        };
        for field in head.iter().filter(is_kept) {
            let (name, value) = (field.name.get(block), field.value.get(block));
            self.buffers.to_client.append(name, value);
        }
    }

    /// Sends the page in place of the endpoint's answer, whose head is in the buffers. Discards the rest of that answer,
    /// if it is short and arrives soon, so that the connection can be used again.
    pub(super) async fn replace_answer(
        &mut self,
        page: &ErrorPage,
        mut up: EndpointSide<N>,
        endpoint: &Rc<Endpoint<N>>,
    ) -> Result<(), Fault> {
        let (core, mut discarded) = (self.core, 0);
        let arrived = poll_fn(|cx| Poll::Ready(poll_discard(&mut up, cx, core, &mut discarded)));
        if arrived.await.is_ready() {
            up.finish(core, endpoint);
            return self.reply(Reply::Replacement(page)).await;
        }
        self.reply(Reply::Replacement(page)).await?;
        let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
        let timer = &mut self.down.timer;
        timer.set(deadline);
        poll_fn(|cx| {
            timer.watch(cx);
            match poll_discard(&mut up, cx, core, &mut discarded) {
                Poll::Pending if core.is_draining() || core.net.now() >= deadline => {
                    Poll::Ready(())
                }
                discarded => discarded,
            }
        })
        .await;
        up.finish(core, endpoint);
        Ok(())
    }
}

/// Discards what has arrived of an answer. Ready once that was all of it, or it fails or is too long to wait for.
fn poll_discard<N: Net>(
    up: &mut EndpointSide<N>,
    cx: &mut Context<'_>,
    core: &Core<N>,
    discarded: &mut usize,
) -> Poll<()> {
    while let Poll::Ready(part) = up.poll_response(cx, core) {
        match part {
            Ok(ResponsePart::Data(data)) if *discarded < UNREAD_BYTES_MAX => {
                *discarded += data.len();
            }
            _ => return Poll::Ready(()),
        }
    }
    Poll::Pending
}
