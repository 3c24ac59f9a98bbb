//! `/api/routes`: the routes of the running plan, in the order of the file.

use std::fmt::Write as _;

use crate::control::Control;
use crate::control::admin_pages::{strings, target};
use crate::obs::text;

/// All routes as JSON.
pub(super) fn page(control: &Control) -> String {
    let state = control.state.borrow();
    let mut out = String::from("[");
    for (at, (route, written)) in state
        .plan
        .routes
        .iter()
        .zip(&state.config.routes)
        .enumerate()
    {
        out.push_str(if at == 0 { "{" } else { ",{" });
        out.push_str("\"name\":");
        text::json(&mut out, route.name.as_bytes());
        // Writing to a string cannot fail.
        let _ = write!(out, ",\"line\":{},\"hosts\":", route.line);
        strings(&mut out, &written.matches.hosts);
        out.push_str(",\"paths\":");
        strings(&mut out, &written.matches.paths);
        out.push_str(",\"methods\":");
        strings(&mut out, &written.matches.methods);
        out.push(',');
        target(&mut out, &state.plan, &route.target);
        let policies: Vec<_> = route
            .steps
            .iter()
            .map(|planned| planned.step.kind().key())
            .collect();
        out.push_str(",\"policies\":");
        strings(&mut out, &policies);
        out.push('}');
    }
    out.push_str("]\n");
    out
}
