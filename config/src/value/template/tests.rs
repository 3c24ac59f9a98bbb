use super::*;

#[test]
fn values() {
    let text = |text: &str| ValuePiece::Text(text.to_owned());
    let variable = |variable| ValuePiece::Variable(variable);
    for (written, pieces) in [
        ("", vec![]),
        ("a b", vec![text("a b")]),
        ("{client_ip}", vec![variable(Variable::ClientIp)]),
        (
            "{scheme}://{host}",
            vec![
                variable(Variable::Scheme),
                text("://"),
                variable(Variable::Host),
            ],
        ),
        ("a {{b}} c", vec![text("a {b} c")]),
        (
            "{{{host}}}",
            vec![text("{"), variable(Variable::Host), text("}")],
        ),
    ] {
        let parsed = ValueTemplateText::parse(written);
        assert_eq!(parsed.as_ref(), Ok(&ValueTemplate(pieces)), "{written}");
        assert_eq!(
            parsed.map(|value| value.to_string()),
            Ok(written.to_owned())
        );
    }
    for written in [
        "{",
        "}",
        "a{",
        "{host",
        "{nothing}",
        "{}",
        "a\r\nb",
        " a",
        "a\0",
        "{host\n}",
    ] {
        assert!(ValueTemplateText::parse(written).is_err(), "{written}");
    }
}

#[test]
fn the_environment_is_read_and_not_shown() {
    let path = std::env::var("PATH").expect("cargo sets it");
    let value = ValueTemplateText::parse("x{env:PATH}").expect("a value");
    assert_eq!(value.to_string(), "x{env:PATH}");
    assert_eq!(
        value.0.last(),
        Some(&ValuePiece::Env {
            name: "PATH".to_owned(),
            value: path
        })
    );
    let unset = ValueTemplateText::parse("{env:WEIR_TEST_NOT_SET}").expect_err("not set");
    assert_eq!(
        unset.message,
        "the environment variable `WEIR_TEST_NOT_SET` is not set"
    );
    assert_eq!(unset.at, Some(0..23));
    assert!(ValueTemplateText::parse("{env:}").is_err());
    assert!(ValueTemplateText::parse("{env:A=B}").is_err());
}
