use super::*;

#[test]
fn expressions() {
    for text in [
        "a",
        "a|ab",
        r"https://[a-z0-9-]+\.example\.com(:\d+)?",
        "(?i)a",
        "[a-z]{1,64}",
    ] {
        let pattern = RegexText::parse(text).expect(text);
        assert_eq!(pattern.as_str(), text);
        assert_eq!(pattern.anchored(), format!(r"\A(?:{text})\z"));
    }
}

#[test]
fn mistakes_say_where() {
    for (text, at, message) in [
        ("", None, "the regular expression is empty"),
        (
            "a(b",
            Some(1..2),
            "not a regular expression: unclosed group",
        ),
        (
            "a)|(?:b",
            Some(1..2),
            "not a regular expression: unopened group",
        ),
        ("[z-a]", Some(1..4), "invalid character class range"),
        ("a(?=b)", Some(1..4), "look-around"),
        (r"(a)\1", Some(3..5), "backreferences are not supported"),
        (r"\p{Nonsense}", Some(0..12), "Unicode property not found"),
        (r"(?:\w{100}){100}", None, "too large once compiled"),
        ("(?x)a # comment", None, "cannot be anchored"),
    ] {
        let problem = RegexText::parse(text).expect_err(text);
        assert_eq!(problem.at, at, "{text}");
        assert!(
            problem.message.contains(message),
            "{text}: {}",
            problem.message
        );
    }
    let long = "a".repeat(REGEX_TEXT_BYTES_MAX + 1);
    assert!(RegexText::parse(&long).is_err());
    assert!(RegexText::parse(&long[1..]).is_ok());
}
