//! What a line of the access log looks like.

use std::fmt::Write as _;

use super::access::Format;
use super::errno;
use super::event::Exchange;
use super::process::now_ms;
use super::sheet::Names;
use super::text;

/// Appends an exchange as one JSON object. Every member is always there; what does not apply is null.
pub(super) fn json(out: &mut String, event: &Exchange<'_>, names: Option<&Names>) {
    let named = Resolved::new(event, names);
    out.push_str("{\"time\":\"");
    text::time(out, event.time_ms);
    out.push_str("\",\"id\":");
    text::json(out, event.id_text(&mut [0; 32]));
    match event.client {
        Some(client) => drop(write!(out, ",\"client\":\"{client}\"")),
        None => out.push_str(",\"client\":null"),
    }
    member(out, "listener", named.listener.map(str::as_bytes));
    member(out, "method", Some(event.method));
    member(out, "host", Some(event.host));
    member(out, "path", Some(event.path));
    member(out, "version", Some(event.version.as_bytes()));
    let tls = event.tls.as_ref();
    member(out, "tls", tls.map(|tls| tls.version().as_bytes()));
    member(out, "cipher", tls.map(|tls| tls.cipher().as_bytes()));
    let resumed = match tls.map(|tls| tls.resumed) {
        Some(true) => "true",
        Some(false) => "false",
        None => "null",
    };
    let _ = write!(out, ",\"resumed\":{resumed}");
    let client_cert = Some(event.client_cert).filter(|subject| !subject.is_empty());
    member(out, "client_cert", client_cert);
    let _ = write!(out, ",\"status\":{}", event.status);
    match event.grpc_status {
        Some(status) => drop(write!(out, ",\"grpc_status\":{status}")),
        None => out.push_str(",\"grpc_status\":null"),
    }
    let (bytes_in, bytes_out) = (event.bytes_in, event.bytes_out);
    let _ = write!(out, ",\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out}");
    member(out, "route", named.route.map(str::as_bytes));
    member(out, "upstream", named.upstream.map(str::as_bytes));
    member(out, "endpoint", named.endpoint.map(str::as_bytes));
    let _ = write!(out, ",\"attempts\":{}", event.attempts);
    for (name, us) in times(event) {
        let _ = write!(out, ",\"{name}_ms\":");
        text::millis(out, us);
    }
    member(out, "errno", errno::name(event.errno, &mut [0; 8]));
    member(
        out,
        "reason",
        event.reason.map(|reason| reason.code().as_bytes()),
    );
    out.push_str("}\n");
}

/// Appends an exchange as one line for people; what does not apply is `-`.
pub(super) fn text(out: &mut String, event: &Exchange<'_>, names: Option<&Names>) {
    let named = Resolved::new(event, names);
    text::time(out, event.time_ms);
    match event.client {
        Some(client) => drop(write!(out, " {client} ")),
        None => out.push_str(" - "),
    }
    for bytes in [event.method, event.host, event.path] {
        text::quoted(out, bytes);
        out.push(' ');
    }
    let _ = write!(out, "{} {}", event.version, event.status);
    let _ = write!(out, " in={} out={}", event.bytes_in, event.bytes_out);
    for (name, us) in times(event) {
        let _ = write!(out, " {name}=");
        text::millis(out, us);
    }
    let parts = [
        ("listener", named.listener),
        ("route", named.route),
        ("upstream", named.upstream),
        ("endpoint", named.endpoint),
    ];
    for (name, value) in parts {
        let _ = write!(out, " {name}=");
        match value {
            Some(value) => text::quoted(out, value.as_bytes()),
            None => out.push('-'),
        }
    }
    if let Some(tls) = &event.tls {
        let how = if tls.resumed { "resumed" } else { "full" };
        let _ = write!(out, " tls={},{},{how}", tls.version(), tls.cipher());
    }
    if let Some(status) = event.grpc_status {
        let _ = write!(out, " grpc_status={status}");
    }
    if !event.client_cert.is_empty() {
        out.push_str(" client_cert=");
        text::quoted(out, event.client_cert);
    }
    if let Some(errno) = errno::name(event.errno, &mut [0; 8]) {
        let _ = write!(out, " errno={}", String::from_utf8_lossy(errno));
    }
    let reason = event.reason.map_or("-", |reason| reason.code());
    let _ = writeln!(
        out,
        " attempts={} reason={reason} id={}",
        event.attempts,
        String::from_utf8_lossy(event.id_text(&mut [0; 32]))
    );
}

/// Appends the news that lines are missing.
pub(super) fn dropped(out: &mut String, format: Format, core: usize, lines: u64) {
    match format {
        Format::Json => {
            out.push_str("{\"time\":\"");
            text::time(out, now_ms());
            let _ = writeln!(out, "\",\"dropped\":{lines},\"core\":{core}}}");
        }
        Format::Text => {
            text::time(out, now_ms());
            let _ = writeln!(out, " dropped={lines} core={core}");
        }
    }
}

/// Names of the parts that an exchange met; those of a plan too long gone are unknown.
struct Resolved<'a> {
    listener: Option<&'a str>,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
}

impl<'a> Resolved<'a> {
    fn new(event: &Exchange<'_>, names: Option<&'a Names>) -> Self {
        let endpoint = |names: &'a Names| {
            let endpoints = names.endpoints.get(event.upstream?.0 as usize)?;
            endpoints.get(event.endpoint?)
        };
        Self {
            listener: names
                .and_then(|names| names.listeners.get(event.listener.0))
                .map(AsRef::as_ref),
            route: names
                .and_then(|names| names.routes.get(event.route?.0))
                .map(AsRef::as_ref),
            upstream: names
                .and_then(|names| names.upstreams.get(event.upstream?.0))
                .map(AsRef::as_ref),
            endpoint: names.and_then(endpoint).map(AsRef::as_ref),
        }
    }
}

fn times(event: &Exchange<'_>) -> [(&'static str, u64); 4] {
    [
        ("total", event.total_us),
        ("queue", event.queue_us),
        ("connect", event.connect_us),
        ("first_byte", event.first_byte_us),
    ]
}

fn member(out: &mut String, name: &str, value: Option<&[u8]>) {
    let _ = write!(out, ",\"{name}\":");
    match value {
        Some(value) => text::json(out, value),
        None => out.push_str("null"),
    }
}
