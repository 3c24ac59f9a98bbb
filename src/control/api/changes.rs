//! `/api/changes`: what operators have changed at run time.

use super::reply::Reply;
use crate::control::Control;

/// All changes of endpoints.
pub(super) fn list(control: &Control) -> Reply {
    Reply::json(&control.state.borrow().overrides.list())
}
