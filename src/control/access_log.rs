//! Opens the access log at a start, at a reload and after a rotation.

use std::rc::Rc;

use tokio::time::timeout;
use weir_config::LogTarget;

use super::phrases::seconds;
use super::{Control, limits};
use crate::obs::{AccessLog, LineStyle, Redactor, process};

/// Opens the access log on a thread of its own, because a file system may not answer.
///
/// # Errors
/// The log cannot be opened, or not within [`limits::FILE_PATIENCE`].
pub(super) async fn open(log: Option<weir_config::AccessLog>) -> Result<Option<AccessLog>, String> {
    let Some(log) = log else { return Ok(None) };
    let name = match &log.to {
        LogTarget::Stdout => "standard output".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    };
    let open = move || {
        let style = LineStyle::new(log.format, Redactor::new(log.redact.as_deref()));
        match log.to {
            LogTarget::Stdout => AccessLog::stdout(style),
            LogTarget::File(path) => AccessLog::file(path, style),
        }
    };
    let opened = timeout(limits::FILE_PATIENCE, tokio::task::spawn_blocking(open)).await;
    let why = match opened {
        Ok(Ok(Ok(log))) => return Ok(Some(log)),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "opening it panicked".to_owned(),
        Err(_) => format!("no answer within {}", seconds(limits::FILE_PATIENCE)),
    };
    Err(format!("cannot open the access log {name}: {why}"))
}

impl Control {
    /// Opens log files by their names again. A log that cannot be opened stays as it is.
    pub(super) async fn reopen_logs(self: Rc<Self>) {
        let wanted = self.state.borrow().config.access_log.clone();
        let opened = open(wanted.clone()).await;
        if self.state.borrow().config.access_log != wanted {
            // A reload has opened another log meanwhile.
            return;
        }
        match opened {
            Ok(log) => self.obs.set_access_log(log),
            Err(error) => process::error(error),
        }
    }
}
