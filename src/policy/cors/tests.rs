use std::rc::Rc;

use weir_config::parse;
use weir_proto_h1::{BodyKind, Edits, Limits, Request, parse_request, parse_response};

use super::*;

/// The step that `cors = RULES` makes, and a core's state for it.
struct Tested {
    step: PlannedStep,
    states: Vec<Rc<State>>,
}

impl Tested {
    #[track_caller]
    fn new(rules: &str) -> Self {
        let text = format!(
            "cors = {rules}\n[listen.\"0.0.0.0:80\"]\n[[route]]\nmatch = \"/\"\nrespond = 200\n"
        );
        let (config, _) = parse("test", &text)
            .map_err(|errors| weir_config::to_text(&errors))
            .unwrap();
        let mut plans = StatePlans::default();
        let step = compile(config.routes[0].policies.cors.as_ref().unwrap(), &mut plans).unwrap();
        Self {
            step,
            states: plans.make_states(None),
        }
    }

    /// What becomes of a request with these field lines, and of the endpoint's answer to it.
    fn ask(&self, request: &str, answer: &str) -> Asked {
        let block = format!("{}\r\n\r\n", request.replace('\n', "\r\n")).into_bytes();
        let mut head = Head::new();
        parse_request(&block, &Limits::default(), &mut head).unwrap();
        let hop = Request::default();
        let request = StepRequest::for_test(&head, &block, &hop);
        let (state, mut facts) = (
            self.step.state(&self.states),
            crate::policy::Facts::default(),
        );
        let flow = self.step.step.run(state, &request, &mut facts);
        let (mut edits, mut head) = (Edits::new(), Head::new());
        let answer =
            format!("HTTP/1.1 200 OK\r\n{}\r\n", answer.replace('\n', "\r\n")).into_bytes();
        parse_response(&answer, &Limits::default(), &mut head).unwrap();
        let (mut status, mut reason) = (200, None);
        let is_local = match flow {
            Flow::Next => false,
            Flow::Reply(reply) => {
                (status, reason) = (reply.status, reply.reason);
                head = Head::with_status(status);
                for (name, value) in &reply.fields {
                    edits.append(&**name, value);
                }
                true
            }
            Flow::Wait(_) => panic!("nothing to wait for"),
        };
        let block = if is_local { &[][..] } else { &answer[..] };
        let mut view = AnswerView {
            head: &mut head,
            block,
            edits: &mut edits,
            is_local,
            attempt: None,
            body: BodyKind::None,
            filters: &mut crate::policy::filter::Filters::default(),
        };
        self.step
            .step
            .edit_answer(state, &request, &mut facts, &mut view);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let kept = head.iter().filter(|field| {
            !edits.removed().has(field.id)
                || field.id == FieldId::Other && !edits.removes_name(field.name.get(block))
        });
        let kept = kept.map(|field| (text(field.name.get(block)), text(field.value.get(block))));
        let added = edits.iter().map(|(name, value)| (text(name), text(value)));
        Asked {
            status,
            reason,
            fields: kept
                .chain(added)
                .map(|(name, value)| format!("{name}: {value}"))
                .collect(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Asked {
    status: u16,
    reason: Option<Reason>,
    fields: Vec<String>,
}

#[track_caller]
fn check(rules: &str, request: &str, status: u16, fields: &[&str]) {
    let asked = Tested::new(rules).ask(request, "");
    assert_eq!(
        (asked.status, &asked.fields[..]),
        (
            status,
            &fields
                .iter()
                .map(|field| (*field).to_owned())
                .collect::<Vec<_>>()[..]
        ),
        "{rules}\n{request}"
    );
}

const GET: &str = "GET / HTTP/1.1\nHost: a\nOrigin: https://app.example.com";
const PREFLIGHT: &str = "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://app.example.com\nAccess-Control-Request-Method: PUT\nAccess-Control-Request-Headers: content-type,x-a";

#[test]
fn requests_of_allowed_pages() {
    let rules = r#"["https://app.example.com", "https://*.example.org"]"#;
    check(
        rules,
        GET,
        200,
        &[
            "Access-Control-Allow-Origin: https://app.example.com",
            "Vary: Origin",
        ],
    );
    check(
        rules,
        "GET / HTTP/1.1\nHost: a\nOrigin: https://b.example.org",
        200,
        &[
            "Access-Control-Allow-Origin: https://b.example.org",
            "Vary: Origin",
        ],
    );
    // The others pass, and the browser keeps the answer from the page.
    check(
        rules,
        "GET / HTTP/1.1\nHost: a\nOrigin: https://evil.test",
        200,
        &["Vary: Origin"],
    );
    check(
        rules,
        "GET / HTTP/1.1\nHost: a\nOrigin: null",
        200,
        &["Vary: Origin"],
    );
    check(rules, "GET / HTTP/1.1\nHost: a", 200, &["Vary: Origin"]);
    let two = format!("{GET}\nOrigin: https://app.example.com");
    check(rules, &two, 200, &["Vary: Origin"]);
    check(
        r#"{ origins = ["https://app.example.com", "null"], credentials = true, expose = ["X-A", "X-B"], max_age = "1h" }"#,
        "GET / HTTP/1.1\nHost: a\nOrigin: null",
        200,
        &[
            "Access-Control-Allow-Origin: null",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Expose-Headers: X-A, X-B",
            "Vary: Origin",
        ],
    );
}

#[test]
fn a_star_is_the_same_for_everybody() {
    let star = "Access-Control-Allow-Origin: *";
    for request in [
        GET,
        "GET / HTTP/1.1\nHost: a",
        "GET / HTTP/1.1\nHost: a\nOrigin: null",
    ] {
        check(r#""*""#, request, 200, &[star]);
    }
    check(
        r#"{ origins = "*", expose = "*", methods = ["PUT"], headers = ["X-A"] }"#,
        PREFLIGHT,
        204,
        &[
            "Access-Control-Allow-Methods: PUT",
            "Access-Control-Allow-Headers: X-A",
            star,
        ],
    );
}

/// Fetch, section "CORS-preflight fetch", steps 1 to 7, from the server's side.
#[test]
fn preflights() {
    let origin = "Access-Control-Allow-Origin: https://app.example.com";
    let all_vary = "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    check(
        r#""https://app.example.com""#,
        PREFLIGHT,
        204,
        &[
            "Access-Control-Allow-Methods: PUT",
            "Access-Control-Allow-Headers: content-type,x-a",
            origin,
            all_vary,
        ],
    );
    check(
        r#""https://app.example.com""#,
        "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://app.example.com\nAccess-Control-Request-Method: DELETE",
        204,
        &["Access-Control-Allow-Methods: DELETE", origin, all_vary],
    );
    // The lists are the answer, whether or not they have what is asked for: the browser compares, and says what is missing.
    check(
        r#"{ origins = "https://app.example.com", methods = ["PATCH", "DELETE"], headers = ["Authorization"], credentials = true, expose = "X-A", max_age = "10m" }"#,
        PREFLIGHT,
        204,
        &[
            "Access-Control-Allow-Methods: PATCH, DELETE",
            "Access-Control-Allow-Headers: Authorization",
            "Access-Control-Max-Age: 600",
            origin,
            "Access-Control-Allow-Credentials: true",
            "Vary: Origin",
        ],
    );
    check(
        r#"{ origins = "https://app.example.com", methods = [], headers = [], max_age = "0s" }"#,
        PREFLIGHT,
        204,
        &["Access-Control-Max-Age: 0", origin, "Vary: Origin"],
    );
    // `*` means what is asked for, also where a browser would not take a star.
    check(
        r#"{ origins = "https://app.example.com", methods = "*", headers = "*", credentials = true }"#,
        PREFLIGHT,
        204,
        &[
            "Access-Control-Allow-Methods: PUT",
            "Access-Control-Allow-Headers: content-type,x-a",
            origin,
            "Access-Control-Allow-Credentials: true",
            all_vary,
        ],
    );
}

#[test]
fn private_networks() {
    let rules = r#"{ origins = "https://app.example.com", methods = "PUT", headers = [], private_network = true }"#;
    let asks = format!("{PREFLIGHT}\nAccess-Control-Request-Private-Network: true");
    let origin = "Access-Control-Allow-Origin: https://app.example.com";
    let vary = "Vary: Origin, Access-Control-Request-Private-Network";
    let put = "Access-Control-Allow-Methods: PUT";
    check(
        rules,
        &asks,
        204,
        &[
            put,
            "Access-Control-Allow-Private-Network: true",
            origin,
            vary,
        ],
    );
    check(rules, PREFLIGHT, 204, &[put, origin, vary]);
    let refuses = r#"{ origins = "https://app.example.com", methods = "PUT", headers = [] }"#;
    check(refuses, &asks, 204, &[put, origin, "Vary: Origin"]);
}

/// Fetch, section "HTTP responses": a server that does not take part should answer 403.
#[test]
fn a_preflight_of_another_origin_is_refused() {
    let vary = "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    for origin in [
        "https://evil.test",
        "null",
        "https://app.example.com\nOrigin: https://evil.test",
    ] {
        let request = PREFLIGHT.replace("https://app.example.com", origin);
        check(r#""https://app.example.com""#, &request, 403, &[vary]);
        let asked = Tested::new(r#""https://app.example.com""#).ask(&request, "");
        assert_eq!(asked.reason, Some(Reason::OriginDenied));
    }
}

#[test]
fn other_options_requests_pass() {
    for request in [
        "OPTIONS / HTTP/1.1\nHost: a",
        "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://app.example.com",
        "OPTIONS / HTTP/1.1\nHost: a\nAccess-Control-Request-Method: PUT",
        "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://app.example.com\nAccess-Control-Request-Method: a b",
        "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://app.example.com\nAccess-Control-Request-Method: PUT\nAccess-Control-Request-Method: GET",
        "GET / HTTP/1.1\nHost: a\nOrigin: https://app.example.com\nAccess-Control-Request-Method: PUT",
    ] {
        let asked = Tested::new(r#""https://app.example.com""#).ask(request, "");
        assert_eq!((asked.status, asked.reason), (200, None), "{request}");
    }
}

#[test]
fn fields_that_are_no_names_are_not_allowed() {
    for asked in ["x-a,", "x a", "x-a,,x-b", "x-a;x-b", "\"x-a\""] {
        let request = PREFLIGHT.replace("content-type,x-a", asked);
        let answer = Tested::new(r#""https://app.example.com""#).ask(&request, "");
        assert!(
            !answer
                .fields
                .iter()
                .any(|field| field.starts_with("Access-Control-Allow-Headers")),
            "{asked}: {answer:?}"
        );
    }
}

#[test]
fn an_endpoints_own_fields_are_replaced() {
    let endpoints = "Content-Type: text/plain\naccess-control-allow-origin: *\nAccess-Control-Allow-Credentials: true\nAccess-Control-Allow-Methods: PUT\nACCESS-CONTROL-EXPOSE-HEADERS: X-B\nAccess-Control-Max-Age: 5\nX-Access-Control: stays\n";
    let rules = Tested::new(r#""https://app.example.com""#);
    let kept = ["Content-Type: text/plain", "X-Access-Control: stays"];
    let allowed = rules.ask(GET, endpoints);
    assert_eq!(
        allowed.fields,
        [
            &kept[..],
            &[
                "Access-Control-Allow-Origin: https://app.example.com",
                "Vary: Origin"
            ]
        ]
        .concat()
    );
    let denied = rules.ask(&GET.replace("app", "evil"), endpoints);
    assert_eq!(denied.fields, [&kept[..], &["Vary: Origin"]].concat());
}

#[test]
fn vary_is_merged_with_the_endpoints() {
    let rules = Tested::new(r#""https://app.example.com""#);
    for (endpoints, merged) in [
        (
            "Vary: Accept-Encoding\n",
            vec!["Vary: Accept-Encoding, Origin"],
        ),
        (
            "Vary: Accept\nVary: Cookie\n",
            vec!["Vary: Accept, Cookie, Origin"],
        ),
        ("Vary: origin\n", vec!["Vary: origin"]),
        ("Vary: Accept, Origin\n", vec!["Vary: Accept, Origin"]),
        ("Vary: *\n", vec!["Vary: *"]),
        ("Vary: X-Origin\n", vec!["Vary: X-Origin, Origin"]),
    ] {
        let asked = rules.ask(GET, endpoints);
        let vary: Vec<_> = asked
            .fields
            .iter()
            .filter(|field| field.starts_with("Vary"))
            .collect();
        assert_eq!(vary, merged, "{endpoints}");
    }
    let asked = Tested::new(r#""*""#).ask(GET, "Vary: Accept\n");
    assert_eq!(
        asked.fields,
        ["Vary: Accept", "Access-Control-Allow-Origin: *"]
    );
}

#[test]
fn regular_expressions_have_a_state_that_routes_share() {
    let rules = Tested::new(r#"[{ regex = "https://[a-z]+\\.example\\.com" }]"#);
    assert_eq!(rules.states.len(), 1);
    assert_eq!(
        rules.ask(GET, "").fields,
        [
            "Access-Control-Allow-Origin: https://app.example.com",
            "Vary: Origin"
        ]
    );
    assert_eq!(
        rules.ask(&GET.replace("app", "a-p"), "").fields,
        ["Vary: Origin"]
    );
    let text = "cors = [{ regex = 'a' }]\n[listen.\"0.0.0.0:80\"]\n[[route]]\nmatch = \"/\"\nrespond = 200\n\
        [[route]]\nmatch = \"/b\"\nrespond = 200\ncors = { max_age = '1s' }\n[[route]]\nmatch = \"/c\"\nrespond = 200\ncors = [{ regex = 'b' }]\n";
    let (config, _) = parse("test", text).unwrap();
    let mut plans = StatePlans::default();
    let mut ids = Vec::new();
    for route in &config.routes {
        ids.push(
            compile(route.policies.cors.as_ref().unwrap(), &mut plans)
                .unwrap()
                .state
                .unwrap(),
        );
    }
    assert_eq!((ids[0], ids[0] == ids[2]), (ids[1], false));
    // Another plan has another automaton, so the memory is new.
    let mut reloaded = StatePlans::default();
    compile(
        config.routes[0].policies.cors.as_ref().unwrap(),
        &mut reloaded,
    )
    .unwrap();
    let old = plans.make_states(None);
    let new = reloaded.make_states(Some((&plans, &old)));
    assert!(!Rc::ptr_eq(&new[0], &old[0]));
}

#[test]
fn explanations() {
    let rules = Tested::new(r#""https://app.example.com""#);
    let Step::Cors(step) = &rules.step.step else {
        panic!()
    };
    let explain = |request: &str| {
        let block = format!("{}\r\n\r\n", request.replace('\n', "\r\n")).into_bytes();
        let mut head = Head::new();
        parse_request(&block, &Limits::default(), &mut head).unwrap();
        step.explain_head(&head, &block)
    };
    assert_eq!(
        explain(PREFLIGHT),
        Verdict::Answers(
            204,
            "allows the preflight of https://app.example.com".to_owned()
        )
    );
    let evil = |request: &str| request.replace("app.example.com", "evil.test");
    assert!(matches!(
        explain(&evil(PREFLIGHT)),
        Verdict::Refuses(Reason::OriginDenied, _)
    ));
    for (request, text) in [
        (
            GET.to_owned(),
            "lets pages of https://app.example.com read the answer",
        ),
        (
            evil(GET),
            "takes CORS fields off the answer: https://evil.test is not in `origins`",
        ),
        (
            "GET / HTTP/1.1\nHost: a".to_owned(),
            "takes CORS fields off the answer: the request has no Origin",
        ),
    ] {
        assert_eq!(explain(&request), Verdict::Does(text.to_owned()));
    }
}
