use super::*;

#[test]
fn values() {
    assert_eq!(FieldValueText::parse("a b\tc").as_deref(), Ok("a b\tc"));
    assert_eq!(FieldValueText::parse("").as_deref(), Ok(""));
    for text in [" a", "a ", "a\nb", "a\r", "\0", "\t"] {
        assert!(FieldValueText::parse(text).is_err(), "{text}");
    }
}
