//! The formats of access log lines. Whatever a request contains, a line stays one line and a field one field.

use std::borrow::Cow;
use std::fmt::Write as _;

use weir_config::LogFormat;

use super::access_log::LineStyle;
use super::errno;
use super::event::ExchangeEvent;
use super::fields;
use super::plan_counters::PlanNames;
use super::process::now_ms;
use super::text;
use crate::policy::PolicyKind;

/// Appends the line of an exchange.
pub(super) fn exchange(
    out: &mut String,
    style: &LineStyle,
    event: &ExchangeEvent<'_>,
    names: Option<&PlanNames>,
) {
    match style.format {
        LogFormat::Json => json(out, style, event, names),
        LogFormat::Text => text(out, style, event, names),
        LogFormat::Combined => combined(out, style, event),
        LogFormat::Logfmt => logfmt(out, style, event, names),
    }
}

/// Appends a line that reports lost lines. Returns false if the format has no place for it.
pub(super) fn dropped(out: &mut String, format: LogFormat, core: usize, lines: u64) -> bool {
    match format {
        LogFormat::Json => {
            out.push_str("{\"time\":\"");
            text::time(out, now_ms());
            let _ = writeln!(out, "\",\"dropped\":{lines},\"core\":{core}}}");
        }
        LogFormat::Text => {
            text::time(out, now_ms());
            let _ = writeln!(out, " dropped={lines} core={core}");
        }
        LogFormat::Logfmt => {
            out.push_str("time=");
            text::time(out, now_ms());
            let _ = writeln!(out, " dropped={lines} core={core}");
        }
        LogFormat::Combined => return false,
    }
    true
}

/// A value in a line.
enum LineValue<'a> {
    Text(Cow<'a, [u8]>),
    Time(u64),
    Number(u64),
    /// Microseconds, shown as milliseconds.
    Millis(u64),
    Flag(bool),
    None,
}

impl<'a> LineValue<'a> {
    fn name(name: Option<&'a str>) -> Self {
        name.map_or(Self::None, |name| Self::Text(name.as_bytes().into()))
    }

    /// A text, or no value if it is empty.
    fn some(text: Cow<'a, [u8]>) -> Self {
        if text.is_empty() {
            Self::None
        } else {
            Self::Text(text)
        }
    }
}

/// Calls `each` for every field but the configured ones, in order.
fn each_field(
    style: &LineStyle,
    event: &ExchangeEvent<'_>,
    names: Option<&PlanNames>,
    mut each: impl FnMut(&'static str, LineValue<'_>),
) {
    let (named, redact) = (ResolvedNames::new(event, names), &style.redact);
    each("time", LineValue::Time(event.time_ms));
    let mut digits = [0; 32];
    each("id", LineValue::Text(event.id_text(&mut digits).into()));
    let client = event.client.map(|client| client.to_string());
    each("client", LineValue::name(client.as_deref()));
    each("listener", LineValue::name(named.listener));
    each("method", LineValue::Text(event.method.into()));
    each("host", LineValue::Text(event.host.into()));
    each("path", LineValue::Text(redact.path(event.path)));
    let query = event.query.map(|query| redact.query(query));
    each("query", query.map_or(LineValue::None, LineValue::Text));
    each("version", LineValue::Text(event.version.as_bytes().into()));
    let tls = event.tls.as_ref();
    each("tls", LineValue::name(tls.map(|tls| tls.version())));
    each("cipher", LineValue::name(tls.map(|tls| tls.cipher())));
    let resumed = tls.map(|tls| LineValue::Flag(tls.is_resumed));
    each("resumed", resumed.unwrap_or(LineValue::None));
    each("sni", LineValue::some(event.sni.into()));
    each("client_cert", LineValue::some(event.client_cert.into()));
    each("subject", LineValue::some(event.subject.into()));
    each("user_agent", LineValue::some(event.user_agent.into()));
    each("referer", LineValue::some(redact.address(event.referer)));
    each("status", LineValue::Number(event.status.into()));
    let grpc_status = event
        .grpc_status
        .map(|status| LineValue::Number(status.into()));
    each("grpc_status", grpc_status.unwrap_or(LineValue::None));
    each("bytes_in", LineValue::Number(event.bytes_in));
    each("bytes_out", LineValue::Number(event.bytes_out));
    each("route", LineValue::name(named.route));
    each("upstream", LineValue::name(named.upstream));
    each("endpoint", LineValue::name(named.endpoint));
    each("attempts", LineValue::Number(event.attempts.into()));
    each("total_ms", LineValue::Millis(event.total_us));
    each("queue_ms", LineValue::Millis(event.queue_us));
    each("connect_ms", LineValue::Millis(event.connect_us));
    each("first_byte_ms", LineValue::Millis(event.first_byte_us));
    let mut name = [0; 8];
    let errno = errno::name(event.errno, &mut name);
    each(
        "errno",
        errno.map_or(LineValue::None, |name| LineValue::Text(name.into())),
    );
    each(
        "reason",
        LineValue::name(event.reason.map(|reason| reason.code())),
    );
    each("policy", LineValue::name(event.policy.map(PolicyKind::key)));
    each(
        "would_refuse",
        LineValue::name(event.would_refuse.map(PolicyKind::key)),
    );
}

/// Calls `each` for the configured fields of the request and then of the response.
fn each_configured_field(
    style: &LineStyle,
    event: &ExchangeEvent<'_>,
    names: Option<&PlanNames>,
    mut each: impl FnMut(ConfiguredField<'_>),
) {
    let Some(names) = names else { return };
    let mut values = event.fields;
    for (group, list) in [
        ("request_headers", &names.fields.request),
        ("response_headers", &names.fields.response),
    ] {
        if list.is_empty() {
            continue;
        }
        each(ConfiguredField::Begin(group));
        for name in list {
            let value = fields::next(&mut values);
            let value = value.map(|value| style.redact.field(name, value));
            each(ConfiguredField::Field(group, name, value));
        }
        each(ConfiguredField::End);
    }
}

enum ConfiguredField<'a> {
    Begin(&'static str),
    Field(&'static str, &'a str, Option<Cow<'a, [u8]>>),
    End,
}

/// Formats one JSON object with all members. Members that do not apply are null.
fn json(out: &mut String, style: &LineStyle, event: &ExchangeEvent<'_>, names: Option<&PlanNames>) {
    let mut before = '{';
    each_field(style, event, names, |name, value| {
        let _ = write!(out, "{before}\"{name}\":");
        before = ',';
        match value {
            LineValue::Text(bytes) => text::json(out, &bytes),
            LineValue::Time(ms) => {
                out.push('"');
                text::time(out, ms);
                out.push('"');
            }
            LineValue::Number(number) => drop(write!(out, "{number}")),
            LineValue::Millis(us) => text::millis(out, us),
            LineValue::Flag(flag) => drop(write!(out, "{flag}")),
            LineValue::None => out.push_str("null"),
        }
    });
    each_configured_field(style, event, names, |part| match part {
        ConfiguredField::Begin(group) => {
            let _ = write!(out, ",\"{group}\":");
            before = '{';
        }
        ConfiguredField::Field(_, name, value) => {
            out.push(before);
            before = ',';
            text::json(out, name.as_bytes());
            out.push(':');
            match value {
                Some(value) => text::json(out, &value),
                None => out.push_str("null"),
            }
        }
        ConfiguredField::End => out.push('}'),
    });
    out.push_str("}\n");
}

/// Formats names and values for `logfmt` parsers. A value is bare if none of its characters has a meaning there, and a
/// JSON string otherwise. Values that do not apply are left out.
fn logfmt(
    out: &mut String,
    style: &LineStyle,
    event: &ExchangeEvent<'_>,
    names: Option<&PlanNames>,
) {
    let start = out.len();
    each_field(style, event, names, |name, value| {
        if matches!(value, LineValue::None) {
            return;
        }
        if out.len() > start {
            out.push(' ');
        }
        let _ = write!(out, "{name}=");
        match value {
            LineValue::Text(bytes) => text::logfmt(out, &bytes),
            LineValue::Time(ms) => text::time(out, ms),
            LineValue::Number(number) => drop(write!(out, "{number}")),
            LineValue::Millis(us) => text::millis(out, us),
            LineValue::Flag(flag) => drop(write!(out, "{flag}")),
            LineValue::None => {}
        }
    });
    each_configured_field(style, event, names, |part| {
        if let ConfiguredField::Field(group, name, Some(value)) = part {
            let _ = write!(out, " {group}.{name}=");
            text::logfmt(out, &value);
        }
    });
    out.push('\n');
}

/// Formats one line for people. Fields that always apply come first; those that do not apply are `-` or left out.
fn text(out: &mut String, style: &LineStyle, event: &ExchangeEvent<'_>, names: Option<&PlanNames>) {
    let (named, redact) = (ResolvedNames::new(event, names), &style.redact);
    text::time(out, event.time_ms);
    match event.client {
        Some(client) => drop(write!(out, " {client} ")),
        None => out.push_str(" - "),
    }
    for bytes in [event.method, event.host, &redact.path(event.path)] {
        text::quoted(out, bytes);
        out.push(' ');
    }
    let _ = write!(out, "{} {}", event.version, event.status);
    let _ = write!(out, " in={} out={}", event.bytes_in, event.bytes_out);
    for (name, us) in [
        ("total", event.total_us),
        ("queue", event.queue_us),
        ("connect", event.connect_us),
        ("first_byte", event.first_byte_us),
    ] {
        let _ = write!(out, " {name}=");
        text::millis(out, us);
    }
    for (name, value) in [
        ("listener", named.listener),
        ("route", named.route),
        ("upstream", named.upstream),
        ("endpoint", named.endpoint),
    ] {
        let _ = write!(out, " {name}=");
        match value {
            Some(value) => text::quoted(out, value.as_bytes()),
            None => out.push('-'),
        }
    }
    if let Some(tls) = &event.tls {
        let how = if tls.is_resumed { "resumed" } else { "full" };
        let _ = write!(out, " tls={},{},{how}", tls.version(), tls.cipher());
    }
    if let Some(status) = event.grpc_status {
        let _ = write!(out, " grpc_status={status}");
    }
    if let Some(errno) = errno::name(event.errno, &mut [0; 8]) {
        let _ = write!(out, " errno={}", String::from_utf8_lossy(errno));
    }
    let mut pair = |name: &str, value: &[u8]| {
        if !value.is_empty() {
            let _ = write!(out, " {name}=");
            text::quoted(out, value);
        }
    };
    pair("query", &redact.query(event.query.unwrap_or_default()));
    pair("sni", event.sni);
    pair("client_cert", event.client_cert);
    pair("subject", event.subject);
    pair("user_agent", event.user_agent);
    pair("referer", &redact.address(event.referer));
    each_configured_field(style, event, names, |part| {
        if let ConfiguredField::Field(group, name, Some(value)) = part {
            pair(&format!("{group}.{name}"), &value);
        }
    });
    let reason = event.reason.map_or("-", |reason| reason.code());
    let _ = write!(out, " attempts={} reason={reason}", event.attempts);
    if let Some(policy) = event.policy {
        let _ = write!(out, " policy={}", policy.key());
    }
    if let Some(policy) = event.would_refuse {
        let _ = write!(out, " would_refuse={}", policy.key());
    }
    out.push_str(" id=");
    text::plain(out, event.id_text(&mut [0; 32]));
    out.push('\n');
}

/// Formats the combined log format: `client - - [time] "request" status bytes "referer" "user agent"`.
fn combined(out: &mut String, style: &LineStyle, event: &ExchangeEvent<'_>) {
    match event.client {
        Some(client) => drop(write!(out, "{client}")),
        None => out.push('-'),
    }
    out.push_str(" - - [");
    text::combined_time(out, event.time_ms);
    out.push_str("] \"");
    if event.method.is_empty() {
        out.push('-');
    } else {
        text::combined(out, event.method, true);
        out.push(' ');
        text::combined(out, &style.redact.path(event.path), true);
        if let Some(query) = event.query {
            out.push('?');
            text::combined(out, &style.redact.query(query), true);
        }
        // nginx and Apache write a minor version.
        let version = match event.version {
            "HTTP/2" => "HTTP/2.0",
            version => version,
        };
        let _ = write!(out, " {version}");
    }
    // Parsers expect three digits; nginx uses 444 for "no answer".
    let status = if event.status == 0 { 444 } else { event.status };
    let _ = write!(out, "\" {status} {} \"", event.bytes_out);
    for (at, value) in [style.redact.address(event.referer), event.user_agent.into()]
        .iter()
        .enumerate()
    {
        if at > 0 {
            out.push_str("\" \"");
        }
        if value.is_empty() {
            out.push('-');
        } else {
            text::combined(out, value, false);
        }
    }
    out.push_str("\"\n");
}

#[cfg(test)]
mod tests;

/// The names of the parts that an exchange used; unknown for a plan that is too old.
struct ResolvedNames<'a> {
    listener: Option<&'a str>,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
}

impl<'a> ResolvedNames<'a> {
    fn new(event: &ExchangeEvent<'_>, names: Option<&'a PlanNames>) -> Self {
        let endpoint = |names: &'a PlanNames| {
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
