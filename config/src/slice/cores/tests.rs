use super::*;

#[test]
fn cores() {
    for (text, cores) in [
        ("auto", Cores::Auto),
        ("0", Cores::Set(vec![0])),
        ("2-4,10", Cores::Set(vec![2, 3, 4, 10])),
        ("10,2-3", Cores::Set(vec![2, 3, 10])),
        ("7-7", Cores::Set(vec![7])),
    ] {
        assert_eq!(CoresText::parse(text), Ok(cores), "{text}");
    }
    for text in [
        "",
        "-",
        "1-",
        "-1",
        "a",
        "4-2",
        "1,1",
        "1-3,2",
        "1024",
        "0-4294967295",
        "+1",
        "1, 2",
    ] {
        assert!(CoresText::parse(text).is_err(), "{text}");
    }
}
