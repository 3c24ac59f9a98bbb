//! Case files, and the driver that runs a connection over them. The expected output is in the
//! files.

#![allow(dead_code)] // Each test uses a part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic fails the test.

#[path = "../../../proto-h1/tests/support/cases.rs"]
pub(crate) mod cases;
pub(crate) mod driver;
pub(crate) mod frames;
#[path = "../../../proto-h1/tests/support/replay.rs"]
pub(crate) mod replay;

pub(crate) use cases::unescape;
use frames::write_frame;
use weir_proto_h2::Config;

/// What a case of this crate runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) role: String,
    pub(crate) config: Config,
    /// Whether the case starts before the preface and SETTINGS.
    pub(crate) is_raw: bool,
    pub(crate) shows_fields: bool,
    pub(crate) steps: Vec<Step>,
}

pub(crate) type Case = cases::Case<Body>;

/// A step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The peer sends bytes.
    In(Vec<u8>),
    /// The caller makes a step, after all earlier bytes were received.
    Do(String),
}

impl Body {
    /// The bytes that the peer sends.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let bytes = self.steps.iter().filter_map(|step| match step {
            Step::In(bytes) => Some(bytes.as_slice()),
            Step::Do(_) => None,
        });
        bytes.flatten().copied().collect()
    }
}

/// Reads every case under `tests/cases`.
pub(crate) fn load() -> Vec<Case> {
    cases::load("tests/cases", |body: &mut Body, key, value| {
        match key {
            "role" => body.role = value.into(),
            "limits" => read_limits(value, &mut body.config),
            "raw" => body.is_raw = value == "yes",
            "fields" => body.shows_fields = value == "yes",
            "in" => body.steps.push(Step::In(write_frame(value))),
            "do" => body.steps.push(Step::Do(value.into())),
            _ => match key.strip_prefix("in*").and_then(|times| times.parse().ok()) {
                Some(times) => body.steps.push(Step::In(write_frame(value).repeat(times))),
                None => return false,
            },
        }
        true
    })
}

fn read_limits(text: &str, config: &mut Config) {
    for pair in text.split_whitespace() {
        let (name, value) = pair.split_once('=').unwrap();
        let value: u32 = value.parse().unwrap();
        match name {
            "streams_max" => config.streams_max = value,
            "stream_window_bytes" => config.stream_window_bytes = value,
            "stream_window_bytes_max" => config.stream_window_bytes_max = value,
            "connection_window_bytes" => config.connection_window_bytes = value,
            "connection_window_bytes_max" => config.connection_window_bytes_max = value,
            "list_bytes_max" => config.list_bytes_max = value,
            "fields_max" => config.fields_max = value,
            "target_bytes_max" => config.target_bytes_max = value,
            "extended_connect" => config.extended_connect = value == 1,
            "is_https" => config.is_https = value == 1,
            "resets_max" => config.floods.resets_max = value,
            "settings_max" => config.floods.settings_max = value,
            "pings_max" => config.floods.pings_max = value,
            "priorities_max" => config.floods.priorities_max = value,
            "window_updates_max" => config.floods.window_updates_max = value,
            "empty_data_max" => config.floods.empty_data_max = value,
            "tiny_data_max" => config.floods.tiny_data_max = value,
            "unknown_max" => config.floods.unknown_max = value,
            "idle_max" => config.floods.idle_max = value,
            "continuations_max" => config.floods.continuations_max = value,
            "block_bytes_max" => config.floods.block_bytes_max = value,
            _ => panic!("unknown limit {name}"),
        }
    }
}

/// Bytes in the spelling of case files. A long run of one byte is the byte and its count.
pub(crate) fn show(bytes: &[u8]) -> String {
    if bytes.len() > 200 && bytes.iter().all(|byte| *byte == bytes[0]) {
        return format!("{}*{}", char::from(bytes[0]), bytes.len());
    }
    cases::show(bytes)
}
