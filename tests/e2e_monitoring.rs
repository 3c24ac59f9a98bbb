//! The dashboard and the alerts in `scripts/dist` use metrics that exist, and promtool accepts them and the metrics
//! page.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tinyjson::JsonValue;
use weir::fault::Reason;

use e2e::*;

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/dist")
        .join(name)
}

/// Runs promtool, which `scripts/setup` installs. Returns its output if it fails.
fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/promtool");
    let program = if installed.exists() {
        installed
    } else {
        "promtool".into()
    };
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dist(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: run scripts/setup");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// The metrics of the reference and their labels.
fn reference() -> HashMap<String, HashSet<String>> {
    let text = include_str!("../src/obs/reference.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split(" | ");
        Some((cells.next()?, cells.next()?))
    });
    let metrics = cells.flat_map(|(names, labels)| {
        let labels: HashSet<_> = labels
            .split(',')
            .map(|label| label.trim().to_owned())
            .collect();
        let names = names.split('`').skip(1).step_by(2).map(str::to_owned);
        names.map(move |name| (name, labels.clone()))
    });
    metrics.collect()
}

/// All expressions of alerts and dashboard.
fn expressions() -> Vec<String> {
    let mut all = Vec::new();
    let rules = std::fs::read_to_string(dist("weir.alerts.yml")).unwrap();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("expr: ") else {
            continue;
        };
        let mut expression = rest.trim_start_matches('|').to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
            expression += more;
        }
        all.push(expression);
    }
    let board = std::fs::read_to_string(dist("weir.dashboard.json")).unwrap();
    let board: JsonValue = board.parse().unwrap();
    for panel in board["panels"].get::<Vec<JsonValue>>().unwrap() {
        let panel: &HashMap<String, JsonValue> = panel.get().unwrap();
        let targets = panel.get("targets").and_then(JsonValue::get::<Vec<_>>);
        for target in targets.into_iter().flatten() {
            all.push(target["expr"].get::<String>().unwrap().clone());
        }
    }
    all
}

/// The words of an expression outside its quotes, and the quoted ones.
fn words(expression: &str) -> (Vec<String>, Vec<String>) {
    let (mut bare, mut quoted) = (Vec::new(), Vec::new());
    for (at, part) in expression.split('"').enumerate() {
        if at % 2 == 1 {
            quoted.push(part.to_owned());
        } else {
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$');
            bare.extend(part.split(word).map(str::to_owned));
        }
    }
    (bare, quoted)
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let reference = reference();
    let known = |word: &str| {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| word.strip_suffix(suffix));
        reference.get(word).or_else(|| reference.get(base?))
    };
    // Words that are not Weir's: PromQL and labels that Prometheus adds.
    let language: HashSet<_> =
        "sum by rate increase histogram_quantile min max topk time on and or ignoring le \
        instance job 5m 15m 1h $__rate_interval"
            .split_whitespace()
            .collect();
    let expressions = expressions();
    assert!(expressions.len() > 40, "{}", expressions.len());
    for expression in &expressions {
        let (bare, quoted) = words(expression);
        let metrics: Vec<_> = bare
            .iter()
            .filter(|word| word.starts_with("weir_") || word.starts_with("process_"))
            .collect();
        assert!(!metrics.is_empty(), "{expression}");
        let mut labels = HashSet::new();
        for metric in metrics {
            labels.extend(known(metric).unwrap_or_else(|| panic!("no {metric}: {expression}")));
        }
        for word in bare.iter().filter(|word| !word.is_empty()) {
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            let is_known = known(word).is_some() || labels.contains(word);
            assert!(
                is_number || is_known || language.contains(word.as_str()),
                "{word} in {expression}"
            );
        }
        for value in quoted.iter().flat_map(|value| value.split('|')) {
            let is_reason = Reason::ALL.iter().any(|reason| reason.code() == value);
            assert!(
                is_reason || ["5xx", "$instance", "$upstream"].contains(&value),
                "{value} in {expression}"
            );
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_alerts_and_dashboard() {
    promtool(&["check", "rules", "weir.alerts.yml"], "").unwrap();
    promtool(&["test", "rules", "weir.alerts.test.yml"], "").unwrap();
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (at, expression) in expressions().iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m");
        rules += &format!("      - record: panel:{at}\n        expr: {expression:?}\n");
    }
    let file = Weir::dir().join("dashboard.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "").unwrap();
    let wrong = file.with_file_name("wrong.yml");
    std::fs::write(
        &wrong,
        "groups:\n  - name: a\n    rules:\n      - record: b\n        expr: \"sum(\"\n",
    )
    .unwrap();
    assert!(promtool(&["check", "rules", wrong.to_str().unwrap()], "").is_err());
}

#[test]
fn promtool_finds_nothing_wrong_with_the_page() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    weir.ask(get("/"));
    weir.ask(get("/a%00"));
    let page = weir.admin("/metrics").text();
    promtool(&["check", "metrics"], &page).unwrap();
}
