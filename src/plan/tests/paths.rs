//! The paths that go upstream: tables of cases, and properties with a model of each reading.

mod model;

use super::{Reason, decide, plan};
use crate::plan::{Decision, Plan, RouteId};

/// A plan of these routes, beside the upstream `app`.
pub(super) fn routes(routes: &str) -> Plan {
    plan(&format!(
        "[listen.\"127.0.0.1:80\"]\n[upstream]\napp = \"10.1.1.1:80\"\nother = \"10.1.1.2:80\"\n{routes}"
    ))
}

/// A plan of one route to `app`.
fn route(route: &str) -> Plan {
    routes(&format!("[[route]]\nto = \"app\"\n{route}"))
}

/// The path that goes upstream for a GET of this target, or the reason of the refusal.
fn sent(plan: &Plan, target: &str) -> Result<String, Reason> {
    decide(
        plan,
        &format!("GET {target}"),
        "a.example",
        |decision, sent| match decision {
            Decision::Route(_) => Ok(String::from_utf8_lossy(sent).into_owned()),
            Decision::Refuse(refusal) => Err(refusal.reason),
            Decision::NeedsClaims(_) | Decision::RedirectHttps => unreachable!("no such route"),
        },
    )
}

/// The route of a GET of this target.
pub(super) fn taken(plan: &Plan, target: &str) -> Option<RouteId> {
    decide(
        plan,
        &format!("GET {target}"),
        "a.example",
        |decision, _| match decision {
            Decision::Route(id) => Some(id),
            Decision::NeedsClaims(_) | Decision::Refuse(_) | Decision::RedirectHttps => None,
        },
    )
}

const BAD: Result<&str, Reason> = Err(Reason::BadPath);

fn check(plan: &Plan, cases: &[(&str, Result<&str, Reason>)]) {
    for (target, expected) in cases {
        let expected = expected.map(str::to_owned);
        assert_eq!(sent(plan, target), expected, "{target}");
    }
}

#[test]
fn a_path_is_forwarded_as_it_came_or_as_it_was_matched() {
    let plan = routes("[[route]]\nmatch = \"/*\"\nto = \"app\"");
    for as_it_came in [
        "/",
        "/bucket//key///x",
        "//bucket/key",
        "/%7ea/%C3%a4%20/x",
        "/@scope%2fpackage",
        "/a%2Fb%5c..%5Cc",
        "/a;b=c/..d;/x",
        "/..%2F..%2Fetc",
        "/..;/x",
        "/%c0%ae%c0%ae/x",
        "/%252e%252e/x%252f",
        "/...",
        "/.well-known/x",
        "/a.",
    ] {
        assert_eq!(sent(&plan, as_it_came), Ok(as_it_came.to_owned()));
    }
    check(
        &plan,
        &[
            ("/a/./b", Ok("/a/b")),
            ("/a/%2E/b", Ok("/a/b")),
            ("/a/.%2e/%7eb", Ok("/~b")),
            ("/a//../b//c", Ok("/b/c")),
            ("/..", Ok("/")),
            ("/a/../x%2fy", Ok("/x%2Fy")),
            ("/a%00", BAD),
            ("/a\\b", BAD),
            ("/a%2", BAD),
            ("/a%u002f", BAD),
        ],
    );
}

/// Some endpoint reads each of these as the denied path.
#[test]
fn no_reading_slips_past_a_route_that_denies() {
    let plan = routes(
        "[[route]]\nmatch = \"/admin/*\"\nrespond = 403\n[[route]]\nmatch = \"/*\"\nto = \"app\"",
    );
    for target in [
        "/admin//../users",
        "/admin//%2e%2e/users",
        "/admin/x//../../users",
        "/admin//.%2E/users",
        "/x/..%2fadmin/y",
        "/x%2f../admin%2fy",
        "/admin%2fx",
        "/%61dmin%2Fx",
        "/admin%5cx",
        "/x%5c..%5cadmin%5cy",
        "/..%5Cadmin%2Fx",
        "/x/..;/admin/y",
        "/x/..;a=b/admin/y",
        "/x/%2e%2e;/admin/y",
        "/x/.;/..;/admin/y",
        "/admin;x/y",
        "/admin;/y",
        "/admin%3bx/y",
        "/;x/admin/y",
        "/x;a%2f../admin/y",
        "/x/%c0%ae%c0%ae/admin/y",
        "/x/..%c0%afadmin/y",
        "/admin%e0%80%afy",
        "/%c1%a1dmin/y",
        "/x%c1%9c..%c1%9cadmin%c1%9cy",
        "/x/%252e%252e/admin/y",
        "/admin%252fy",
        "/adm%2569n/y",
        "/%25252e%25252e/admin/y",
        "/admin%252f%252f..%252fx",
        "/admin%252f%25252e%25252e",
        "/x/%c0.%c0./admin/y",
        "/x/%C0%2e%c0./admin/y",
        "/admin%c0/x",
        "/x/%f8%80%80%80%ae%f8%80%80%80%ae/admin/y",
        "/admin%fc%80%80%80%80%afy",
        "/admin%c0%bbx/y",
        "/x/..%c0%bb/admin/y",
        "/x/%c0%a52e%c0%a52e/admin/y",
        "/x/%f8%80%80%80%ae%c0%af../admin/y%c0%af..",
        "/admin%c0%af%f8%80%80%80%ae%c0%af..",
        "//x/admin/y",
        "/admin%2f",
        "/admin;",
        "/x/..;/admin",
        "/x/..%2fadmin",
    ] {
        assert_eq!(sent(&plan, target), Err(Reason::BadPath), "{target}");
    }
    for target in [
        "/admin",
        "/admin/",
        "//admin///y",
        "/x/../admin/y",
        "/x/%2E%2e/admin/y",
        "/./admin/y",
        "/%61dmin/y",
        "/x//..//../admin/y",
        "/admin/y/..;/..;/../x",
    ] {
        assert_eq!(taken(&plan, target), Some(RouteId(0)), "{target}");
    }
    check(
        &plan,
        &[
            ("/admin/../users", Ok("/users")),
            ("/admin/%2e%2e/users", Ok("/users")),
            ("/users//admin/x", Ok("/users//admin/x")),
            ("/users%2Fadmin", Ok("/users%2Fadmin")),
            ("/administration;x", Ok("/administration;x")),
            ("/x;admin/y", Ok("/x;admin/y")),
            ("/Admin%2Fx", Ok("/Admin%2Fx")),
            ("/100%25/x", Ok("/100%25/x")),
        ],
    );
}

#[test]
fn no_reading_slips_past_an_expression_that_denies() {
    let plan = routes(
        "[[route]]\nmatch = { path = { regex = '/(admin|internal[0-9]*)(/.*)?' } }\nrespond = 403\n\
         [[route]]\nmatch = { path = { regex = '/files/[^/]+' } }\nto = \"other\"\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"",
    );
    let app = Some(RouteId(2));
    for (target, expected) in [
        ("/admin", Some(RouteId(0))),
        ("/x/../%61dmin/y", Some(RouteId(0))),
        ("//internal12//x", Some(RouteId(0))),
        ("/files/a", Some(RouteId(1))),
        ("/files/a/b", app),
        ("/files/", app),
        ("/users//a", app),
        // Some read a path of another route.
        ("/files/a%2fb", None),
        ("/files/a;b", Some(RouteId(1))),
        ("/x/..%2fadmin", None),
        ("/x/..;/internal7/y", None),
        ("/admin%5cx", None),
        ("/admin;x/y", None),
        ("/admin//../users", None),
        ("/x/%252e%252e/admin/y", None),
    ] {
        assert_eq!(taken(&plan, target), expected, "{target}");
    }
}

#[test]
fn an_encoded_slash_passes_if_all_readings_lead_to_the_route() {
    let npm = routes(
        "[[route]]\nmatch = \"/npm/*\"\nto = \"app\"\n[[route]]\nmatch = \"/gitlab/{project}/raw\"\nto = \"app\"",
    );
    check(
        &npm,
        &[
            ("/npm/@scope%2fpackage", Ok("/npm/@scope%2fpackage")),
            ("/npm/a%2f..%2fb", Ok("/npm/a%2f..%2fb")),
            ("/npm/..%2f..%2fsecret", BAD),
            ("/npm/..%5cgitlab", BAD),
            // Decoded, no route takes the path.
            ("/gitlab/group%2Fproject/raw", BAD),
        ],
    );
    let kept = routes(
        "[[route]]\nmatch = \"/gitlab/{project}/raw\"\nto = \"app\"\nencoded_slash = \"keep\"\n[[route]]\nmatch = \"/gitlab/*\"\nrespond = 403",
    );
    check(
        &kept,
        &[
            (
                "/gitlab/group%2Fproject/raw",
                Ok("/gitlab/group%2Fproject/raw"),
            ),
            ("/gitlab/..%5Cx/raw", Ok("/gitlab/..%5Cx/raw")),
            // Nothing else is trusted.
            ("/gitlab/..;/raw", BAD),
            ("/gitlab/%c0%ae%c0%ae/raw", BAD),
        ],
    );
    let refused = route("match = \"/*\"\nencoded_slash = \"refuse\"");
    check(
        &refused,
        &[("/a%2fb", BAD), ("/a%5Cb", BAD), ("/a/b//c", Ok("/a/b//c"))],
    );
    // Local answers send nothing upstream.
    let local = routes("[[route]]\nmatch = \"/a*\"\nrespond = 200");
    assert_eq!(taken(&local, "/a%2Fb"), Some(RouteId(0)));
    // A pattern with an encoded slash means that alone.
    let pattern = route("match = \"/a%2fb/*\"\nencoded_slash = \"keep\"");
    check(
        &pattern,
        &[
            ("/a%2Fb/c", Ok("/a%2Fb/c")),
            ("/a/b/c", Err(Reason::NoRoute)),
        ],
    );
}

#[test]
fn routes_with_the_same_policies_count_as_one() {
    let two = |top: &str, first: &str, second: &str| {
        plan(&format!(
            "{top}\n[policy.set]\nip = {{ deny = \"10.0.1.0/24\" }}\n[listen.\"127.0.0.1:80\"]\n\
             [upstream]\napp = \"10.1.1.1:80\"\n\
             [[route]]\nmatch = \"/a/*\"\nto = \"app\"\n{first}\n\
             [[route]]\nmatch = \"/a/b/*\"\nto = \"app\"\n{second}"
        ))
    };
    let target = "/a/b%2fc";
    let top = "ip = { deny = \"10.0.0.0/24\" }\ncompress = true";
    let of_set = "use = \"set\"";
    for (plan, passes) in [
        (two("", "", ""), true),
        (two(top, "", ""), true),
        (two(top, of_set, of_set), true),
        (two(top, of_set, ""), false),
        (two(top, "", "ip = \"off\""), false),
        (two(top, "", "ip = { deny = \"10.0.1.0/24\" }"), false),
        (two("", "compress = true", "compress = true"), true),
        (two("", "", "errors = { 404 = { body = \"-\" } }"), true),
    ] {
        let expected = if passes { Ok(target) } else { BAD };
        check(&plan, &[(target, expected)]);
    }
    let parameters = routes(
        "[policy.set]\nheaders = { request = { set = { X-Id = \"{param:id}\" } } }\n\
         [[route]]\nmatch = \"/{id}\"\nto = \"app\"\nuse = \"set\"\n\
         [[route]]\nmatch = \"/{x}/{id}\"\nto = \"app\"\nuse = \"set\"",
    );
    check(&parameters, &[("/a%2fb", BAD)]);
}

#[test]
fn trusting_slashes_trusts_nothing_else() {
    let plan = routes(
        "[[route]]\nmatch = \"/admin/*\"\nrespond = 403\n[[route]]\nmatch = \"/*\"\nto = \"app\"\nencoded_slash = \"keep\"",
    );
    check(
        &plan,
        &[
            ("/x/..%2fadmin/y", Ok("/x/..%2fadmin/y")),
            ("/x/..%252fadmin/y", Ok("/x/..%252fadmin/y")),
            ("/x/%252e%252e/admin/y", BAD),
            ("/x/%25252e%25252e/admin/y", BAD),
            ("/adm%2569n/y", BAD),
            ("/x/..;/admin/y", BAD),
            ("//x/admin/y", BAD),
        ],
    );
}

/// An endpoint that decodes twice, or until nothing changes, may cut off parameters or not.
#[test]
fn double_encoding_leads_to_no_other_route() {
    let plan = routes(
        "[[route]]\nmatch = \"/api/admin/*\"\nrespond = 403\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n",
    );
    check(
        &plan,
        &[
            ("/api/..;%252f..%252fadmin/x", BAD),
            ("/api/..;/%252e%252e/admin/x", BAD),
            ("/api/admin%252f%25252e%25252e", BAD),
            ("/api/x/%25252e%25252e/admin/x", BAD),
            ("/api%255c..%255capi%255cadmin/x", BAD),
            ("/api/%25c0%25ae%25c0%25ae/api/admin/x", BAD),
            ("/api/%252e%252e/x", Ok("/api/%252e%252e/x")),
        ],
    );
    // No route denies the paths outside, but no honest path leads there.
    let open = route("match = \"/public/*\"");
    check(
        &open,
        &[
            ("/public/%252e%252e/secret", BAD),
            ("/public/..%252fsecret", BAD),
            ("/public/..%255csecret", BAD),
            ("/public%252fx", Err(Reason::NoRoute)),
            ("/public/a%252Fb", Ok("/public/a%252Fb")),
            ("/public/100%2525", Ok("/public/100%2525")),
            ("/public/x/%252e%252e/y", Ok("/public/x/%252e%252e/y")),
        ],
    );
}

/// A policy that lets in certain clients denies access to all others.
#[test]
fn double_encoding_leads_around_no_policy() {
    for policy in [
        "ip = { allow = \"10.0.0.0/8\" }",
        "forward_auth = \"http://10.1.1.9/verify\"",
    ] {
        let admin = format!("[[route]]\nmatch = \"/admin/*\"\nto = \"app\"\n{policy}\n");
        let open = "[[route]]\nmatch = \"/*\"\nto = \"app\"\n";
        let cases = [("/%2561dmin/x", BAD), ("/%2561bout/x", Ok("/%2561bout/x"))];
        check(&routes(&format!("{admin}{open}")), &cases);
        // Both routes let the same clients in.
        let [admin, open] = ["/admin/*", "/*"]
            .map(|path| format!("[[route]]\nmatch = \"{path}\"\nto = \"app\"\nuse = \"p\"\n"));
        let same = format!("[policy.p]\n{policy}\n{admin}{open}");
        check(&routes(&same), &[("/%2561dmin/x", Ok("/%2561dmin/x"))]);
    }
}

/// Reading a path in many ways takes time in proportion to its length.
#[test]
fn a_long_path_with_many_readings_is_refused() {
    let plan = routes("[[route]]\nmatch = \"/*\"\nto = \"app\"");
    let long = |piece: &str, bytes: usize| piece.repeat(bytes / piece.len());
    for (path, is_taken) in [
        (long("/a%2fb", 7_900), true),
        (long("/a%2fb;c=d", 7_900), true),
        (long("/..%2f%5c;%c0%af", 1_000), true),
        (long("/..%2f%5c;%c0%af/../x", 1_000), true),
        (long("/..%2f%5c;%c0%af/../x", 7_900), false),
    ] {
        let taken = taken(&plan, &path).is_some();
        assert_eq!(taken, is_taken, "{} bytes of {path:.20}", path.len());
    }
}

/// Weir does not refuse a path if the other route does the same.
#[test]
fn routes_that_do_the_same_count_as_one() {
    let plan = routes(
        "[[route]]\nmatch = \"/a\"\nto = \"app\"\ntimeouts = { total = \"1s\" }\n\
         [[route]]\nmatch = \"/b/*\"\nto = \"app\"\nlimits = { body = \"1KiB\" }\n\
         [[route]]\nmatch = \"/c/*\"\nto = \"other\"\n\
         [[route]]\nmatch = \"/d/*\"\nto = \"app\"\nstrip = \"/d\"\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"",
    );
    check(
        &plan,
        &[
            ("/a;jsessionid=1", Ok("/a;jsessionid=1")),
            ("/x/..%2fa", Ok("/x/..%2fa")),
            ("/b%2fx", BAD),
            ("/b;/x", BAD),
            ("/c%2fx", BAD),
            ("/d%2fx", BAD),
        ],
    );
}

#[test]
fn no_separator_slips_past_a_query_predicate() {
    let plan = routes(
        "[[route]]\nmatch = { path = \"/*\", query = { debug = true } }\nrespond = 403\n\
         [[route]]\nmatch = { path = \"/v\", query = { v = \"1\" } }\nrespond = 403\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"",
    );
    for target in [
        "/?debug",
        "/?debug=",
        "/?a&debug=1",
        "/?%64ebug=1",
        "/?x=1&debug=0&debug=1",
        "/?debug;a",
        "/v?v=2&v=1",
    ] {
        let expected = if target.contains("debug;") {
            None
        } else {
            Some(target)
        };
        let denied = taken(&plan, target).is_some_and(|id| id.0 < 2);
        assert_eq!(denied, expected.is_some(), "{target}");
    }
    check(
        &plan,
        &[
            ("/?a;debug=1", BAD),
            ("/?debug;a", BAD),
            ("/?a=b;debug", BAD),
            ("/?a;%64ebug=1", BAD),
            ("/v?v=1;x", BAD),
            ("/?a;b=debug", Ok("/")),
            ("/?a%3Bdebug=1", Ok("/")),
            ("/v?v=2;x", Ok("/v")),
        ],
    );
}

#[test]
fn rewrites_keep_what_was_received() {
    let strip = "match = \"/api/*\"\nstrip = \"/api\"";
    let replace = "match = \"/old/*\"\nreplace = { prefix = \"/old\", with = \"/new/deep\" }";
    let open = "match = \"/u/{id}/*\"\nreplace = \"/v2/{id}/x/{rest}\"";
    let whole = "match = \"/u/{id}/p/{post}\"\nreplace = \"/{post}/of/{id}\"";
    let star = "match = \"/a*\"\nreplace = \"/b{rest}\"";
    let encoded = "match = \"/caf%C3%A9/*\"\nstrip = \"/caf%C3%A9\"";
    let before = "match = \"/x/*\"\nreplace = \"/front{path}\"";
    for (text, path, expected) in [
        (strip, "/api/v1", "/v1"),
        (strip, "/api/", "/"),
        (strip, "/api/a%7eb/%c3%a9", "/a%7eb/%c3%a9"),
        (strip, "/%61pi/%7Eb", "/%7Eb"),
        (strip, "/api/@scope%2fname", "/@scope%2fname"),
        (strip, "/api/bucket//key", "/bucket//key"),
        (strip, "//api/bucket//key", "/bucket//key"),
        (strip, "/api/a;b/c", "/a;b/c"),
        // The rewrite cuts off only the prefix, and dot segments do not climb out of the rest.
        (strip, "/api//v1", "/v1"),
        (strip, "/api/../api/secret", "/secret"),
        (strip, "/x/../api/a", "/a"),
        (strip, "/api/a/..", "/"),
        (strip, "/api/.", "/"),
        (replace, "/old/a/b/", "/new/deep/a/b/"),
        (replace, "/o%6Cd/%2D", "/new/deep/%2D"),
        (replace, "/old//a//b", "/new/deep//a//b"),
        (open, "/u/7/a/b/", "/v2/7/x/a/b/"),
        (open, "/u/7/", "/v2/7/x/"),
        (open, "/u/%37/%61", "/v2/%37/x/%61"),
        (open, "//u///7//a//b", "/v2/7/x/a//b"),
        (open, "/u/7/a%2fb", "/v2/7/x/a%2fb"),
        (whole, "/u/7/p/9", "/9/of/7"),
        (whole, "/u/./7//p/9", "/9/of/7"),
        (whole, "/u//7/p//9", "/9/of/7"),
        (strip, "/api", "/"),
        (replace, "/old", "/new/deep"),
        (
            "match = \"/old/*\"\nreplace = { prefix = \"/old/\", with = \"/new/\" }",
            "/old",
            "/new/",
        ),
        (
            "match = \"/old/*\"\nreplace = \"/new/{rest}\"",
            "/old",
            "/new/",
        ),
        (open, "/u/7", "/v2/7/x/"),
        (
            "match = { path = [\"/v1/{id}\", \"/{id}/v2\"] }\nreplace = \"/{id}\"",
            "/v1/7",
            "/7",
        ),
        (
            "match = { path = [\"/v1/{id}\", \"/{id}/v2\"] }\nreplace = \"/{id}\"",
            "/7/v2",
            "/7",
        ),
        (
            "match = { path = [\"/a/*\", \"/b/{x}/*\"] }\nreplace = \"/c/{rest}\"",
            "/a/d/e",
            "/c/d/e",
        ),
        (
            "match = { path = [\"/a/*\", \"/b/{x}/*\"] }\nreplace = \"/c/{rest}\"",
            "/b/d/e",
            "/c/e",
        ),
        (star, "/a", "/b"),
        (star, "/abc/d", "/bbc/d"),
        (encoded, "/caf%c3%a9/x", "/x"),
        (before, "/x/y", "/front/x/y"),
    ] {
        let sent = sent(&route(text), path);
        assert_eq!(sent, Ok(expected.to_owned()), "{path} by {text}");
    }
}

#[test]
fn a_rewrite_makes_no_dot_segments_in_any_reading() {
    let joined = "match = \"/static*\"\nreplace = \"/files/{rest}\"";
    let cut = "match = \"/api*\"\nstrip = \"/api\"";
    let exchanged = "match = \"/a*\"\nreplace = { prefix = \"/a\", with = \"/b/\" }";
    let tenants = "match = \"/u/{id}/*\"\nreplace = \"/tenants/{id}/public/{rest}\"";
    let inside = "match = \"/*\"\nreplace = { prefix = \"/\", with = \"/in/\" }";
    for (text, path, expected) in [
        (joined, "/static../secret", None),
        (joined, "/static.", None),
        (joined, "/static%2e%2E/secret", None),
        (joined, "/static..%2fsecret", None),
        (joined, "/static..%5csecret", None),
        (joined, "/static..;/secret", None),
        (joined, "/static..;x=y/secret", None),
        (joined, "/static%c0%ae%c0%ae/secret", None),
        (joined, "/static%252e%252e/secret", None),
        (joined, "/static..a/secret", Some("/files/..a/secret")),
        (joined, "/static/a", Some("/files//a")),
        (cut, "/api../secret", None),
        (cut, "/api..", None),
        (cut, "/api..%2f..%2fsecret", None),
        (cut, "/api...", Some("/...")),
        (cut, "/api2/x", Some("/2/x")),
        (tenants, "/u/a%2Fprivate%2Fb/c", None),
        (tenants, "/u/..%2Fb/c", None),
        (tenants, "/u/a;/c", Some("/tenants/a;/public/c")),
        (tenants, "/u/a/c%2Fd", Some("/tenants/a/public/c%2Fd")),
        (tenants, "/u/a/..%2F..%2F..%2Fb", None),
        (inside, "/..%2Fb", None),
        (inside, "/a%2f..%2Fb", Some("/in/a%2f..%2Fb")),
        (inside, "/..;/b", None),
        (inside, "/a//b", Some("/in/a//b")),
        (
            "match = \"/a*\"\nreplace = \"/{rest}\"",
            "/a/evil.example/x",
            Some("/evil.example/x"),
        ),
        (
            "match = \"/a*\"\nreplace = \"/{rest}\"",
            "/a%2f/evil.example/x",
            Some("/%2f/evil.example/x"),
        ),
        (
            "match = \"/*\"\nreplace = \"{path}\"",
            "//evil.example/x",
            Some("/evil.example/x"),
        ),
    ] {
        let sent = sent(&route(text), path);
        let expected = expected.map(str::to_owned).ok_or(Reason::BadPath);
        assert_eq!(sent, expected, "{path} by {text}");
    }
    // One slash too many in the file is not the client's fault.
    assert_eq!(
        sent(&route(exchanged.replace("/b/", "/b").as_str()), "/a/x"),
        Ok("/b/x".to_owned())
    );
}

/// For any path, the endpoint's reading of the rewritten path equals the rewrite of the normal path.
#[test]
fn rewriting_before_or_after_normalising_is_the_same() {
    const PIECES: [&str; 14] = [
        "/", "/", "/api", "/x/", ".", "..", "a", "%61", "%2e", "%2E", "%c3%a9", "%41pi", ";", "%2f",
    ];
    let texts = [
        "match = \"/api/*\"\nstrip = \"/api\"",
        "match = \"/a*\"\nreplace = \"/b{rest}\"",
        "match = \"/{p}/*\"\nreplace = \"/v/{p}/{rest}\"",
        "match = \"/*\"\nreplace = { prefix = \"/\", with = \"/in/\" }",
        "match = \"/*\"\nreplace = \"{path}\"",
    ];
    let mut forwarded = 0;
    for text in texts {
        let plan = route(text);
        let normal = |path: &[u8]| {
            let mut out = Vec::new();
            let normal = weir_proto_h1::path::normalize_path(path, &mut out).unwrap();
            if normal.is_unchanged {
                path.to_vec()
            } else {
                out
            }
        };
        let mut random = 7_u64;
        for _ in 0..20_000 {
            let mut path = String::from("/");
            for _ in 0..6 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                path.push_str(PIECES[(random >> 33) as usize % PIECES.len()]);
            }
            let Ok(rewritten) = sent(&plan, &path) else {
                continue;
            };
            forwarded += 1;
            let mut expected = Vec::new();
            let rewrite = plan.routes[0].rewrite.as_ref().unwrap();
            rewrite.apply(0, &normal(path.as_bytes()), &mut expected);
            let message = format!("{path} by {text}");
            assert_eq!(normal(rewritten.as_bytes()), normal(&expected), "{message}");
        }
    }
    assert!(forwarded > 20_000, "{forwarded}");
}

#[test]
fn redirects_stay_where_they_lead() {
    let to = |location: &'static str| Ok::<_, Reason>(location);
    for (matches, location, target, expected) in [
        (
            "/*",
            "https://{host}{path}{query}",
            "/a/b?c=d",
            to("https://a.example/a/b?c=d"),
        ),
        (
            "/*",
            "https://{host}:8443{path}{query}",
            "/",
            to("https://a.example:8443/"),
        ),
        (
            "/*",
            "https://{host}{path}{query}",
            "/%7Ea?",
            to("https://a.example/%7Ea"),
        ),
        (
            "/old/*",
            "/new/{rest}{query}",
            "/old/x/y?z",
            to("/new/x/y?z"),
        ),
        ("/old/*", "/{rest}", "/old/x", to("/x")),
        (
            "/u/{id}/*",
            "https://b.example/{id}?rest={rest}",
            "/u/7/a/.b?c",
            to("https://b.example/7?rest=a/.b"),
        ),
        // No request chooses another host.
        ("/old*", "/{rest}", "/old/evil.example", to("/evil.example")),
        (
            "/old/*",
            "/{rest}",
            "/old//evil.example",
            to("/evil.example"),
        ),
        ("/*", "{path}", "//evil.example/..", to("/")),
        ("/*", "{path}x", "//evil.example", to("/evil.examplex")),
        ("/*", "{path}", "///evil.example", to("/evil.example")),
        // Nor another path than the file says.
        ("/*", "/100%{path}", "/x", to("/100%/x")),
        ("/static*", "/files/{rest}", "/static../x", BAD),
        (
            "/static*",
            "https://b.example/files/{rest}",
            "/static%2e%2E/x",
            BAD,
        ),
        (
            "/static*",
            "https://b.example/files/{rest}",
            "/static..x",
            to("https://b.example/files/..x"),
        ),
    ] {
        let plan = routes(&format!(
            "[[route]]\nmatch = \"{matches}\"\nredirect = \"{location}\""
        ));
        let expected = expected.map(str::to_owned);
        assert_eq!(sent(&plan, target), expected, "{target} by {location}");
    }
}
