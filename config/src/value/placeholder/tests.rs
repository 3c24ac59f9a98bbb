use super::*;

#[test]
fn placeholders() {
    let text = |text: &str| Piece::Text(text.to_owned());
    for (written, pieces) in [
        ("/a", vec![text("/a")]),
        (
            "https://{host}{path}{query}",
            vec![text("https://"), Piece::Host, Piece::Path, Piece::Query],
        ),
        ("/{rest}", vec![text("/"), Piece::Rest]),
        (
            "/{id}/x",
            vec![text("/"), Piece::Parameter("id".to_owned()), text("/x")],
        ),
    ] {
        assert_eq!(
            PatternText::parse(written),
            Ok(Pattern(pieces)),
            "{written}"
        );
    }
    for written in [
        "", "{", "}", "/{", "/}", "/{}", "/{A}", "/a b", "/é", "/\n", "}{", "/{a{b}}",
    ] {
        assert!(PatternText::parse(written).is_err(), "{written}");
    }
}
