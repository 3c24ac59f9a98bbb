//! The bodies of the fuzz targets, which also run in the test that replays the corpus. A body
//! panics if a property does not hold.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic reports a violated property.

mod machine;
mod peer;

use weir_proto_h1::{
    Edits, FieldId, Framing as Http1Framing, Head, Limits, Parsed, Request, Span, encode_request,
    parse_request, request_body,
};
use weir_proto_h2::{Config, Connection, Event, FloodLimits};

/// The body of a fuzz target. The target, its corpus and its body have the same name.
pub(crate) type Body = fn(&[u8]);

pub(crate) const BODIES: &[(&str, Body)] =
    &[("frames", frames), ("server", server), ("client", client)];

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The configuration of the machines. Its limits are low, so that steps reach them.
pub(crate) const CONFIG: Config = Config {
    streams_max: 6,
    stream_window_bytes: 65_535,
    stream_window_bytes_max: 200_000,
    connection_window_bytes: 100_000,
    connection_window_bytes_max: 300_000,
    list_bytes_max: 2_048,
    fields_max: 16,
    target_bytes_max: 128,
    extended_connect: true,
    is_https: false,
    floods: FloodLimits {
        resets_max: 30,
        settings_max: 20,
        pings_max: 20,
        priorities_max: 20,
        window_updates_max: 40,
        empty_data_max: 20,
        tiny_data_max: 60,
        unknown_max: 20,
        idle_max: 20,
        continuations_max: 4,
        block_bytes_max: 4_096,
    },
};

/// Receives frames whole, cut at a position, and byte by byte, after the preface and SETTINGS.
/// Events and output are the same.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((&cut, wire)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(cut).min(wire.len());
    let mut input = PREFACE.to_vec();
    input.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let start = input.len();
    input.extend_from_slice(wire);
    let whole = receive_all(&input, &[]);
    assert_eq!(
        whole,
        receive_all(&input, &[start + cut]),
        "a cut changes nothing"
    );
    let every: Vec<usize> = (1..input.len()).collect();
    assert_eq!(whole, receive_all(&input, &every), "cuts change nothing");
}

/// Returns the events as text, with adjacent data joined, and the output.
fn receive_all(input: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>) {
    let mut connection = Connection::server(CONFIG);
    let (mut head, mut text) = (Head::new(), Vec::new());
    let (mut lines, mut out, mut start) = (Vec::<String>::new(), Vec::new(), 0);
    for end in cuts.iter().copied().chain([input.len()]) {
        let mut rest = &input[start..end];
        start = end;
        loop {
            let received = match connection.receive(rest, 0, &mut head, &mut text) {
                Ok(received) => received,
                Err(error) => {
                    assert_eq!(
                        connection.receive(b"x", 0, &mut head, &mut text),
                        Err(error)
                    );
                    lines.push(format!("error {error}"));
                    connection.take_output(&mut out);
                    return (lines, out);
                }
            };
            connection.take_output(&mut out);
            assert!(
                received.consumed <= rest.len(),
                "more bytes were consumed than there were"
            );
            let at = rest;
            rest = &rest[received.consumed..];
            match received.event {
                Event::NeedMore => {
                    assert!(rest.is_empty(), "all input is taken");
                    break;
                }
                Event::Handled => {}
                Event::Data {
                    stream,
                    range,
                    is_end,
                } => {
                    let name = format!("data {} ", stream.id());
                    let data = String::from_utf8_lossy(&at[range]).into_owned();
                    match lines.last_mut() {
                        Some(line) if line.starts_with(&name) => line.push_str(&data),
                        _ => lines.push(name + &data),
                    }
                    if is_end {
                        lines.push(format!("end {}", stream.id()));
                    }
                }
                Event::End { stream } => lines.push(format!("end {}", stream.id())),
                event => {
                    lines.push(format!("{event:?}"));
                    if let Event::Request { request, .. } = &event {
                        survives_http1(&head, &text, request);
                    }
                    if matches!(event, Event::Request { .. } | Event::Trailers { .. }) {
                        check_head(&head, &text);
                        lines.push(format!("{:?} {:?}", head.fields, text));
                    }
                }
            }
        }
    }
    (lines, out)
}

/// An accepted request means the same when it is forwarded as HTTP/1.1.
fn survives_http1(head: &Head, text: &[u8], request: &Request) {
    if request.upgrade.is_some() {
        return; // HTTP/1.1 has no extended CONNECT.
    }
    let framing = Http1Framing {
        body: request.body,
        accepts_trailers: request.accepts_trailers,
        ..Http1Framing::default()
    };
    let mut wire = Vec::new();
    encode_request(&mut wire, text, head, &Edits::new(), &framing);
    let limits = Limits {
        head_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let mut copy = Head::new();
    let parsed = parse_request(&wire, &limits, &mut copy);
    assert_eq!(
        parsed,
        Ok(Parsed::Complete(wire.len())),
        "one request, whole"
    );
    assert_eq!(copy.method_span.get(&wire), head.method_span.get(text));
    assert_eq!(copy.target.get(&wire), head.target.get(text));
    assert_eq!(copy.authority.get(&wire), head.authority.get(text));
    assert_eq!(request_body(&mut copy, &wire), Ok(request.body));
    let fields = |head: &Head, block: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let rest = head.iter().filter(|field| {
            let id = field.id;
            !matches!(
                id,
                FieldId::Host
                    | FieldId::ContentLength
                    | FieldId::TransferEncoding
                    | FieldId::Connection
                    | FieldId::Te
            )
        });
        let text = |span: Span| span.get(block).to_vec();
        rest.map(|field| (text(field.name), text(field.value)))
            .collect()
    };
    assert_eq!(fields(&copy, &wire), fields(head, text));
}

/// Checks what must hold for any head.
pub(crate) fn check_head(head: &Head, text: &[u8]) {
    assert!(head.is_complete() && head.iter().count() <= CONFIG.fields_max as usize);
    for field in head.iter() {
        let (name, value) = (field.name.get(text), field.value.get(text));
        assert!(!name.is_empty() && !name.iter().any(u8::is_ascii_uppercase));
        assert!(
            name.iter()
                .all(|byte| byte.is_ascii_graphic() && *byte != b':')
        );
        assert!(
            value
                .iter()
                .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        );
        assert_eq!(value.trim_ascii(), value);
        assert!(!matches!(
            field.id,
            FieldId::Connection
                | FieldId::TransferEncoding
                | FieldId::KeepAlive
                | FieldId::Upgrade
                | FieldId::ProxyConnection
                | FieldId::Te
        ));
    }
    for span in [head.authority, head.target, head.method_span] {
        assert!(span.get(text).iter().all(u8::is_ascii_graphic));
    }
    assert!(head.all(FieldId::Cookie).count() <= 1, "crumbs are joined");
}

/// Runs random steps of peer and caller, with the machine as server.
pub(crate) fn server(bytes: &[u8]) {
    machine::Machine::new(false).run(bytes);
}

/// Runs random steps of peer and caller, with the machine as client.
pub(crate) fn client(bytes: &[u8]) {
    machine::Machine::new(true).run(bytes);
}
