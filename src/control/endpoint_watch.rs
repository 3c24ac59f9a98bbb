//! Logs what happens at endpoints: which begin to fail, which recover, and what cores report.

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
            self.log_reports();
            for (level, text) in self.obs.look_for_trouble(&mut troubles, Instant::now()) {
                process::say(level, text);
            }
        }
    }

    /// Logs what cores have reported since the last call.
    pub(super) fn log_reports(&self) {
        for report in self.obs.take_reports() {
            process::say(report.level(), report);
        }
    }
}
