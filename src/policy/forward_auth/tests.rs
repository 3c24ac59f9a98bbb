use std::net::SocketAddr;

use weir_proto_h1::{BodyKind, Head, Limits, Request, Span, parse_request};

use super::*;
use crate::io::Instant;

/// A request, as a step sees it.
struct Asked {
    head: Head,
    block: Vec<u8>,
    hop: Request,
    facts: Facts,
    sent_path: Vec<u8>,
    now: Instant,
}

impl Asked {
    fn new(text: &str) -> Self {
        let block = format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes();
        let mut head = Head::new();
        parse_request(&block, &Limits::default(), &mut head).unwrap();
        Self {
            head,
            block,
            hop: Request::default(),
            facts: Facts {
                client: Some([192, 0, 2, 7].into()),
                is_https: true,
                ..Facts::default()
            },
            sent_path: Vec::new(),
            now: Instant(1),
        }
    }

    fn with<T>(&mut self, use_step: impl FnOnce(&StepRequest<'_>, &mut Facts) -> T) -> T {
        let request = StepRequest {
            peer: Some(SocketAddr::from(([10, 0, 0, 1], 5_000))),
            sent_path: &self.sent_path,
            given_id: b"id-1",
            now: self.now,
            ..StepRequest::for_test(&self.head, &self.block, &self.hop)
        };
        use_step(&request, &mut self.facts)
    }

    /// Runs the step; the request that it sends, or `None` if the request passes at once.
    fn run(&mut self, step: &ForwardAuth, verdicts: Option<&Verdicts>) -> Option<CallRequest> {
        match self.with(|request, facts| step.run(verdicts, request, facts)) {
            Flow::Next => None,
            Flow::Wait(Wait::Call(call)) => Some(call.request),
            flow => panic!("{flow:?}"),
        }
    }

    fn resume(&mut self, step: &ForwardAuth, verdicts: Option<&Verdicts>, woken: Woken) -> Flow {
        self.with(|request, facts| step.resume(verdicts, request, facts, woken))
    }

    /// The fields that the step adds to the request.
    fn edited(&mut self, step: &ForwardAuth, edits: &mut Edits) -> Vec<String> {
        self.with(|request, facts| step.edit_request(request, facts, edits));
        let line = |(name, value): (&[u8], &[u8])| {
            format!(
                "{}: {}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            )
        };
        edits.iter().map(line).collect()
    }
}

fn step() -> ForwardAuth {
    ForwardAuth {
        upstream: UpstreamId(3),
        upstream_name: "auth".into(),
        authority: Some("auth.test".into()),
        method: "GET".into(),
        target: "/verify?rd=a".into(),
        request_fields: None,
        copy_to_request: ["Remote-User".into(), "Remote-Groups".into()].into(),
        copy_to_response: ["Set-Cookie".into(), "X-Session".into()].into(),
        timeout: Duration::from_secs(5),
        allows_on_error: false,
        cache: None,
    }
}

fn answer(status: u16, fields: &[(&str, &str)]) -> Woken {
    let field = |&(name, value): &(&str, &str)| {
        let name: Box<[u8]> = name.as_bytes().into();
        (name, value.as_bytes().to_vec())
    };
    Woken::Answered(Box::new(CallAnswer {
        status,
        fields: fields.iter().map(field).collect(),
        body: b"body".to_vec(),
        cut_by: None,
    }))
}

fn text(request: &CallRequest) -> String {
    let head = request.head();
    let get = |span: Span| String::from_utf8_lossy(span.get(request.block()));
    let mut lines = vec![format!(
        "{} {} {}",
        get(head.method_span),
        get(head.authority),
        get(head.target)
    )];
    let fields = head.iter();
    lines.extend(fields.map(|field| format!("{}: {}", get(field.name), get(field.value))));
    lines.join("\n")
}

const POST: &str = "POST /a/../b?c=d HTTP/1.1\nHost: app.test:8443\nCookie: s=1\nContent-Length: 5\n\
                    Expect: 100-continue\nAuthorization: Bearer x\nIf-None-Match: *\nX-Request-ID: forged\n\
                    X-Forwarded-Uri: /forged\nX-Original-URI: /forged\nx_forwarded_method: FORGED\n\
                    X-Forwarded-Host: trusted.test, other.test\nRange: bytes=0-1";

#[test]
fn the_server_gets_the_request_without_its_body_and_without_forgeries() {
    let mut asked = Asked::new(POST);
    asked.sent_path = b"/b".to_vec();
    let sent = asked.run(&step(), None).unwrap();
    assert_eq!(
        text(&sent),
        "GET auth.test /verify?rd=a\nCookie: s=1\nAuthorization: Bearer x\nX-Forwarded-Method: POST\n\
         X-Forwarded-Proto: https\nX-Forwarded-Host: app.test:8443\nX-Forwarded-Uri: /b?c=d\n\
         X-Forwarded-For: 192.0.2.7\nX-Original-Method: POST\n\
         X-Original-URL: https://app.test:8443/b?c=d"
    );
}

#[test]
fn a_trusted_proxy_names_the_host_and_nothing_else() {
    let mut asked = Asked::new(POST);
    asked.facts.trusts_peer = true;
    let host = b"trusted.test";
    let start = asked
        .block
        .windows(host.len())
        .position(|part| part == host);
    asked.facts.forwarded_host = start.map(|start| Span::new(start, start + host.len()));
    let sent = asked.run(&step(), None).unwrap();
    assert_eq!(sent.value(b"X-Forwarded-Host"), Some(&b"trusted.test"[..]));
    assert_eq!(sent.value(b"X-Forwarded-Uri"), Some(&b"/a/../b?c=d"[..]));
    let url = sent.value(b"X-Original-URL");
    assert_eq!(url, Some(&b"https://trusted.test/a/../b?c=d"[..]));
}

#[test]
fn the_file_may_choose_the_fields_and_the_host() {
    let step = ForwardAuth {
        authority: None,
        request_fields: Some(["cookie".into(), "Range".into()].into()),
        ..step()
    };
    let sent = Asked::new(POST).run(&step, None).unwrap();
    let sent = text(&sent);
    assert!(
        sent.starts_with(
            "GET app.test:8443 /verify?rd=a\nCookie: s=1\nRange: bytes=0-1\nX-Forwarded-Method"
        ),
        "{sent}"
    );
}

#[test]
fn a_success_passes_with_the_servers_fields_and_without_the_clients() {
    let (step, mut asked) = (
        step(),
        Asked::new("GET / HTTP/1.1\nHost: a\nRemote-User: root\nremote_groups: wheel"),
    );
    let mut edits = Edits::new();
    edits.append("Remote-User", "added before");
    asked.run(&step, None).unwrap();
    let fields = [
        ("remote-user", "alice"),
        ("Remote-Mail", "a@b"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Session", "7"),
    ];
    let flow = asked.resume(&step, None, answer(202, &fields));
    assert!(matches!(flow, Flow::Next), "{flow:?}");
    assert_eq!(asked.edited(&step, &mut edits), ["remote-user: alice"]);
    assert!(edits.removes_name(b"Remote-User") && edits.removes_name(b"Remote-Groups"));
    assert!(
        edits.removes_name(b"remote_groups"),
        "an endpoint may mix them up"
    );

    let (mut head, mut to_client) = (Head::with_status(200), Edits::new());
    to_client.append("Set-Cookie", "own=1");
    let mut view = AnswerView {
        head: &mut head,
        block: b"",
        edits: &mut to_client,
        is_local: true,
        attempt: None,
        body: BodyKind::None,
        filters: &mut crate::policy::filter::Filters::default(),
    };
    step.edit_answer(&asked.facts, &mut view);
    let values: Vec<_> = to_client.iter().map(|(_, value)| value).collect();
    assert_eq!(values, [&b"own=1"[..], b"a=1", b"b=2", b"7"]);
    assert!(to_client.removes_name(b"X-Session"));
}

#[test]
fn a_server_that_names_no_user_clears_the_clients_claim() {
    let (step, mut asked) = (
        step(),
        Asked::new("GET / HTTP/1.1\nHost: a\nRemote-User: root"),
    );
    let flow = asked.resume(&step, None, answer(200, &[]));
    assert!(matches!(flow, Flow::Next), "{flow:?}");
    let mut edits = Edits::new();
    assert!(asked.edited(&step, &mut edits).is_empty());
    assert!(edits.removes_name(b"Remote-User"));
}

#[test]
fn other_answers_go_to_the_client_as_they_are() {
    for status in [302, 401, 403, 404, 418, 429] {
        let mut asked = Asked::new("GET / HTTP/1.1\nHost: a");
        let fields = [
            ("Location", "https://portal/"),
            ("Set-Cookie", "a=1"),
            ("Date", "today"),
        ];
        let flow = asked.resume(&step(), None, answer(status, &fields));
        let Flow::Reply(reply) = flow else {
            panic!("{flow:?}")
        };
        assert_eq!((reply.reason, reply.status), (None, status));
        let names: Vec<_> = reply.fields.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["Location", "Set-Cookie"]);
        assert_eq!(reply.body, b"body");
    }
}

#[test]
fn a_call_is_refused_in_the_words_of_grpc() {
    for (status, code) in [(302, "16"), (401, "16"), (403, "7"), (400, "2")] {
        let mut asked = Asked::new("POST /a.B/C HTTP/1.1\nHost: a");
        asked.head.version = weir_proto_h1::Version::Http2;
        asked.facts.is_grpc_call = true;
        let fields = [
            ("content-type", "text/html"),
            ("WWW-Authenticate", "Bearer"),
            ("Location", "https://portal/"),
        ];
        let flow = asked.resume(&step(), None, answer(status, &fields));
        let Flow::Reply(reply) = flow else {
            panic!("{flow:?}")
        };
        let fields: Vec<_> = reply
            .fields
            .iter()
            .map(|(name, value)| (&**name, &value[..]))
            .take(3)
            .collect();
        let want = [
            ("WWW-Authenticate", &b"Bearer"[..]),
            ("Content-Type", b"application/grpc"),
            ("grpc-status", code.as_bytes()),
        ];
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(fields, want);
    }
}

#[test]
fn on_error_is_about_failures_of_the_server_alone() {
    let call_failed = |reason| move || Woken::CallFailed(reason);
    let status = |status| move || answer(status, &[]);
    let cut = || {
        let Woken::Answered(mut refusal) = answer(403, &[]) else {
            panic!()
        };
        refusal.cut_by = Some(Reason::CallTooLarge);
        Woken::Answered(refusal)
    };
    let cases: [(&dyn Fn() -> Woken, bool); 15] = [
        (&call_failed(Reason::ConnectFailed), true),
        (&call_failed(Reason::ConnectTimeout), true),
        (&call_failed(Reason::FirstByteTimeout), true),
        (&call_failed(Reason::TotalTimeout), true),
        (&call_failed(Reason::Unresolved), true),
        (&status(500), true),
        (&status(503), true),
        (&call_failed(Reason::CallLimit), false),
        (&call_failed(Reason::MemoryLimit), false),
        (&call_failed(Reason::ShuttingDown), false),
        (&call_failed(Reason::UpstreamLimit), false),
        (&cut, false),
        // A client could cause these.
        (&call_failed(Reason::ResponseHeadTooLarge), false),
        (&call_failed(Reason::BadResponse), false),
        (&call_failed(Reason::UpstreamClosed), false),
    ];
    for (index, (woken, passes_if_allowed)) in cases.into_iter().enumerate() {
        for allows_on_error in [false, true] {
            let step = ForwardAuth {
                allows_on_error,
                ..step()
            };
            let mut asked = Asked::new("GET / HTTP/1.1\nHost: a");
            match asked.resume(&step, None, woken()) {
                Flow::Next => assert!(allows_on_error && passes_if_allowed, "case {index}"),
                Flow::Reply(reply) => {
                    assert!(!(allows_on_error && passes_if_allowed), "case {index}");
                    let own = [Reason::CallLimit, Reason::MemoryLimit, Reason::ShuttingDown];
                    let reason = reply.reason.unwrap();
                    assert!(reason == Reason::AuthUnavailable || own.contains(&reason));
                }
                flow @ Flow::Wait(_) => panic!("{flow:?}"),
            }
        }
    }
}

#[test]
fn a_verdict_is_kept_for_equal_requests_of_the_same_client() {
    let step = ForwardAuth {
        cache: Some(Duration::from_secs(30)),
        ..step()
    };
    let verdicts = Verdicts::default();
    let request = "GET /x HTTP/1.1\nHost: a\nCookie: s=1";
    let mut first = Asked::new(request);
    first.run(&step, Some(&verdicts)).unwrap();
    first.resume(
        &step,
        Some(&verdicts),
        answer(200, &[("Remote-User", "alice")]),
    );
    let mut second = Asked::new(request);
    assert!(second.run(&step, Some(&verdicts)).is_none());
    let mut edits = Edits::new();
    assert_eq!(second.edited(&step, &mut edits), ["Remote-User: alice"]);

    let others = [
        "GET /y HTTP/1.1\nHost: a\nCookie: s=1",
        "GET /x?a HTTP/1.1\nHost: a\nCookie: s=1",
        "POST /x HTTP/1.1\nHost: a\nCookie: s=1",
        "GET /x HTTP/1.1\nHost: b\nCookie: s=1",
        "GET /x HTTP/1.1\nHost: a\nCookie: s=2",
        "GET /x HTTP/1.1\nHost: a",
    ];
    for other in others {
        let asked = Asked::new(other).run(&step, Some(&verdicts));
        assert!(asked.is_some(), "{other}");
    }
    let mut elsewhere = Asked::new(request);
    elsewhere.facts.client = Some([192, 0, 2, 8].into());
    assert!(elsewhere.run(&step, Some(&verdicts)).is_some());
    let mut in_the_clear = Asked::new(request);
    in_the_clear.facts.is_https = false;
    assert!(in_the_clear.run(&step, Some(&verdicts)).is_some());
    let mut late = Asked::new(request);
    late.now = Instant(1) + Duration::from_secs(30);
    assert!(late.run(&step, Some(&verdicts)).is_some());
}

#[test]
fn refusals_failures_and_cookies_are_not_kept() {
    let step = ForwardAuth {
        cache: Some(Duration::from_secs(30)),
        allows_on_error: true,
        ..step()
    };
    let verdicts = Verdicts::default();
    let wokens = [
        answer(403, &[]),
        answer(200, &[("set-cookie", "a=1")]),
        answer(500, &[]),
        Woken::CallFailed(Reason::ConnectFailed),
    ];
    for woken in wokens {
        let mut asked = Asked::new("GET /x HTTP/1.1\nHost: a");
        assert!(asked.run(&step, Some(&verdicts)).is_some());
        asked.resume(&step, Some(&verdicts), woken);
    }
    let asked = Asked::new("GET /x HTTP/1.1\nHost: a").run(&step, Some(&verdicts));
    assert!(asked.is_some());
}
