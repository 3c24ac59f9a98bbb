//! Logs which endpoints begin to fail and which recover.

use std::rc::Rc;
use std::time::Instant;

use tokio::time::sleep;

use super::{Control, limits};
use crate::obs::{EndpointTroubles, process};

impl Control {
    /// Watches endpoints for as long as the process lives.
    pub(super) async fn watch_endpoints(self: Rc<Self>) {
        let mut troubles = EndpointTroubles::default();
        loop {
            sleep(limits::TROUBLE_WATCH).await;
            for (level, text) in self.obs.look_for_trouble(&mut troubles, Instant::now()) {
                process::say(level, text);
            }
        }
    }
}
