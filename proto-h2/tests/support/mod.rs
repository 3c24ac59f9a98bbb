//! Case files and the driver that runs a connection over them. No verdict is written here: the
//! files say what must come out.

#![allow(dead_code)] // Each test uses its part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

pub(crate) mod driver;
pub(crate) mod frames;

use std::path::Path;

use frames::write_frame;
use weir_proto_h2::Config;

/// One case of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) why: String,
    pub(crate) config: Config,
    /// What comes before the first frame of the case is not part of it.
    pub(crate) is_raw: bool,
    pub(crate) shows_fields: bool,
    pub(crate) steps: Vec<Step>,
    pub(crate) out: Vec<String>,
}

/// What happens, in its order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The peer sends.
    In(Vec<u8>),
    /// The caller does something, once all that was sent before was received.
    Do(String),
}

impl Case {
    /// The bytes that the peer sends, all together.
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "case"));
    paths.sort();
    paths.iter().flat_map(|path| load_file(path)).collect()
}

fn load_file(path: &Path) -> Vec<Case> {
    let file = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let mut defaults = Case {
        file,
        ..Case::default()
    };
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{}", defaults.file, number + 1);
        let (key, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("{place}: expected `key: value`"));
        if key == "case" {
            cases.push(Case {
                name: value.into(),
                ..defaults.clone()
            });
            continue;
        }
        let case = cases.last_mut().unwrap_or(&mut defaults);
        match key {
            "role" => case.role = value.into(),
            "why" => case.why = value.into(),
            "limits" => read_limits(value, &mut case.config),
            "raw" => case.is_raw = value == "yes",
            "fields" => case.shows_fields = value == "yes",
            "in" => case.steps.push(Step::In(write_frame(value))),
            "do" => case.steps.push(Step::Do(value.into())),
            "out" => case.out.push(value.into()),
            _ => match key.strip_prefix("in*").and_then(|times| times.parse().ok()) {
                Some(times) => case.steps.push(Step::In(write_frame(value).repeat(times))),
                None => panic!("{place}: unknown key {key}"),
            },
        }
    }
    cases
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

/// Resolves `\r`, `\n`, `\t`, `\0`, `\s` (a space), `\\` and `\xHH`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next().expect("something after a backslash") {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b's' => b' ',
            b'\\' => b'\\',
            b'x' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("unknown escape {}", char::from(other)),
        });
    }
    out
}

pub(crate) fn show(bytes: &[u8]) -> String {
    if bytes.len() > 200 && bytes.iter().all(|byte| *byte == bytes[0]) {
        return format!("{}*{}", char::from(bytes[0]), bytes.len());
    }
    bytes
        .escape_ascii()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
        .replace("\\x00", "\\0")
}
