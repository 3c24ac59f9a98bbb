//! Sticky sessions: reads from a request which endpoint its client belongs to, and marks the answer for the next request.

use weir_proto_h1::{FieldId, Head};

use super::Exchange;
use super::learned_cookie::{place_of_mark, separator, split_mark, write_unmarked};
use crate::io::Net;
use crate::plan::StickyKind;
use crate::tls::MARK_BYTES;
use crate::upstream::{StableHash, StickyEndpoints, StickySession, Upstream};

impl<N: Net> Exchange<'_, N> {
    /// The session of the client, if the upstream is sticky.
    #[inline]
    pub(super) fn sticky_session(&mut self, upstream: &Upstream<N>) -> Option<StickySession> {
        let sticky = upstream.sticky.as_deref()?;
        Some(self.read_session(sticky))
    }

    #[cold]
    fn read_session(&mut self, sticky: &StickyEndpoints) -> StickySession {
        let (head, block) = (&*self.down.head, &self.down.block[..]);
        match &sticky.plan.kind {
            StickyKind::Cookie { cookie, .. } => {
                let marks = || head.cookies(cookie.name.as_bytes(), block);
                let named = marks().find_map(|mark| sticky.find(mark));
                let is_known = marks().any(|mark| mark.len() == MARK_BYTES);
                StickySession::new(named, None, is_known)
            }
            StickyKind::Learn(name) => {
                let values = || head.cookies(name.as_bytes(), block);
                let named = values().find_map(|value| sticky.find(split_mark(value)?.0));
                // If no endpoint has the mark, the client stays at one all the same.
                let value = values().next();
                let own = value.map(|value| split_mark(value).map_or(value, |(_, rest)| rest));
                let key = own.map(|own| {
                    let mut hash = StableHash::default();
                    hash.add(own.iter().copied());
                    hash.finish()
                });
                StickySession::new(named, key, value.is_some())
            }
            StickyKind::Field(key) => {
                let key = self.read_key(key, None);
                StickySession::new(None, key, key.is_some())
            }
        }
    }

    /// Takes the marks off the application's cookie, on the request's way to an endpoint. The policies have edited the
    /// request already.
    #[cold]
    pub(super) fn hide_mark(&mut self, upstream: &Upstream<N>) {
        let sticky = upstream.sticky.as_deref();
        let Some(StickyKind::Learn(name)) = sticky.map(|sticky| &sticky.plan.kind) else {
            return;
        };
        let (head, block) = (&*self.down.head, &self.down.block[..]);
        let edits = &mut self.buffers.to_upstream.edits;
        let is_replaced = edits.removed().has(FieldId::Cookie);
        let received = head.all(FieldId::Cookie).filter(|_| !is_replaced);
        let received = received.map(|field| field.value.get(block));
        let added = edits
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie"));
        let (mut has_mark, mut fields) = (false, Vec::new());
        for field in received.chain(added.map(|(_, value)| value)) {
            let mut unmarked = Vec::with_capacity(field.len());
            has_mark |= write_unmarked(field, name.as_bytes(), &mut unmarked);
            fields.push(unmarked);
        }
        if has_mark {
            edits.remove("Cookie");
            for field in fields {
                edits.append("Cookie", field);
            }
        }
    }

    /// Counts the outcome of the session, and adds the endpoint's mark to its answer.
    #[cold]
    pub(super) fn settle_session(
        &mut self,
        upstream: &Upstream<N>,
        session: &StickySession,
        (head, block): (&mut Head, &[u8]),
    ) {
        let (Some(sticky), Some(endpoint)) = (&upstream.sticky, self.record.endpoint) else {
            return;
        };
        let outcome = session.outcome(endpoint);
        let obs = self.core.obs.borrow();
        obs.session_settled(upstream.id(), outcome);
        drop(obs);
        let Some(mark) = sticky.mark(endpoint) else {
            return;
        };
        match &sticky.plan.kind {
            StickyKind::Cookie { cookie, is_renewed } => {
                if *is_renewed || !session.names(endpoint) {
                    self.append_cookie(cookie, mark);
                }
            }
            StickyKind::Learn(name) => self.mark_cookies(name.as_bytes(), mark, (head, block)),
            StickyKind::Field(_) => {}
        }
    }

    /// Writes the mark of the endpoint into the cookies of this name that its answer sets.
    fn mark_cookies(&mut self, name: &[u8], mark: &[u8], (head, block): (&mut Head, &[u8])) {
        let fields = || {
            let fields = head.all(FieldId::SetCookie);
            fields.map(|field| field.value.get(block))
        };
        if !fields().any(|field| place_of_mark(field, name).is_some()) {
            return;
        }
        let edits = &mut self.buffers.to_client;
        for field in fields() {
            match place_of_mark(field, name) {
                Some((before, behind)) => {
                    let pieces = &[before, mark, &separator(), behind];
                    edits.append_pieces("Set-Cookie", pieces);
                }
                None => edits.append("Set-Cookie", field),
            }
        }
        head.remove(FieldId::SetCookie);
    }
}
