use weir_proto_h1::Edits;

use super::*;

fn written(write: impl FnOnce(&mut ValueWriter<'_>)) -> String {
    let mut edits = Edits::new();
    edits.append_with("X", write);
    let (_, value) = edits.iter().next().unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

#[test]
fn hosts_have_the_form_in_which_routes_match_them() {
    let long = "A".repeat(200);
    for (host, expected) in [
        ("a.test", "a.test"),
        ("A.Test.", "a.test"),
        ("", ""),
        ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ("[::FFFF:192.0.2.1]", "[::ffff:192.0.2.1]"),
        (&long, &long.to_ascii_lowercase()),
    ] {
        assert_eq!(written(|out| put_host(host.as_bytes(), out)), expected);
    }
}

#[test]
fn dot_segments_are_found_in_every_spelling() {
    for segment in [".", "..", "%2e", "%2E.", ".%2e", "%2e%2E"] {
        assert!(is_dot_segment(segment.as_bytes()), "{segment}");
    }
    for segment in ["", "...", "a", ".a", "a.", "%2f", "%2", "%2e%2e%2e"] {
        assert!(!is_dot_segment(segment.as_bytes()), "{segment}");
    }
}
