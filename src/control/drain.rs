//! Ends the process without cutting off clients.

use std::rc::Rc;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use weir_config::Timeouts;

use super::phrases::{count, seconds};
use super::signals::{ProcessSignal, Signals};
use super::{Control, limits};
use crate::obs::process;
use crate::serving::Command;

impl Control {
    /// Announces the end and serves on for `drain_delay`, so that load balancers notice before clients do.
    pub(super) async fn delay_drain(self: &Rc<Self>, name: &str, signals: &mut Signals) {
        self.draining.set(true);
        let Timeouts {
            drain_delay: delay,
            grace,
            ..
        } = self.state.borrow().config.timeouts;
        let at_most = delay + grace + limits::STOP * 2;
        self.manager.stopping("Draining", at_most);
        if delay.is_zero() {
            return process::info(format_args!("{name}: draining"));
        }
        process::info(format_args!(
            "{name}: health says 503 now; serving on for {}",
            seconds(delay)
        ));
        let end = Instant::now() + delay;
        self.send_to_all(|| Command::AnnounceEnd, end).await;
        while let Ok(signal) = timeout_at(end, signals.next()).await {
            match signal {
                ProcessSignal::Stop(name) => {
                    return process::info(format_args!("{name} again: draining"));
                }
                other => self.obey_while_ending(&other),
            }
        }
        process::info("draining");
    }

    /// Ends this process after another one has replaced it. Lets clients learn of the end first; see
    /// [`limits::UPGRADE_SETTLE`].
    ///
    /// # Errors
    /// A core does not end.
    pub(super) async fn drain_replaced(
        self: &Rc<Self>,
        signals: &mut Signals,
    ) -> Result<(), String> {
        let delay = self.state.borrow().config.timeouts.drain_delay;
        let end = Instant::now() + delay.max(limits::UPGRADE_SETTLE);
        self.send_to_all(|| Command::AnnounceEnd, end).await;
        while Instant::now() < end && self.obs.load().1 > 0 {
            match timeout(limits::WATCH, signals.next()).await {
                Ok(ProcessSignal::Stop(_)) => break,
                Ok(other) => self.obey_while_ending(&other),
                Err(_) => {}
            }
        }
        self.drain(signals).await
    }

    /// Stops accepting, waits for exchanges to finish, and ends the cores.
    ///
    /// # Errors
    /// A core does not end.
    pub(super) async fn drain(self: &Rc<Self>, signals: &mut Signals) -> Result<(), String> {
        self.draining.set(true);
        let grace = self.state.borrow().plan.grace;
        let deadline = Instant::now() + grace;
        self.send_to_all(|| Command::Drain { grace }, deadline)
            .await;
        while !self.cores.has_ended() && Instant::now() < deadline {
            match timeout(limits::WATCH, signals.next()).await {
                Ok(ProcessSignal::Stop(name)) => {
                    process::warn(format_args!("{name} again: ending at once"));
                    break;
                }
                Ok(other) => self.obey_while_ending(&other),
                Err(_) => {}
            }
        }
        if self.cores.has_ended() {
            process::info("drained");
            return Ok(());
        }
        let (exchanges, connections) = self.obs.load();
        process::warn(format_args!(
            "cutting off {} with {} under way",
            count(connections as usize, "connection"),
            count(exchanges as usize, "exchange"),
        ));
        let deadline = Instant::now() + limits::STOP;
        self.send_to_all(|| Command::Stop, deadline).await;
        while !self.cores.has_ended() {
            if Instant::now() >= deadline {
                return Err("the cores do not end; leaving without them".to_owned());
            }
            sleep(limits::WATCH).await;
        }
        Ok(())
    }

    /// Obeys a signal that does not hasten the end.
    fn obey_while_ending(self: &Rc<Self>, signal: &ProcessSignal) {
        match signal {
            ProcessSignal::Stop(_) => {}
            ProcessSignal::Upgrade => {
                return process::warn("SIGUSR2: ending, so nothing is upgraded");
            }
            ProcessSignal::Reload => process::warn("SIGHUP: ending, so nothing is reloaded"),
            ProcessSignal::Reopen => process::info("SIGUSR1: reopening logs"),
        }
        drop(tokio::task::spawn_local(self.clone().reopen_logs()));
    }

    /// Writes the rest of the log and removes the files that this process made.
    pub(super) fn finish(&self) {
        self.handle_reports();
        let mut state = self.state.borrow_mut();
        state.admin = None;
        state.pid_file = None;
        state.files.clear();
        self.obs.stop();
    }
}
