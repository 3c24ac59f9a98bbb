//! Fields that edits leave out.

#![allow(clippy::unwrap_used)] // A panic fails the test.

use weir_proto_h1::*;

mod support;
use support::replay::Random;

const WIRE: &[u8] = b"POST /a HTTP/1.1\r\nHost: x.test\r\nX-A: 1\r\nCookie: a=b\r\nx-a: 2\r\n\
                      Content-Length: 3\r\nX-B: 3\r\nACCEPT: */*\r\nX-C: 4\r\n\r\n";

fn request() -> (Head, Framing) {
    let mut head = Head::new();
    parse_request(WIRE, &Limits::default(), &mut head).unwrap();
    let body = request_body(&mut head, WIRE).unwrap();
    let framing = Framing {
        body,
        ..Framing::default()
    };
    (head, framing)
}

fn encoded(head: &Head, edits: &Edits, framing: &Framing) -> String {
    let mut out = Vec::new();
    encode_request(&mut out, WIRE, head, edits, framing);
    String::from_utf8(out).unwrap()
}

#[test]
fn removed_fields_are_left_out_and_the_head_keeps_them() {
    let (head, framing) = request();
    let mut edits = Edits::new();
    edits.append("X-A", "early");
    edits.append("Via", "1.1 weir");
    for name in ["x-A", "accept", "X-Absent"] {
        edits.remove(name);
    }
    edits.append("X-A", "late");
    assert_eq!(
        encoded(&head, &edits, &framing),
        "POST /a HTTP/1.1\r\nHost: x.test\r\nCookie: a=b\r\nContent-Length: 3\r\nX-B: 3\r\n\
         X-C: 4\r\nVia: 1.1 weir\r\nX-A: late\r\n\r\n"
    );
    assert_eq!(head.find_name(b"X-A", WIRE).unwrap().value.get(WIRE), b"1");
}

#[test]
fn removed_fields_of_an_answer_are_left_out() {
    let wire = b"HTTP/1.1 200 OK\r\nServer: x\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n";
    let mut head = Head::new();
    parse_response(wire, &Limits::default(), &mut head).unwrap();
    let body = response_body(&mut head, wire, Method::Get).unwrap();
    let mut edits = Edits::new();
    edits.remove("server");
    edits.remove("x-a");
    let mut out = Vec::new();
    let framing = Framing {
        body,
        ..Framing::default()
    };
    encode_response(&mut out, wire, &head, &edits, &framing);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

/// Otherwise an edit could change where the message ends, or whom it is for.
#[test]
fn framing_hop_by_hop_fields_and_host_are_not_removed() {
    let (head, framing) = request();
    let untouched = encoded(&head, &Edits::new(), &framing);
    let mut edits = Edits::new();
    let fixed = [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Upgrade",
        "HTTP2-Settings",
        "",
        "X-A:",
    ];
    fixed.iter().for_each(|name| edits.remove(name));
    assert_eq!(encoded(&head, &edits, &framing), untouched);
}

/// HTTP/2 peers take a value with a blank at its ends for malformed.
#[test]
fn values_have_no_blanks_at_their_ends() {
    let mut edits = Edits::new();
    edits.append("A", " a b\r\n");
    edits.append("B", "\t \0");
    edits.append_with("C", |value| {
        value.put(b" ");
        value.put(b"c");
        value.put(b"\t");
    });
    edits.append_fixed("D", b"d ");
    edits.append_unless_empty("E", |value| value.put(b" \n"));
    edits.append_unless_empty("F", |value| value.put(b"f"));
    let added: Vec<_> = edits.iter().collect();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"A", b"a b"),
        (b"B", b""),
        (b"C", b"c"),
        (b"D", b"d"),
        (b"F", b"f"),
    ];
    assert_eq!(added, expected);
}

/// Each attempt goes back to the edits that all attempts share, the path among them.
#[test]
fn a_rewind_restores_path_and_host() {
    let mut edits = Edits::new();
    let start = edits.mark();
    edits.set_path(b"/shared");
    let shared = edits.mark();
    for host in [&b"a.test"[..], b"b.test"] {
        edits.set_authority(host);
        edits.set_path(b"/other");
        edits.rewind(shared);
        assert_eq!(
            (edits.path(), edits.authority()),
            (Some(&b"/shared"[..]), None)
        );
    }
    edits.rewind(start);
    assert_eq!((edits.path(), edits.authority()), (None, None));
}

/// Random edits have the same effect as on a plain list of fields, and a rewind undoes them.
#[test]
fn edits_do_what_a_list_does() {
    const NAMES: [&str; 9] = [
        "X-A", "x-a", "X-B", "Cookie", "cookie", "Accept", "Via", "x-AA", "X-C",
    ];
    let (head, framing) = request();
    let mut unwired = Head::new();
    unwired.method = Method::Post;
    (unwired.path, unwired.authority) = (head.path, head.authority);
    for field in head.iter() {
        unwired.push(field.id, field.name, field.value);
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut random = Random(0x51ab_1e5e_ed00_0001);
    let mut edits = Edits::new();
    for _ in 0..2_000 {
        edits.clear();
        let received = head.iter().map(|field| (field.name, field.value));
        let received = received.map(|(name, value)| (text(name.get(WIRE)), text(value.get(WIRE))));
        let mut model: (Vec<_>, Vec<(String, String)>) = (received.collect(), Vec::new());
        let mut marked = (edits.mark(), model.clone());
        for step in 0..random.below(12) {
            let name = NAMES[random.below(NAMES.len())];
            match random.below(8) {
                0 => marked = (edits.mark(), model.clone()),
                1 => {
                    edits.rewind(marked.0);
                    model = marked.1.clone();
                }
                2..=4 => {
                    edits.remove(name);
                    let is_kept = |field: &(String, String)| !field.0.eq_ignore_ascii_case(name);
                    model.0.retain(is_kept);
                    model.1.retain(is_kept);
                }
                _ => {
                    edits.append(name, step.to_string());
                    model.1.push((name.to_owned(), step.to_string()));
                }
            }
            let added = edits.iter().map(|(name, value)| (text(name), text(value)));
            assert!(added.eq(model.1.iter().cloned()));
            let lines = |from: &[(String, String)], leaves_out: &[&str]| -> String {
                from.iter()
                    .filter(|(name, _)| !leaves_out.contains(&name.as_str()))
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect()
            };
            let want = format!(
                "POST /a HTTP/1.1\r\n{}{}\r\n",
                lines(&model.0, &[]),
                lines(&model.1, &[])
            );
            assert_eq!(encoded(&head, &edits, &framing), want);
            let want = format!(
                "POST /a HTTP/1.1\r\nHost: x.test\r\n{}{}Content-Length: 3\r\n\r\n",
                lines(&model.0, &["Host", "Content-Length"]),
                lines(&model.1, &[])
            );
            assert_eq!(encoded(&unwired, &edits, &framing), want);
        }
    }
}
