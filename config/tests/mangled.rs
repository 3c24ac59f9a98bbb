//! No text makes the parser panic, and diagnostics about any text can be shown.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

/// A small generator of pseudo-random numbers (SplitMix64), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[test]
fn mangled_examples() {
    let texts = texts();
    let mut random = Random(20_261_122);
    for round in 0..1_500 {
        let mut chars: Vec<char> = texts[random.below(texts.len())].chars().collect();
        for _ in 0..=random.below(6) {
            mangle(&mut chars, &texts, &mut random);
        }
        parse_and_show(&chars.into_iter().collect::<String>(), round);
    }
}

/// Puts strings, keys and numbers of the examples in each other's place.
#[test]
fn swapped_words() {
    let texts = texts();
    let mut random = Random(7);
    let words: Vec<String> = texts.iter().flat_map(|text| words_of(text)).collect();
    for round in 0..1_500 {
        let text = &texts[random.below(texts.len())];
        let own = words_of(text);
        let from = &own[random.below(own.len())];
        let to = &words[random.below(words.len())];
        parse_and_show(&text.replacen(from.as_str(), to, 1), round);
    }
}

#[test]
fn truncated_examples() {
    for text in texts() {
        for (at, _) in text.char_indices().step_by(9) {
            parse_and_show(&text[..at], at);
        }
    }
}

#[test]
fn deep_and_odd_texts() {
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let tables = format!("{}x = 1{}", "a = {".repeat(50_000), "}".repeat(50_000));
    let dotted = format!("a{} = 1", ".a".repeat(50_000));
    let long_key = format!("{} = 1", "k".repeat(1_000_000));
    let long_value = format!("cores = \"{}\"", "1,".repeat(500_000));
    for text in [
        deep.as_str(),
        &tables,
        &dotted,
        &long_key,
        &long_value,
        "\u{feff}cores = 1",
        "\0",
        "\r",
        "\u{202e}cores = 1",
        "cores = \"\u{0}\"",
        "cores = 99999999999999999999999999",
        "cores = 0xFFFFFFFFFFFFFFFFF",
        "cores = 1e400",
        "[listen.\"\"]",
        "[upstream]\n\"\" = \"\"",
        "[[route]]\nmatch = \"/{}\"",
        "[[route]]\nmatch = \"/{\"",
        "[[route]]\nmatch = \"*\"",
        "[[route]]\nmatch = \"/%\"",
        "[[route]]\nmatch = \"/%é\"",
        "[[route]]\nmatch = \"[::/\"",
        "[[route]]\nmatch = \"/\"\nredirect = \"{\"",
        "[[route]]\nmatch = \"/\"\nredirect = \"}é{\"",
        "[[test]]\nrequest = \"GET http://[/\"",
        "[[test]]\nrequest = \"GET http://]:1/\"",
        "[[test]]\nrequest = \"é http://é/\"",
    ] {
        parse_and_show(text, 0);
    }
}

fn mangle(chars: &mut Vec<char>, texts: &[String], random: &mut Random) {
    const ODD: [char; 20] = [
        '"', '\'', '[', ']', '{', '}', '=', '.', ',', '\n', '#', '\\', '*', '/', ':', '-', '0',
        'é', '\u{0}', ' ',
    ];
    let at = random.below(chars.len() + 1);
    let end = (at + random.below(12)).min(chars.len());
    match random.below(5) {
        0 => drop(chars.drain(at..end)),
        1 => chars.insert(at, ODD[random.below(ODD.len())]),
        2 if at < chars.len() => chars[at] = ODD[random.below(ODD.len())],
        3 => {
            let copied = chars[at..end].to_vec();
            let to = random.below(chars.len() + 1);
            chars.splice(to..to, copied);
        }
        _ => {
            let other: Vec<char> = texts[random.below(texts.len())].chars().collect();
            let from = random.below(other.len());
            let piece = other[from..(from + 40).min(other.len())].to_vec();
            chars.splice(at..at, piece);
        }
    }
}

fn words_of(text: &str) -> Vec<String> {
    let separators = |c: char| " \n,=[]{}".contains(c);
    let words = text.split(separators).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Parses a text and shows its diagnostics.
fn parse_and_show(text: &str, round: usize) {
    let diagnostics = match weir_config::parse("mangled.toml", text) {
        Ok((config, warnings)) => {
            // Listeners without HTTP need no route.
            let http = weir_config::ListenerTarget::Http;
            let has_http = config.listeners.iter().any(|each| each.target == http);
            assert!(
                !config.listeners.is_empty() && (!has_http || !config.routes.is_empty()),
                "{round}: {text}"
            );
            warnings
        }
        Err(diagnostics) => {
            assert!(
                diagnostics.iter().any(weir_config::Diagnostic::is_error),
                "{round}: {text}"
            );
            diagnostics
        }
    };
    assert!(diagnostics.len() <= weir_config::limits::DIAGNOSTICS_MAX + 1);
    let drawn = weir_config::to_text(&diagnostics);
    assert!(
        drawn.lines().all(|line| !line.contains('\0')),
        "{round}: {text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&weir_config::to_json(&diagnostics)).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(diagnostics.len()));
}

fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in ["examples", "tests/cases"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        for file in files {
            if file
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let text = std::fs::read_to_string(file).expect("a file");
                texts.extend((!text.is_empty()).then_some(text));
            }
        }
    }
    texts
}
