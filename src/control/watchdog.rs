//! The service manager's watchdog. Control feeds it only while every core answers.

use std::pin::pin;
use std::rc::Rc;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Control, limits};
use crate::obs::process;
use crate::serving::{Command, Receipts};

impl Control {
    /// Feeds the watchdog twice within its timeout, for as long as the process runs. If a core hangs, it gets nothing.
    pub(super) async fn feed_watchdog(self: Rc<Self>) {
        let Some(timeout) = self.manager.watchdog else {
            return;
        };
        let mut ticks = interval(timeout / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.wait_for_answers().await;
            self.manager.alive();
        }
    }

    /// Waits until every core has answered, however long that takes.
    async fn wait_for_answers(&self) {
        let mut asked = Vec::new();
        for core in 0..self.cores.count() {
            let (receipt, receipts) = Receipts::new();
            self.send(core, Command::Answer { _receipt: receipt }).await;
            asked.push((core, receipts));
        }
        for (core, receipts) in asked {
            let mut answered = pin!(receipts.all());
            let mut is_logged = false;
            while timeout(limits::ANSWER_PATIENCE, answered.as_mut())
                .await
                .is_err()
            {
                if self.draining.get() && self.cores.has_core_ended(core) {
                    break;
                }
                if !is_logged {
                    is_logged = true;
                    process::warn(format_args!("core {core} does not answer"));
                    self.manager
                        .status(format_args!("core {core} does not answer"));
                }
            }
            if is_logged {
                process::info(format_args!("core {core} answers again"));
                self.manager
                    .status(format_args!("core {core} answers again"));
            }
        }
    }
}
