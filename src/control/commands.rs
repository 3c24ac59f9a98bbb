//! Sends commands to the cores and waits until they have obeyed.

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout};

use super::{Control, limits};
use crate::io::ListenSocket;
use crate::obs::process;
use crate::plan::EndpointSets;
use crate::serving::{Command, Receipt, Receipts};

impl Control {
    /// Sends a command to every core, until `deadline`.
    pub(super) async fn send_to_all(
        &self,
        mut command: impl FnMut() -> Command<ListenSocket>,
        deadline: Instant,
    ) {
        for core in 0..self.cores.count() {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = timeout(left, self.send(core, command())).await;
        }
    }

    /// Sends a command to a core. Waits while the core's mailbox is full.
    pub(super) async fn send(&self, core: usize, mut command: Command<ListenSocket>) {
        let begun = Instant::now();
        let mut is_logged = false;
        while let Err(returned) = self.cores.send(core, command) {
            let is_late = self.draining.get() && matches!(returned, Command::Plan { .. });
            if is_late || self.cores.has_ended() {
                return;
            }
            command = returned;
            if !is_logged && begun.elapsed() > limits::MAILBOX_PATIENCE {
                process::warn(format_args!("core {core} does not empty its mailbox"));
                is_logged = true;
            }
            sleep(limits::MAILBOX_RETRY).await;
        }
    }

    /// Sends each core a command of its own and waits until all cores have obeyed, or one is stuck. What the log calls
    /// changed has then changed.
    pub(super) async fn change(&self, mut command: impl FnMut(Receipt) -> Command<ListenSocket>) {
        let (receipt, receipts) = Receipts::new();
        for core in 0..self.cores.count() {
            self.send(core, command(receipt.clone())).await;
        }
        drop(receipt);
        wait_for_cores(receipts).await;
    }

    /// Has all cores use these endpoints of the plan of `plan_epoch`. A core whose mailbox is full reads the board.
    pub(super) async fn change_endpoints(&self, plan_epoch: u64, endpoints: &Arc<EndpointSets>) {
        self.cores.board().post(plan_epoch, endpoints.clone());
        let (receipt, receipts) = Receipts::new();
        for core in 0..self.cores.count() {
            let command = Command::Endpoints {
                endpoints: endpoints.clone(),
                epoch: plan_epoch,
                receipt: receipt.clone(),
            };
            drop(self.cores.send(core, command));
        }
        drop(receipt);
        wait_for_cores(receipts).await;
    }
}

/// Waits until all cores have obeyed, or one is stuck.
async fn wait_for_cores(receipts: Receipts) {
    let obeyed = timeout(limits::OBEY_PATIENCE, receipts.all()).await;
    if obeyed.is_err() {
        process::warn("a core does not read its mailbox, so it does not run what has changed");
    }
}
