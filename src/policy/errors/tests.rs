use weir_config::{NamedFile, Position};

use super::*;

const ID: &[u8] = b"0123456789abcdef";

fn body(key: ErrorKey, text: &str) -> ErrorAnswer {
    ErrorAnswer {
        key,
        content: ErrorContent::Body {
            text: text.into(),
            content_type: "text/html".to_owned(),
        },
        upstream: false,
        position: Position::default(),
    }
}

fn reason(code: &str) -> ErrorKey {
    ErrorKey::Reason(code.to_owned())
}

fn compile(answers: Vec<ErrorAnswer>) -> ErrorPages {
    let errors = Errors(answers);
    ErrorPages::compile(&errors)
        .map_err(|(_, problem)| problem)
        .unwrap()
}

fn facts(status: u16, reason: Option<Reason>) -> AnswerFacts<'static> {
    AnswerFacts {
        status,
        reason,
        request_id: ID,
    }
}

/// The body for this reason.
fn shown(pages: &ErrorPages, reason: Reason) -> Option<String> {
    let page = pages.find(reason)?;
    let body = page.body(facts(reason.status(), Some(reason)));
    Some(String::from_utf8(body.into_owned()).unwrap())
}

#[test]
fn the_most_specific_key_wins() {
    let pages = compile(vec![
        body(reason("no_route"), "reason"),
        body(ErrorKey::Status(404), "status"),
        body(ErrorKey::Status(502), "bad gateway"),
        body(ErrorKey::Class(4), "class"),
    ]);
    for (reason, expected) in [
        (Reason::NoRoute, Some("reason")),
        (Reason::UpstreamClosed, Some("bad gateway")),
        (Reason::ConnectFailed, Some("bad gateway")),
        (Reason::MethodNotAllowed, Some("class")),
        (Reason::QueueTimeout, None),
    ] {
        assert_eq!(
            shown(&pages, reason).as_deref(),
            expected,
            "{}",
            reason.code()
        );
    }
}

#[test]
fn endpoints_answers_are_replaced_by_pages_that_say_so() {
    let relayed = |key, text| ErrorAnswer {
        upstream: true,
        ..body(key, text)
    };
    let pages = compile(vec![
        body(reason("upstream_closed"), "reason"),
        body(ErrorKey::Status(404), "own 404 only"),
        relayed(ErrorKey::Status(500), "500"),
        relayed(ErrorKey::Class(4), "4xx"),
    ]);
    let replaced = |status| pages.find_for_relayed(status).map(|page| page.bytes());
    assert_eq!(replaced(500), Some(3));
    assert_eq!(replaced(403), Some(3));
    assert_eq!(replaced(404), None, "the more specific key leaves it alone");
    assert_eq!(replaced(502), None, "no endpoint's answer has a reason");
    assert_eq!(replaced(200), None);
    assert!(
        compile(vec![body(ErrorKey::Class(5), "own")])
            .find_for_relayed(500)
            .is_none()
    );
}

#[test]
fn variables_are_filled_in_and_other_braces_stay() {
    let text = "p{color:red}{{status}} {reason}: {request_id} {nothing} {status";
    let page = compile(vec![body(ErrorKey::Class(5), text)]);
    assert_eq!(
        shown(&page, Reason::UpstreamClosed).unwrap(),
        "p{color:red}{502} upstream_closed: 0123456789abcdef {nothing} {status"
    );
    let page = page.find(Reason::UpstreamClosed).unwrap();
    let body = page.body(facts(500, None));
    assert_eq!(
        &*body,
        b"p{color:red}{500} : 0123456789abcdef {nothing} {status"
    );
    assert!(matches!(
        compile(vec![tests::body(ErrorKey::Class(5), "plain")])
            .find(Reason::Internal)
            .unwrap()
            .body(facts(500, None)),
        Cow::Borrowed(b"plain")
    ));
}

#[test]
fn a_redirect_has_a_location_and_no_body() {
    let pages = compile(vec![ErrorAnswer {
        content: ErrorContent::Redirect(
            "https://status.example/?id={request_id}&{status}".to_owned(),
        ),
        ..body(ErrorKey::Status(503), "")
    }]);
    let page = pages.find(Reason::QueueTimeout).unwrap();
    let facts = facts(503, Some(Reason::QueueTimeout));
    assert_eq!(page.status(503), 302);
    assert_eq!(
        page.field(facts),
        (
            "Location",
            b"https://status.example/?id=0123456789abcdef&503"[..].into()
        )
    );
    assert!(page.body(facts).is_empty());
}

#[test]
fn a_file_is_a_page_once_it_is_read() {
    let file = |path: &str| ErrorAnswer {
        content: ErrorContent::File {
            file: NamedFile {
                path: path.into(),
                excerpt: None,
            },
            content_type: "text/html".to_owned(),
        },
        ..body(ErrorKey::Status(404), "")
    };
    let mut pages = compile(vec![file("/a.html")]);
    assert_eq!(shown(&pages, Reason::NoRoute).as_deref(), Some(""));
    pages.take_files(&[(PathBuf::from("/a.html"), "a".into())].into());
    assert_eq!(shown(&pages, Reason::NoRoute).as_deref(), Some("a"));
}

#[test]
fn an_unknown_reason_comes_with_advice() {
    let errors = Errors(vec![body(reason("no_rout"), "")]);
    let (_, problem) = ErrorPages::compile(&errors).unwrap_err();
    assert!(problem.contains("did you mean `no_route`?"), "{problem}");
    let errors = Errors(vec![body(reason("nonsense"), "")]);
    let (_, problem) = ErrorPages::compile(&errors).unwrap_err();
    assert!(problem.contains("reasons.md"), "{problem}");
}
