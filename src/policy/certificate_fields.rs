//! Writes what endpoints learn about the certificate of a client.
//!
//! Endpoints split these fields at commas, some even at commas inside quotes. So an item never contains a comma, quote
//! or semicolon, and both values are ASCII.

use weir_proto_h1::edits::ValueWriter;

/// Writes a subject. RFC 4514, section 2.4, allows a backslash and hexadecimal digits for every character.
pub fn put_subject(value: &mut ValueWriter<'_>, subject: &str) {
    let mut bytes = subject.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                // The subject has hexadecimal digits already.
                Some(digit) if digit.is_ascii_hexdigit() => value.put(&[b'\\', digit]),
                Some(escaped) => put_hex(value, b'\\', escaped),
                None => put_hex(value, b'\\', b'\\'),
            },
            b'"' | b';' => put_hex(value, b'\\', byte),
            byte if is_plain(byte) => value.put(&[byte]),
            byte => put_hex(value, b'\\', byte),
        }
    }
}

/// Writes names with commas between them. Bytes that look like separators are percent-encoded, and so is the percent
/// sign, so that decoding restores the name.
pub fn put_names(value: &mut ValueWriter<'_>, names: &[String]) {
    for (before, name) in names.iter().enumerate() {
        if before > 0 {
            value.put(b", ");
        }
        for byte in name.bytes() {
            match byte {
                b',' | b';' | b'"' | b'\\' | b'%' | b' ' => put_hex(value, b'%', byte),
                byte if is_plain(byte) => value.put(&[byte]),
                byte => put_hex(value, b'%', byte),
            }
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

fn put_hex(value: &mut ValueWriter<'_>, mark: u8, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |half: u8| DIGITS.get(usize::from(half & 15)).copied().unwrap_or(b'0');
    value.put(&[mark, digit(byte >> 4), digit(byte)]);
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::Edits;

    use super::*;

    fn written(write: impl FnOnce(&mut ValueWriter<'_>)) -> String {
        let mut edits = Edits::new();
        edits.append_with("X", write);
        let (_, value) = edits.iter().next().unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[test]
    fn a_subject_contains_no_separator() {
        for (subject, expected) in [
            ("CN=alice,O=Example", "CN=alice,O=Example"),
            ("CN=a\\,O=admin,O=b", "CN=a\\2CO=admin,O=b"),
            (
                "CN=a\\+b\\;c\\\"d\\<e\\>f\\\\",
                "CN=a\\2Bb\\3Bc\\22d\\3Ce\\3Ef\\5C",
            ),
            ("CN=\\ a\\ ,O=\\#b", "CN=\\20a\\20,O=\\23b"),
            ("CN=a\\0db\\0a", "CN=a\\0db\\0a"),
            ("CN=\u{e4}\u{2028}", "CN=\\C3\\A4\\E2\\80\\A8"),
            // No certificate has these, but `explain` may get them as arguments.
            ("CN=a;\"b\"\r\n", "CN=a\\3B\\22b\\22\\0D\\0A"),
            ("CN=a\\", "CN=a\\5C"),
        ] {
            assert_eq!(
                written(|value| put_subject(value, subject)),
                expected,
                "{subject}"
            );
        }
    }

    #[test]
    fn a_name_contains_no_separator() {
        let names = [
            "DNS:a.test",
            "URI:spiffe://a/b,DNS:admin.test",
            "URI:x, DNS:admin.test",
            "URI:a%2Cb;c\"d\\e",
            "email:\u{e4}\r\n@a.test",
        ];
        let names = names.map(str::to_owned);
        let text = written(|value| put_names(value, &names));
        assert_eq!(
            text,
            "DNS:a.test, URI:spiffe://a/b%2CDNS:admin.test, URI:x%2C%20DNS:admin.test, URI:a%252Cb%3Bc%22d%5Ce, \
             email:%C3%A4%0D%0A@a.test"
        );
        assert_eq!(text.split(',').count(), names.len());
        assert_eq!(written(|value| put_names(value, &names[..1])), "DNS:a.test");
    }
}
