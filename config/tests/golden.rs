//! Diagnostics about invalid files, word for word.
//!
//! `tests/cases/NAME.txt` has the expected diagnostics about `NAME.toml`, so adding a case needs no Rust.
//! `WEIR_UPDATE=1 cargo test -p weir-config` writes the expectations anew; read them before you commit them.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

#[test]
fn diagnostics() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let update = std::env::var_os("WEIR_UPDATE").is_some();
    let mut cases = 0;
    let mut wrong = Vec::new();
    let entries = std::fs::read_dir(&folder).expect("the folder of cases");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    for file in files {
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let text = std::fs::read_to_string(&file).expect("a case");
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let found = match weir_config::parse(name, &text) {
            Ok((_, warnings)) => format!("usable\n\n{}", weir_config::to_text(&warnings)),
            Err(diagnostics) => weir_config::to_text(&diagnostics),
        };
        let expected = file.with_extension("txt");
        if update {
            std::fs::write(&expected, &found).expect("to write an expectation");
        } else if std::fs::read_to_string(&expected).ok().as_ref() != Some(&found) {
            wrong.push(format!("== {name}: found\n{found}"));
        }
    }
    assert!(cases > 20, "only {cases} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
