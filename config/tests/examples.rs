//! The examples are valid, and decoder, schema and reference agree with each other.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};

use support::schema::Schema;

#[test]
fn examples_are_usable_and_fit_the_schema() {
    let schema = Schema::new(&weir_config::schema());
    let examples = examples();
    assert!(examples.len() >= 5);
    for (file, text) in examples {
        let name = file.display().to_string();
        match weir_config::parse(&name, &text) {
            Ok((_, warnings)) => {
                assert!(warnings.is_empty(), "{}", weir_config::to_text(&warnings))
            }
            Err(errors) => panic!("{}", weir_config::to_text(&errors)),
        }
        let problems = schema.problems(&support::toml_to_json(&text));
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn the_everything_example_names_every_key() {
    let text = read("examples/everything.toml");
    let reference = weir_config::reference();
    let keys = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key);
    for key in keys {
        let written = [format!("{key} ="), format!("[{key}"), format!(".{key}]")];
        assert!(
            written.iter().any(|written| text.contains(written)),
            "`{key}` is missing in examples/everything.toml"
        );
    }
}

#[test]
fn defaults_fit_the_schema() {
    let defaults = Schema::new(&weir_config::schema()).defaults();
    assert!(defaults.len() > 40, "only {} defaults", defaults.len());
    for (key, problems) in defaults {
        assert!(problems.is_empty(), "{key}: {problems:#?}");
    }
}

/// The schema refuses values that the decoder refuses for their type or unit.
#[test]
fn the_schema_refuses_invalid_values() {
    let schema = Schema::new(&weir_config::schema());
    for text in [
        "core = 1",
        "cores = 0",
        "cores = 1.5",
        "cores = \"x\"",
        "[timeouts]\nhead = 10",
        "[timeouts]\nhead = \"10\"",
        "[timeouts]\nhead = \"10sec\"",
        "[timeouts]\ntotal = false",
        "[limits]\nbody = \"10\"",
        "[limits]\nfields = \"100\"",
        "[limits]\nfields = 1001",
        "[retries]\nbudget = \"101%\"",
        "retries = 11",
        "retries = { on = \"Reset\" }",
        "retries = { methods = [\"get\"] }",
        "[listen.\"0.0.0.0:80\"]\ntls = \"auto\"",
        "[listen.\"0.0.0.0:53\"]\nudp = {}",
        "[listen.\"0.0.0.0:53\"]\nudp = { to = \"a\", replies = -1 }",
        "[upstream.a]\nserver = \"10.0.0.1:80\"",
        "[upstream.a]\nservers = 5",
        "[upstream.a]\nservers = [{ weight = 1 }]",
        "[upstream.a]\nbalance = \"magic\"",
        "[[route]]\nto = \"a\"",
        "[[route]]\nmatch = \"example.com\"\nto = \"a\"",
        "[[route]]\nmatch = \"/\"\nredirect = { location = \"/\", status = 304 }",
        "[[route]]\nmatch = \"/\"\nrespond = 600",
        "[route]\nmatch = \"/\"",
        "[[test]]\nrequest = \"GET /\"",
    ] {
        assert!(weir_config::parse("case", text).is_err(), "{text}");
        let problems = schema.problems(&support::toml_to_json(text));
        assert!(!problems.is_empty(), "the schema accepts:\n{text}");
    }
}

#[test]
fn the_reference_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.md");
    let reference = weir_config::reference();
    if std::env::var_os("WEIR_UPDATE").is_some() {
        std::fs::write(&file, &reference).expect("to write the reference");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == reference,
        "config/reference.md is out of date: WEIR_UPDATE=1 cargo test -p weir-config"
    );
}

/// A default that the file writes means the same as one that it leaves out.
#[test]
fn defaults_can_be_written() {
    let rest = "[listen.\"0.0.0.0:80\"]\n[[route]]\nmatch = \"/\"\nrespond = 404\n";
    let short = weir_config::parse("short", rest).expect("a valid file").0;
    let written = "cores = \"auto\"\ndriver = \"auto\"\naccess_log = \"off\"\n\
        timeouts = { head = \"10s\", idle = \"75s\", connect = \"2s\", first_byte = \"1m\", \
        body_stall = \"30s\", upstream_idle = \"60s\", total = \"off\", grace = \"30s\" }\n\
        limits = { head = \"16KiB\", fields = 100, target = \"8KiB\", body = \"off\", \
        body_rate = \"240B/s\", connections = \"auto\", connections_per_client = 16384, memory_per_core = \"auto\" }\n\
        retries = { count = 1, budget = \"20%\", budget_min = 3, backoff = \"25ms\", \
        per_try = \"off\", on = \"connect,reset,invalid,503\", \
        methods = [\"GET\", \"HEAD\", \"OPTIONS\", \"PUT\", \"DELETE\"], hedge = \"off\" }\n";
    let long = weir_config::parse("long", &format!("{written}{rest}")).expect("a valid file");
    assert_eq!(short.timeouts, long.0.timeouts);
    assert_eq!(short.limits, long.0.limits);
    assert_eq!(short.retries, long.0.retries);
    assert_eq!(short.cores, long.0.cores);
    assert_eq!(short.driver, long.0.driver);
    assert_eq!(short.access_log, long.0.access_log);
}

fn examples() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = std::fs::read_dir(folder).expect("the folder of examples");
    let files = entries.map(|entry| entry.expect("an entry").path());
    files
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("an example");
            (file, text)
        })
        .collect()
}

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(file).expect("a file of the crate")
}
