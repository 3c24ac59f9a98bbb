//! What the case files of both crates have in common: lines of `key: value`, escapes, and reports
//! of failures.

#![allow(dead_code)] // Each test uses a part.

use std::collections::HashSet;
use std::ops::Deref;
use std::path::Path;

/// A case of a file. `B` holds what is specific to its kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case<B> {
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) why: String,
    pub(crate) body: B,
    pub(crate) out: Vec<String>,
}

impl<B> Deref for Case<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.body
    }
}

/// Reads every case in a folder of this crate. `take` gets the lines that are specific to a kind of
/// case, and returns whether it knows the key.
pub(crate) fn load<B: Clone + Default>(
    folder: &str,
    take: impl Fn(&mut B, &str, &str) -> bool,
) -> Vec<Case<B>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "case"));
    paths.sort();
    paths
        .iter()
        .flat_map(|path| load_file(path, &take))
        .collect()
}

fn load_file<B: Clone + Default>(
    path: &Path,
    take: impl Fn(&mut B, &str, &str) -> bool,
) -> Vec<Case<B>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut defaults: Case<B> = Case {
        file: path.file_name().unwrap().to_string_lossy().into_owned(),
        ..Case::default()
    };
    let mut cases: Vec<Case<B>> = Vec::new();
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
            "why" => case.why = value.into(),
            "out" => case.out.push(value.into()),
            _ => assert!(
                take(&mut case.body, key, value),
                "{place}: unknown key {key}"
            ),
        }
    }
    cases
}

/// Checks every case with `verdict`, which returns the problem, if any.
pub(crate) fn check_all<B>(cases: &[Case<B>], verdict: impl Fn(&Case<B>) -> Result<(), String>) {
    let (mut names, mut failures) = (HashSet::new(), Vec::new());
    for case in cases {
        let place = format!("{}: {}", case.file, case.name);
        assert!(!case.why.is_empty(), "{place} has no reason");
        if let Err(problem) = verdict(case) {
            failures.push(format!("{place}{problem}"));
        }
        assert!(names.insert(place), "{} appears twice", case.name);
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// Compares the output of a case with the expected lines.
pub(crate) fn compare<B>(case: &Case<B>, is: &[String]) -> Result<(), String> {
    if is == case.out {
        return Ok(());
    }
    Err(format!(
        "\n  is:     {}\n  should: {}",
        is.join("\n          "),
        case.out.join("\n          ")
    ))
}

/// Longer inputs are cut at some positions only.
const CUT_EVERYWHERE_BYTES_MAX: usize = 700;

/// Runs a case whole, byte by byte, and split at each position of its `len` bytes of input.
pub(crate) fn compare_cut<B>(
    case: &Case<B>,
    len: usize,
    run: impl Fn(&[usize]) -> Vec<String>,
) -> Result<(), String> {
    compare(case, &run(&[]))?;
    let every: Vec<usize> = (1..len).collect();
    compare(case, &run(&every)).map_err(|problem| format!(": byte by byte{problem}"))?;
    let step = 1 + len / CUT_EVERYWHERE_BYTES_MAX;
    (1..len).step_by(step).try_for_each(|cut| {
        compare(case, &run(&[cut])).map_err(|problem| format!(": cut at {cut}{problem}"))
    })
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

/// Bytes in the spelling of case files.
pub(crate) fn show(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
        .replace("\\x00", "\\0")
}
