use super::*;

#[test]
fn placeholders() {
    let text = |text: &str| TextPiece::Text(text.to_owned());
    for (written, pieces) in [
        ("/a", vec![text("/a")]),
        (
            "https://{host}{path}{query}",
            vec![
                text("https://"),
                TextPiece::Host,
                TextPiece::Path,
                TextPiece::Query,
            ],
        ),
        ("/{rest}", vec![text("/"), TextPiece::Rest]),
        (
            "/{id}/x",
            vec![text("/"), TextPiece::Parameter("id".to_owned()), text("/x")],
        ),
    ] {
        assert_eq!(
            PlaceholderTextKind::parse(written),
            Ok(PlaceholderText(pieces)),
            "{written}"
        );
    }
    for written in [
        "", "{", "}", "/{", "/}", "/{}", "/{A}", "/a b", "/é", "/\n", "}{", "/{a{b}}",
    ] {
        assert!(PlaceholderTextKind::parse(written).is_err(), "{written}");
    }
}
