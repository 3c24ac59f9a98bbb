//! Lists of endpoints in files and at URLs.

use std::fmt::Write as _;

use weir_config::limits::ENDPOINTS_MAX;
use weir_config::{Endpoint, parse_endpoint};

use crate::policy::json::Json;

/// Reads a list: a JSON list of what `servers` may have, or, if it does not begin as one, an address a line with
/// comments after `#`.
///
/// # Errors
/// The first mistake, with its line or entry, or the list is empty. A list with a mistake is refused whole, because a part
/// of it would remove endpoints that are still there.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Endpoint>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")?;
    if text.trim_start().starts_with('[') && !begins_with_address(text) {
        parse_json(bytes)
    } else {
        bounded(parse_lines(text)?)
    }
}

/// Reads a JSON list.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_json(bytes: &[u8]) -> Result<Vec<Endpoint>, String> {
    let json = Json::parse(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    let items = json.as_list().ok_or("it is not a JSON list")?;
    // An entry costs more than its text, so a long list is refused before it is read.
    too_many(items.len())?;
    let read = |(item, number): (&Json, usize)| {
        let endpoint = to_toml(item).and_then(|toml| parse_endpoint(&toml));
        endpoint.map_err(|why| format!("entry {number}: {why}"))
    };
    bounded(items.iter().zip(1..).map(read).collect::<Result<_, _>>()?)
}

/// Whether a text begins with an address such as `[::1]:80`, which looks like a JSON list.
fn begins_with_address(text: &str) -> bool {
    let text = text.trim_start().trim_start_matches('[');
    let end = text.find(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.');
    let (address, rest) = text.split_at(end.unwrap_or(text.len()));
    address.contains(':') && rest.starts_with("]:")
}

fn parse_lines(text: &str) -> Result<Vec<Endpoint>, String> {
    let lines = text.lines().zip(1..).filter_map(|(line, number)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then_some((entry, number))
    });
    let mut endpoints = Vec::new();
    for (entry, number) in lines {
        too_many(endpoints.len() + 1)?;
        let endpoint = entry.parse::<Endpoint>();
        endpoints.push(endpoint.map_err(|error| format!("line {number}: {error}"))?);
    }
    Ok(endpoints)
}

fn too_many(count: usize) -> Result<(), String> {
    match count > ENDPOINTS_MAX {
        true => Err(format!("it has more than {ENDPOINTS_MAX} endpoints")),
        false => Ok(()),
    }
}

/// Checks a list as a whole: it has endpoints, each once.
///
/// # Errors
/// It is empty, too long, or has an endpoint twice.
pub(super) fn bounded(endpoints: Vec<Endpoint>) -> Result<Vec<Endpoint>, String> {
    too_many(endpoints.len())?;
    if endpoints.is_empty() {
        return Err("it has no endpoint".to_owned());
    }
    let mut seen = std::collections::HashSet::with_capacity(endpoints.len());
    let twice = endpoints.iter().find(|each| !seen.insert(&each.address));
    match twice {
        Some(twice) => Err(format!("it has the endpoint {twice} twice")),
        None => Ok(endpoints),
    }
}

/// Writes an entry as the configuration file would have it, so that one parser reads both.
fn to_toml(item: &Json) -> Result<String, String> {
    let mut out = String::new();
    let Some(object) = item.as_object() else {
        scalar(&mut out, item)?;
        return Ok(out);
    };
    out.push('{');
    for (at, (key, value)) in object.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        text(&mut out, key);
        out.push('=');
        scalar(&mut out, value).map_err(|why| format!("`{key}`: {why}"))?;
    }
    out.push('}');
    Ok(out)
}

fn scalar(out: &mut String, value: &Json) -> Result<(), String> {
    match value {
        Json::Text(value) => text(out, value),
        Json::Bool(value) => {
            let _ = write!(out, "{value}");
        }
        Json::Number(_) => {
            let number = value.scalar().unwrap_or_default();
            // JSON's numbers with digits alone are TOML's too.
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("{number} is not a whole number"));
            }
            out.push_str(number);
        }
        _ => return Err("it is neither a string, nor a number, nor true or false".to_owned()),
    }
    Ok(())
}

/// A basic string of TOML.
fn text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let shown = |one: Endpoint| format!("{one} {} {}", one.weight, one.priority);
        Ok(parse(text.as_bytes())?.into_iter().map(shown).collect())
    }

    #[test]
    fn a_list_is_json_or_has_an_address_a_line() {
        let json = r#" ["10.0.0.1:80", {"address": "https://App.internal", "weight": 5, "priority": 2, "backup": false}]"#;
        let wanted = ["10.0.0.1:80 1 0", "https://app.internal:443 5 2"];
        assert_eq!(read(json).unwrap(), wanted);
        let lines = "# all\r\n10.0.0.1:80\r\n\n  h2c://a.internal:81   # Ann\nunix:/run/x.sock";
        let wanted = [
            "10.0.0.1:80 1 0",
            "h2c://a.internal:81 1 0",
            "unix:/run/x.sock 1 0",
        ];
        assert_eq!(read(lines).unwrap(), wanted);
        assert_eq!(read("[::1]:80\n").unwrap(), ["[::1]:80 1 0"]);
        assert_eq!(read("[\"[::1]:80\"]").unwrap(), ["[::1]:80 1 0"]);
        let escaped = r#"["unix:/run/\"\\\u0020x"]"#;
        assert_eq!(read(escaped).unwrap(), ["unix:/run/\"\\ x 1 0"]);
        assert!(read(r#"["unix:/run/a\u000ab"]"#).is_err());
    }

    #[test]
    fn a_list_with_a_mistake_is_refused_whole() {
        let long = "10.0.0.1:1\n".repeat(ENDPOINTS_MAX + 1);
        let long_json = format!("[{}0]", "0,".repeat(ENDPOINTS_MAX));
        for (text, why) in [
            ("", "no endpoint"),
            ("# none\n\n", "no endpoint"),
            ("[]", "no endpoint"),
            ("{}", "line 1: "),
            ("10.0.0.1:80\n10.0.0.2\n", "line 2: `10.0.0.2` has no port"),
            ("10.0.0.1:80\n10.0.0.1:80", "10.0.0.1:80 twice"),
            ("[\"10.0.0.1:80\", ", "not JSON"),
            ("[\"10.0.0.1:80\"] x", "not JSON"),
            ("[\"10.0.0.1\"]", "entry 1: `10.0.0.1` has no port"),
            ("[1]", "entry 1: expected"),
            ("[null]", "entry 1: it is neither"),
            ("[[\"10.0.0.1:80\"]]", "entry 1: it is neither"),
            (r#"[{"weight": 1}]"#, "entry 1: "),
            (
                r#"[{"address": "10.0.0.1:80", "wait": 1}]"#,
                "unknown key `wait`",
            ),
            (
                r#"[{"address": "10.0.0.1:80", "weight": 1.5}]"#,
                "`weight`: 1.5 is not a whole number",
            ),
            (
                r#"[{"address": "10.0.0.1:80", "weight": -1}]"#,
                "not a whole number",
            ),
            (
                r#"[{"address": "10.0.0.1:80", "weight": 65536}]"#,
                "entry 1: expected",
            ),
            (
                r#"[{"address": "10.0.0.1:80", "address": "10.0.0.2:80"}]"#,
                "not JSON",
            ),
            (r#"[{"srv": "_http._tcp.x"}]"#, "entry 1: "),
            (r#"["file:///etc/passwd"]"#, "entry 1: "),
            (&long, "more than 4096"),
            (&long_json, "more than 4096"),
        ] {
            let error = read(text).expect_err(text);
            let shown: String = text.chars().take(60).collect();
            assert!(error.contains(why), "{shown}: {error}");
        }
        assert!(parse(b"10.0.0.1:80 # \xff\n").is_err());
    }

    /// No bytes make the parser panic, and what it reads can be written and read again.
    #[test]
    fn mangled_lists_are_read_or_refused() {
        let seeds = [
            r#"["10.0.0.1:80", {"address": "unix:/a\u0000b", "weight": 5}, "[::1]:443"]"#,
            "10.0.0.1:80 # a\n[::1]:80\nhttps://a.internal\n",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let mut read = 0;
        for _ in 0..20_000 {
            let mut bytes = seeds[random.usize(..seeds.len())].as_bytes().to_vec();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.insert(at, b"\"[]{}:,#\n\\"[random.usize(..10)]),
                    _ => drop(bytes.remove(at)),
                }
            }
            if let Ok(endpoints) = parse(&bytes) {
                read += 1;
                assert!((1..=ENDPOINTS_MAX).contains(&endpoints.len()));
                let lines: Vec<_> = endpoints.iter().map(Endpoint::to_string).collect();
                for line in lines {
                    assert_eq!(line.parse::<Endpoint>().unwrap().to_string(), line);
                }
            }
        }
        assert!(read > 1_000, "{read}");
    }
}
