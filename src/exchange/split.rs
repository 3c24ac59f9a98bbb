//! Chooses the upstream of a split route for an exchange, once, before its attempts.

use super::Exchange;
use crate::fault::{Fault, Phase, Reason};
use crate::io::Net;
use crate::plan::{CookiePlan, RouteSplit};

impl<'a, N: Net> Exchange<'a, N> {
    /// Sends the request to one of the upstreams that share the route.
    pub(super) async fn forward_split(&mut self, split: &'a RouteSplit) -> Result<(), Fault> {
        let asked_for = split.asked_for(self.down.head, self.down.block);
        let share = match asked_for {
            Some(share) => share,
            None => {
                let drawn = split.draw(self.record.id);
                let drawn = drawn.ok_or(Fault::local(Phase::Route, Reason::Internal))?;
                if let Some(cookie) = &split.cookie {
                    self.set_split_cookie(cookie, &drawn.mark);
                }
                drawn
            }
        };
        self.forward(Some(&share.route), share.upstream).await
    }

    /// Lets every answer to this request set the cookie that keeps the client at the upstream.
    fn set_split_cookie(&mut self, cookie: &CookiePlan, mark: &[u8]) {
        self.buffers.to_client.rewind(self.common_edits);
        self.append_cookie(cookie, mark);
        self.common_edits = self.buffers.to_client.mark();
    }

    /// Lets the answer set a cookie of Weir's.
    pub(super) fn append_cookie(&mut self, cookie: &CookiePlan, value: &[u8]) {
        let secure: &[u8] = match self.facts.is_https {
            true => b"; Secure",
            false => b"",
        };
        let (name, attributes) = (cookie.name.as_bytes(), cookie.attributes.as_bytes());
        let edits = &mut self.buffers.to_client;
        edits.append_pieces("Set-Cookie", &[name, b"=", value, attributes, secure]);
    }
}
