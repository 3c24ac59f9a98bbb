//! The documents agree with the code: reasons, example files, and names.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use weir::fault::Reason;
use weir::policy::PolicyKind;
use weir_proto_h1::guard::{self, Claim};

/// Where the generated part of `src/reasons.md` begins.
const TABLE: &str = "| code |";

#[test]
fn the_reasons_are_those_of_the_code() {
    let file = root().join("src/reasons.md");
    let committed = read("src/reasons.md");
    let text = committed.split(TABLE).next().unwrap_or_default();
    let wanted = format!("{text}{}", reasons());
    if std::env::var_os("WEIR_UPDATE").is_some() {
        fs::write(&file, &wanted).unwrap();
        return;
    }
    assert!(
        committed == wanted,
        "src/reasons.md is out of date: WEIR_UPDATE=1 cargo test --test docs"
    );
}

/// A limit by a claim is a kind of its own, and the same key.
#[test]
fn the_order_of_policies_is_that_of_the_code() {
    let text = read("config/policies.md");
    let section = text.split("\n## Order\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let is_item = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    let items = section.lines().filter(is_item);
    let written: Vec<_> = items.filter_map(|line| line.split('`').nth(1)).collect();
    let kinds = PolicyKind::ALL.iter().map(|kind| match kind {
        PolicyKind::ClaimLimit => PolicyKind::Limit.key(),
        kind => kind.key(),
    });
    assert_eq!(written, kinds.collect::<Vec<_>>());
}

/// Where the generated part of `config/fields.md` begins.
const CLAIMS: &str = "| name | claims |";

#[test]
fn the_fields_are_those_of_the_code() {
    let committed = read("config/fields.md");
    let text = committed.split(CLAIMS).next().unwrap_or_default();
    let wanted = format!("{text}{}", claims());
    if std::env::var_os("WEIR_UPDATE").is_some() {
        fs::write(root().join("config/fields.md"), &wanted).unwrap();
        return;
    }
    assert!(
        committed == wanted,
        "config/fields.md is out of date: WEIR_UPDATE=1 cargo test --test docs"
    );
}

fn claims() -> String {
    let mut table = format!("{CLAIMS}\n|---|---|\n");
    for (name, claim) in guard::CLAIM_TABLE {
        let claim = match claim {
            Claim::XForwarded | Claim::Forwarded | Claim::Origin => {
                "who the client is, or what it asked for"
            }
            Claim::Certificate => "whose certificate the client showed",
            Claim::RequestId => "the id of the request",
            Claim::Nothing => "nothing, but CGI takes it for a proxy to use",
        };
        table += &format!("| `{name}` | {claim} |\n");
    }
    table
}

fn reasons() -> String {
    let mut table =
        format!("{TABLE} status | `error` of Proxy-Status | meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let (code, status) = (reason.code(), reason.status());
        let (error, text) = (reason.proxy_status(), reason.text());
        table += &format!("| `{code}` | {status} | `{error}` | {text} |\n");
    }
    table
}

/// The configuration crate's tests parse the examples and check them against the schema.
#[test]
fn the_smallest_file_in_the_readme_is_the_example() {
    let example = read("config/examples/minimal.toml");
    let is_config = |line: &&str| !line.starts_with('#');
    let wanted: Vec<_> = example.lines().filter(is_config).collect();
    let readme = read("README.md");
    let after = readme.split("(config/examples/minimal.toml)").nth(1);
    let block = after.and_then(|text| toml_blocks(text).next()).unwrap();
    let shown: Vec<_> = block.lines().filter(is_config).collect();
    assert_eq!(
        shown, wanted,
        "the smallest file of README.md is not config/examples/minimal.toml"
    );
}

/// A reader may paste a complete file from a document.
#[test]
fn whole_files_in_the_documents_can_be_used() {
    let mut checked = 0;
    for document in DOCUMENTS {
        let text = read(document);
        for block in toml_blocks(&text)
            .filter(|block| block.contains("[listen.") && block.contains("[[route]]"))
        {
            let parsed = weir_config::parse(document, block);
            assert!(parsed.is_ok(), "{document}: {block}\n{:?}", parsed.err());
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} whole files found");
}

fn toml_blocks(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next())
}

/// A document must not name what no longer exists.
#[test]
fn names_in_the_documents_exist() {
    let sources: String = files(&root())
        .iter()
        .map(|file| fs::read_to_string(file).unwrap_or_default())
        .collect();
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for link in links(&text) {
            if !folder.join(link).exists() {
                missing.push(format!("{document}: link to {link}"));
            }
        }
        // This document quotes names of other proxies.
        let quotes_others = document == &"config/migrating.md";
        for name in quoted(&text) {
            if !quotes_others && !is_there(name, &sources) {
                missing.push(format!("{document}: `{name}`"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "named but not there:\n{}",
        missing.join("\n")
    );
}

const DOCUMENTS: &[&str] = &[
    "README.md",
    "config/admin-api.md",
    "config/load-balancing.md",
    "config/endpoints.md",
    "config/migrating.md",
    "config/operating.md",
    "config/paths.md",
    "config/policies.md",
    "config/timeouts.md",
    "src/ARCHITECTURE.md",
    "src/INVARIANTS.md",
    "src/DECISIONS.md",
    "proto-h2/LIFECYCLE.md",
    "src/conn/LIFECYCLE.md",
    "config/discovery.md",
    "config/retries.md",
    "src/reasons.md",
];

/// Link targets within the project.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// What stands in back quotes outside of code blocks, if it looks like a name of the code or the project's.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2))
}

/// Paths exist, types and functions and constants are in the sources. Anything else is no name.
fn is_there(name: &str, sources: &str) -> bool {
    let is_word = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_path = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let begins_here = [
        "src/",
        "config/",
        "proto-h1/",
        "scripts/",
        "benches/",
        "tests/",
    ]
    .iter()
    .any(|folder| name.starts_with(folder));
    if begins_here && is_path {
        return root().join(name).exists();
    }
    let last = name.rsplit("::").next().unwrap_or(name);
    let is_symbol = name.split("::").all(is_word)
        && (name.contains("::") || name.contains('_') || last.starts_with(char::is_uppercase));
    !is_symbol || name.split("::").all(|word| has_word(sources, word))
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next())
    })
}

/// Every source of the project: Rust, TOML and scripts.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "corpus" {
            found.extend(files(&path));
        } else if [".rs", ".toml", ".py"]
            .iter()
            .any(|end| name.ends_with(end))
            || !name.contains('.') && folder.ends_with("scripts")
        {
            found.push(path);
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
