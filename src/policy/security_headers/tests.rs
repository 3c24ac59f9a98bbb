use weir_config::{FramePolicy, ReferrerPolicy};
use weir_proto_h1::{BodyKind, Limits, parse_response};

use super::*;
use crate::policy::filter::Filters;

fn added(fields: &weir_config::SecurityHeaders, is_https: bool, answer: &str) -> Vec<String> {
    added_after(fields, is_https, answer, |_| {})
}

fn added_after(
    fields: &weir_config::SecurityHeaders,
    is_https: bool,
    answer: &str,
    edit: impl FnOnce(&mut Edits),
) -> Vec<String> {
    let block = format!("HTTP/1.1 200 OK\r\n{answer}\r\n");
    let mut head = Head::new();
    parse_response(block.as_bytes(), &Limits::default(), &mut head).unwrap();
    let mut edits = Edits::new();
    edit(&mut edits);
    let facts = Facts {
        is_https,
        ..Facts::default()
    };
    SecurityHeaders::compile(fields).edit_answer(
        &facts,
        &mut AnswerView {
            head: &mut head,
            block: block.as_bytes(),
            edits: &mut edits,
            is_local: false,
            attempt: None,
            body: BodyKind::None,
            filters: &mut Filters::new(false),
        },
    );
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    edits
        .iter()
        .map(|(name, value)| format!("{}: {}", show(name), show(value)))
        .collect()
}

fn all() -> weir_config::SecurityHeaders {
    weir_config::SecurityHeaders {
        hsts: Some("max-age=31536000".to_owned()),
        nosniff: true,
        frame: Some(FramePolicy::SameOrigin),
        referrer: Some(ReferrerPolicy::StrictOriginWhenCrossOrigin),
    }
}

#[test]
fn an_answer_gets_the_fields_that_it_has_not() {
    let plain = [
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: SAMEORIGIN",
        "Referrer-Policy: strict-origin-when-cross-origin",
    ];
    assert_eq!(added(&all(), false, ""), plain);
    let over_tls = added(&all(), true, "");
    assert_eq!(over_tls[0], "Strict-Transport-Security: max-age=31536000");
    assert_eq!(over_tls[1..], plain);
    let own = "x-frame-options: DENY\r\nstrict-transport-security: max-age=0\r\n";
    assert_eq!(added(&all(), true, own), [plain[0], plain[2]]);
    let some = weir_config::SecurityHeaders {
        hsts: None,
        nosniff: false,
        frame: Some(FramePolicy::Deny),
        referrer: None,
    };
    assert_eq!(added(&some, true, ""), ["X-Frame-Options: DENY"]);
}

/// A field that `headers` writes stays, and one that it takes from the endpoint is no reason to have none.
#[test]
fn rules_for_headers_go_before() {
    let own = "X-Frame-Options: DENY\r\n";
    let written = added_after(&all(), false, own, |edits| {
        edits.append("Referrer-Policy", "no-referrer");
        edits.remove("X-Frame-Options");
    });
    assert_eq!(
        written,
        [
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: SAMEORIGIN"
        ]
    );
}

#[test]
fn explains_what_it_adds() {
    let step = SecurityHeaders::compile(&all());
    let facts = |is_https| Facts {
        is_https,
        ..Facts::default()
    };
    let text = |is_https| match step.explain(&facts(is_https)) {
        Verdict::Does(text) => text,
        other => panic!("{other:?}"),
    };
    assert!(text(true).contains("Strict-Transport-Security: max-age=31536000"));
    assert!(!text(false).contains("Strict"));
    let hsts = weir_config::SecurityHeaders {
        nosniff: false,
        frame: None,
        referrer: None,
        ..all()
    };
    assert_eq!(
        SecurityHeaders::compile(&hsts).explain(&facts(false)),
        Verdict::Does("nothing without TLS".to_owned())
    );
}
