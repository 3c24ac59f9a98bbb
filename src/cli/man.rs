//! `weir man`: builds the manual page from the help texts.

use std::fmt::Write as _;

use super::help;

/// The page as roff, for `man -l -` and for packages.
pub(super) fn page() -> String {
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(page, ".TH WEIR 8 \"\" \"weir {version}\" \"Weir\"");
    page += ".nh\n.ad l\n.SH NAME\nweir \\- edge proxy for Linux: load balancer and API gateway\n";
    page += ".SH SYNOPSIS\n";
    for (_, text) in help::COMMANDS {
        let _ = writeln!(page, ".B {}\n.br", escape(usage(text)));
    }
    page += ".SH DESCRIPTION\n";
    let mut blocks = blocks(help::MAIN);
    while let Some(block) = blocks.next() {
        let heading = block.first().and_then(|line| line.strip_suffix(':'));
        match heading {
            Some(heading) => {
                let _ = writeln!(page, ".SH {}", escape(&heading.to_uppercase()));
                write_block(&mut page, &block[1..]);
                // Indented blocks without a heading belong to the heading before: the lines of a file.
                while let Some(more) = blocks.next_if(|block| block[0].starts_with(' ')) {
                    write_block(&mut page, &more);
                }
            }
            None if block[0].starts_with("Usage: ") => {}
            None => write_block(&mut page, &block),
        }
    }
    for (name, text) in help::COMMANDS {
        let _ = writeln!(page, ".SH WEIR {}", escape(&name.to_uppercase()));
        let _ = writeln!(page, ".B {}", escape(usage(text)));
        for block in blocks_after_usage(text) {
            page += ".PP\n";
            write_block(&mut page, &block);
        }
    }
    for (heading, entries) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
        let _ = writeln!(page, ".SH {heading}");
        for (name, text) in entries {
            let _ = writeln!(page, ".TP\n.B {}\n{}", escape(name), escape(text));
        }
    }
    page += ".SH SEE ALSO\n.BR systemd.service (5),\n.BR logrotate (8)\n";
    page
}

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "set by a service manager that wants to know when Weir starts, reloads and stops, and whether every core responds",
    ),
    (
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "set by a service manager that passes listening sockets to Weir",
    ),
    (
        "WEIR_ADMIN",
        "the admin listener that status, upstream, reload, upgrade and diff speak to, unless their arguments say another",
    ),
    ("WEIR_ADMIN_TOKEN_FILE", "the file with the token for it"),
    (
        "RUST_BACKTRACE",
        "1 makes a panic, which is a bug, log its stack",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "/etc/weir/weir.toml",
        "the configuration that the packaged service runs; `weir reference` has every key",
    ),
    (
        "/var/log/weir/",
        "where the packaged service may write an access log, which logrotate rotates",
    ),
];

/// The synopsis of a command.
fn usage(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("Usage: ").unwrap_or(first)
}

fn blocks_after_usage(text: &str) -> impl Iterator<Item = Vec<&str>> {
    blocks(text).skip(1)
}

/// The blocks of a text, separated by empty lines.
fn blocks(text: &str) -> std::iter::Peekable<impl Iterator<Item = Vec<&str>>> {
    let parts = text
        .split("\n\n")
        .map(|part| part.lines().collect::<Vec<_>>());
    parts.filter(|lines| !lines.is_empty()).peekable()
}

/// Writes a block: a list of names and meanings, lines to copy, or running text.
fn write_block(page: &mut String, lines: &[&str]) {
    if !lines.iter().all(|line| line.starts_with("  ")) {
        for line in lines {
            let _ = writeln!(page, "{}", escape(line));
        }
        return;
    }
    let first = lines.first().map_or("", |line| line.trim_start());
    if !first.contains("  ") {
        page.push_str(".PP\n.RS 4\n.EX\n");
        for line in lines {
            let _ = writeln!(page, "{}", escape(line.strip_prefix("  ").unwrap_or(line)));
        }
        page.push_str(".EE\n.RE\n");
        return;
    }
    for line in lines {
        match line.strip_prefix("  ").and_then(entry) {
            Some((name, meaning)) => {
                let _ = writeln!(page, ".TP\n.B {}\n{}", escape(name), escape(meaning));
            }
            None => {
                let _ = writeln!(page, "{}", escape(line.trim_start()));
            }
        }
    }
}

/// A name and its meaning, separated by two spaces. `None` for a continuation line.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, meaning) =
        line.split_at(line.trim_start().find("  ")? + line.len() - line.trim_start().len());
    // An option without a short form is indented by the width of one.
    let is_continued = line.starts_with("     ");
    (!is_continued).then(|| (name.trim(), meaning.trim()))
}

/// Escapes text for roff.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_lists_and_text_is_text() {
        let mut page = String::new();
        write_block(
            &mut page,
            &[
                "  -a, --all   every",
                "              route",
                "  --b X  .one",
            ],
        );
        assert_eq!(
            page,
            ".TP\n.B \\-a, \\-\\-all\nevery\nroute\n.TP\n.B \\-\\-b X\n\\&.one\n"
        );
        page.clear();
        write_block(&mut page, &["  [[route]]", "  to = \"a\\b\""]);
        assert_eq!(
            page,
            ".PP\n.RS 4\n.EX\n[[route]]\nto = \"a\\eb\"\n.EE\n.RE\n"
        );
        page.clear();
        write_block(&mut page, &["'Tis a text", ".of lines"]);
        assert_eq!(page, "\\&'Tis a text\n\\&.of lines\n");
    }

    #[test]
    fn the_manual_page_has_all_of_the_help() {
        let plain = page()
            .replace("\\-", "-")
            .replace("\\e", "\\")
            .replace("\\&", "");
        let words: Vec<_> = plain.split_whitespace().collect();
        let page = words.join(" ");
        for (name, text) in help::COMMANDS.iter().chain(&[("", help::MAIN)]) {
            for line in text.lines().filter(|line| !line.starts_with("Usage: ")) {
                let line = line
                    .strip_suffix(':')
                    .map_or_else(|| line.to_owned(), str::to_uppercase);
                for part in line.split("  ") {
                    let part = part.split_whitespace().collect::<Vec<_>>().join(" ");
                    assert!(page.contains(&part), "{name}: {part:?} is not there");
                }
            }
        }
    }
}
