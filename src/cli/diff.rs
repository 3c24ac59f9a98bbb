//! `weir diff`: how a running Weir differs from its file.

use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::Parser;
use serde_json::{Value, json};

use super::instance::{items, pretty, read_arguments, text};
use super::{CommandResult, help, print};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let mut file = None;
    let options = read_arguments(args, "diff", super::file_argument(&mut file))?;
    let Some(mut options) = options else {
        return print(help::DIFF);
    };
    options.file = options.file.or(file);
    let instance = options.find()?;
    let changes = instance.get("/api/changes")?;
    let running = instance.get("/api/config")?;
    let of_instance = running
        .get("file")
        .and_then(Value::as_str)
        .map(PathBuf::from);
    let file = options.file.clone().or(of_instance);
    let on_disk = file
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok());
    let on_disk = on_disk.map(|text| weir_config::redact(&text));
    let lines = on_disk.map(|on_disk| differences(text(&running, "text"), &on_disk));
    if options.json {
        let differs = lines.as_ref().map(|lines| !lines.is_empty());
        return print(&pretty(
            &json!({ "changes": changes, "file": file, "differs": differs }),
        ));
    }
    let mut out = String::new();
    write_changes(&mut out, &changes);
    let name = file.map_or_else(String::new, |file| file.display().to_string());
    // Writing to a string cannot fail.
    let _ = match lines {
        _ if name.is_empty() => writeln!(out, "file: none, it runs from the command line"),
        None => writeln!(out, "file: {name} cannot be read here"),
        Some(lines) if lines.is_empty() => writeln!(out, "file: {name} is what runs"),
        Some(lines) => {
            let head = format!("file: {name} differs from what runs; `weir reload` would take it");
            writeln!(out, "{head}\n{}", lines.join("\n"))
        }
    };
    print(&out)
}

/// Writes what was changed at run time.
pub(super) fn write_changes(out: &mut String, changes: &Value) {
    let changes = items(changes);
    // Writing to a string cannot fail.
    let _ = match changes.is_empty() {
        true => writeln!(out, "changed at run time: nothing"),
        false => writeln!(out, "changed at run time:"),
    };
    for change in changes {
        let mut words = Vec::new();
        words.extend(
            change
                .get("endpoint")
                .and_then(Value::as_str)
                .map(str::to_owned),
        );
        words.extend(
            change
                .get("state")
                .and_then(Value::as_str)
                .map(str::to_owned),
        );
        let weight = change.get("weight").and_then(Value::as_u64);
        words.extend(weight.map(|weight| format!("weight {weight}")));
        let kept = match change.get("persist").and_then(Value::as_bool) {
            Some(true) => "kept over reloads",
            _ => "until the next reload",
        };
        let _ = writeln!(
            out,
            "  {} {}: {} ({kept})",
            text(change, "upstream"),
            text(change, "address"),
            words.join(", ")
        );
    }
}

/// The lines that differ: those of the running text with `-`, those on disk with `+`, between the first and the last
/// difference. Empty lines do not count.
fn differences(running: &str, on_disk: &str) -> Vec<String> {
    let (old, new) = (numbered(running), numbered(on_disk));
    let is_same = |(a, b): &(&NumberedLine<'_>, &NumberedLine<'_>)| a.text == b.text;
    let same_before = old.iter().zip(&new).take_while(is_same).count();
    let rest = |lines| <[NumberedLine<'_>]>::get(lines, same_before..).unwrap_or_default();
    let (old, new) = (rest(&old), rest(&new));
    let pairs = old.iter().rev().zip(new.iter().rev());
    let same_after = pairs.take_while(is_same).count();
    let mut lines = Vec::new();
    for (mark, all) in [('-', old), ('+', new)] {
        let changed = all.iter().take(all.len() - same_after);
        lines.extend(changed.map(|line| format!("  {:>4} {mark} {}", line.number, line.text)));
    }
    lines
}

/// A line that is not empty.
struct NumberedLine<'t> {
    number: usize,
    text: &'t str,
}

fn numbered(text: &str) -> Vec<NumberedLine<'_>> {
    let lines = (1..).zip(text.lines().map(str::trim_end));
    lines
        .filter(|(_, text)| !text.is_empty())
        .map(|(number, text)| NumberedLine { number, text })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_first_and_last_difference_is_shown() {
        assert!(differences("a\nb\n", "a\nb\n").is_empty());
        let wanted = ["     2 - b", "     2 + x", "     3 + y"];
        assert_eq!(differences("a\nb\nc\n", "a\nx\ny\nc\n"), wanted);
        assert_eq!(differences("a\na\n", "a\n"), ["     2 - a"]);
        assert_eq!(differences("", "a\n"), ["     1 + a"]);
        assert!(differences("a\n\nb\n", "\na\nb").is_empty());
        assert_eq!(differences("a\n", "a\n\nb\n"), ["     3 + b"]);
    }

    #[test]
    fn changes_are_written_with_how_long_they_last() {
        let mut out = String::new();
        let changes = json!([
            { "upstream": "api", "address": "10.0.0.1:80", "state": "drain", "persist": false },
            { "upstream": "api", "address": "10.0.0.2:80", "endpoint": "added", "weight": 2, "persist": true },
        ]);
        write_changes(&mut out, &changes);
        let wanted = "changed at run time:\n  api 10.0.0.1:80: drain (until the next reload)\n  \
                      api 10.0.0.2:80: added, weight 2 (kept over reloads)\n";
        assert_eq!(out, wanted);
    }
}
