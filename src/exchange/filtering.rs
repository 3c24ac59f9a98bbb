//! Drives the filters of a body: takes their parts as they get turns to work, and frames their messages.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weir_proto_h1::framing::has_no_body;
use weir_proto_h1::{BodyKind, FieldId, Head};

use super::Exchange;
use crate::conn::TunnelEnd;
use crate::core::Core;
use crate::fault::Fault;
use crate::io::Net;
use crate::policy::filter::{Chain, Filters, Framed, Part};

/// Takes the next part out of a chain. Pending: the chain waits for input or, if it has work, for a turn. The core then
/// wakes the task.
pub(super) fn poll_part<N: Net>(
    chain: &mut Chain,
    cx: &Context<'_>,
    core: &Core<N>,
) -> Poll<Result<Part, Fault>> {
    loop {
        if let Some(part) = chain.pull(core.net.pool()).transpose() {
            return Poll::Ready(part);
        }
        if !chain.has_work() {
            return Poll::Pending;
        }
        let place = chain.place();
        ready!(core.work_queue.poll_turn_from(cx, &mut chain.turn, place));
        chain.renew_budget();
    }
}

/// An answer of Weir's own whose body goes through filters.
pub(super) struct FilteredReply {
    chain: Box<Chain>,
    /// The head, if it waits for the body.
    head: Option<Head>,
}

impl<N: Net> Exchange<'_, N> {
    /// Passes the head of an answer along its filters. An answer without a body needs none, but with them the body that
    /// GET would get has another length, which is not known.
    pub(super) fn filter_answer(
        &mut self,
        filters: &mut Option<Box<Chain>>,
        head: &mut Head,
        body: BodyKind,
    ) -> Framed {
        let Some(chain) = filters else {
            return Framed::Now(body);
        };
        if body == BodyKind::None || has_no_body(head.status, self.down.request().method) {
            head.remove(FieldId::ContentLength);
            *filters = None;
            return Framed::Now(body);
        }
        chain.head(head, &mut self.buffers.to_client, body)
    }

    /// Makes an answer of Weir's own for [`Exchange::send_filtered`].
    pub(super) fn hold_reply(chain: Box<Chain>, head: Head, framed: Framed) -> FilteredReply {
        FilteredReply {
            chain,
            head: match framed {
                Framed::Now(_) => None,
                Framed::Later => Some(head),
            },
        }
    }

    /// Sends the body of an answer of Weir's own through its filters. Fails if the client takes nothing for `patience`.
    pub(super) async fn send_filtered(
        &mut self,
        mut reply: FilteredReply,
        patience: Duration,
    ) -> Result<(), Fault> {
        let core = self.core;
        loop {
            let part = poll_fn(|cx| {
                // The client reads while the filters work. The next flush reports an error.
                let _ = self.down.poll_send(cx);
                poll_part(&mut reply.chain, cx, core)
            });
            match part.await? {
                Part::Head => {
                    let Some(head) = reply.head.take() else {
                        continue;
                    };
                    let edits = &mut self.buffers.to_client;
                    match reply.chain.head(&head, edits, BodyKind::None) {
                        Framed::Now(body) => {
                            self.down.respond(&head, &[], edits, body)?;
                        }
                        Framed::Later => reply.head = Some(head),
                    }
                }
                Part::Data(data) => {
                    self.record.bytes_out += data.len() as u64;
                    self.down.send_data(data)?;
                    if self.down.is_full() {
                        self.flush(patience).await?;
                    }
                }
                Part::End => return self.down.send_end(reply.chain.trailers()),
            }
        }
    }

    /// The filters that policies of the route have for the body of the request, for one attempt.
    pub(super) fn filter_request(&mut self) -> Option<Box<Chain>> {
        let route = self.route.and_then(|id| self.plan.plan.route(id))?;
        if route.steps.is_empty() || self.down.request().body == BodyKind::None {
            return None;
        }
        let mut filters = Filters::new(self.core.is_memory_short());
        self.add_request_filters(route, &mut filters);
        filters.into_chain()
    }
}

#[cfg(test)]
mod tests;
