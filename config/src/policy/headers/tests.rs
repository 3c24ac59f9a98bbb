use super::*;

fn rules(headers: &str) -> HeaderRules {
    let (mut config, _) = parsed(&format!("headers = {headers}\n"), "").expect(headers);
    config.routes.remove(0).policies.headers.expect("rules")
}

/// A file with these lines at the top level and in its route for `/users/{id}`.
fn parsed(top: &str, route: &str) -> Result<(crate::Config, String), String> {
    let text = format!(
        "{top}\n[listen.\"127.0.0.1:1\"]\n[upstream]\napp = [\"127.0.0.1:2\"]\n\
         [[route]]\nmatch = \"/users/{{id}}\"\nto = \"app\"\n{route}\n"
    );
    match crate::parse("test.toml", &text) {
        Ok((config, warnings)) => Ok((config, crate::to_text(&warnings))),
        Err(errors) => Err(crate::to_text(&errors)),
    }
}

fn shown(rules: &FieldRules) -> (Vec<String>, Vec<String>, Vec<String>) {
    let show = |fields: &[FieldRule]| {
        let fields = fields.iter();
        fields
            .map(|field| format!("{}: {}", field.name, field.value))
            .collect()
    };
    (rules.remove.clone(), show(&rules.set), show(&rules.add))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn rules_are_read() {
    let rules = rules(
        r#"{ request = { set = { X-Real-IP = "{client_ip}", x-user = "{param:id}" }, remove = "Cookie" },
             response = { add = { Link = ["<a>", "<b>"], Via = "1.1 edge" }, remove = ["Server", "X-A"] } }"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(
        shown(&rules.request),
        (
            owned(&["Cookie"]),
            owned(&["X-Real-IP: {client_ip}", "x-user: {param:id}"]),
            vec![]
        )
    );
    assert_eq!(
        shown(&rules.response),
        (
            owned(&["Server", "X-A"]),
            vec![],
            owned(&["Link: <a>", "Link: <b>", "Via: 1.1 edge"])
        )
    );
}

/// The top level, then sets, then the route: a higher level decides about each field that it names.
#[test]
fn levels_merge_by_field() {
    let top = r#"
headers.response = { remove = "Server", set = { X-A = "top", X-B = "top" }, add = { X-C = "top", X-D = "top", X-E = "top" } }
[policy.one]
headers.response = { remove = "x-b", set = { x-d = "set" } }
"#;
    let route = r#"use = "one"
headers.response = { set = { x-a = "route" }, add = { X-C = ["1", "2"], X-F = "route" } }"#;
    let (config, _) = parsed(top, route).expect("a valid file");
    let rules = config.routes[0].policies.headers.clone().expect("rules");
    assert_eq!(
        shown(&rules.response),
        (
            owned(&["Server", "x-b"]),
            owned(&["x-d: set", "x-a: route"]),
            owned(&["X-E: top", "X-C: 1", "X-C: 2", "X-F: route"])
        )
    );
    let top_alone = config.policies.headers.expect("rules");
    assert_eq!(
        shown(&top_alone.response).1,
        owned(&["X-A: top", "X-B: top"])
    );
    let (config, _) = parsed(top, "headers = \"off\"").expect("a valid file");
    assert_eq!(config.routes[0].policies.headers, None);
}

#[test]
fn mistakes_are_reported() {
    for (headers, expected) in [
        ("{}", "`headers` changes nothing"),
        ("{ set = { A = \"b\" } }", "request"),
        (
            "{ request.set.Host = \"a\" }",
            "`headers` cannot change Host",
        ),
        (
            "{ request.add.content-length = \"1\" }",
            "cannot change `content-length`",
        ),
        (
            "{ response.remove = \"Transfer-Encoding\" }",
            "cannot change `Transfer-Encoding`",
        ),
        (
            "{ request.remove = \"via\" }",
            "cannot change Via of requests",
        ),
        (
            "{ request.set.\"a b\" = \"c\" }",
            "`a b` is not the name of a header field",
        ),
        (
            "{ request.set.\":path\" = \"c\" }",
            "`:path` is not the name of a header field",
        ),
        (
            "{ request.remove = [\"A\", \"a\"] }",
            "`remove` names `a` twice",
        ),
        (
            "{ request.set = { A = \"1\", a = \"2\" } }",
            "header field `a` occurs twice",
        ),
        ("{ request.set.A = \"\" }", "the value is empty"),
        ("{ request.set.A = \"b\\r\\nC: d\" }", "control characters"),
        (
            "{ request.set.A = \"{client_pi}\" }",
            "did you mean {client_ip}?",
        ),
        (
            "{ request.set.A = \"{env:WEIR_NOT_SET}\" }",
            "`WEIR_NOT_SET` is not set",
        ),
        (
            "{ request.set.A = \"{param:di}\" }",
            "did you mean `{param:id}`?",
        ),
        (
            "{ response.add.A = \"{param:nothing}\" }",
            "has no parameter `{nothing}`",
        ),
        (
            "{ request.set.A = \"{\" }",
            "a brace is missing its partner",
        ),
        ("\"on\"", "expected a table"),
    ] {
        for at_top in [true, false] {
            let line = format!("headers = {headers}");
            let (top, route) = if at_top { (&*line, "") } else { ("", &*line) };
            let errors = parsed(top, route).expect_err(headers);
            assert!(errors.contains(expected), "{headers}: {errors}");
        }
    }
}

#[test]
fn a_route_without_endpoints_has_no_requests_to_change() {
    let text = |top: &str, headers: &str| {
        format!(
            "{top}\n[listen.\"127.0.0.1:1\"]\n[[route]]\nmatch = \"/*\"\nrespond = 404\n{headers}\n"
        )
    };
    let own = text("", "headers.request.set.A = \"b\"");
    let errors = crate::parse("test.toml", &own).expect_err("no endpoint");
    assert!(crate::to_text(&errors).contains("`request` has no effect"));
    let above = text("headers.request.set.A = \"b\"", "");
    assert!(crate::parse("test.toml", &above).is_ok());
}
