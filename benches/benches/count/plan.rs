//! What a plan does with a request: decides on it, rewrites its path, makes the location of a
//! redirect.

use std::hint::black_box;

use weir::plan::{DecisionBuffers, KnownClaims, ListenerId, RequestHead, RoutePlan, RouteTarget};
use weir::route::{RequestView, ViewBuffers};
use weir_proto_h1::Request;

use crate::Case;
use crate::http1::BROWSER;
use crate::routing::{compile, head_of};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "decide",
        run: |times| decide(PLAIN, times),
        base: None,
    },
    Case {
        name: "decide-predicates",
        run: |times| decide(PREDICATES, times),
        base: None,
    },
    Case {
        name: "decide-method-refused",
        run: |times| decide(REFUSED, times),
        base: None,
    },
    Case {
        name: "rewrite-prefix",
        run: |times| rewrite(STRIPPED, times),
        base: None,
    },
    Case {
        name: "rewrite-template",
        run: |times| rewrite(REPLACED, times),
        base: None,
    },
    Case {
        name: "redirect",
        run: redirect,
        base: None,
    },
];

const PLAIN: &str = r#"
[[route]]
match = "shop.example.com/api/*"
to = "app"
"#;

/// The last of three routes with the same pattern matches the request.
const PREDICATES: &str = r#"
[[route]]
match = { path = "/api/*", method = ["POST", "PUT"] }
to = "app"
[[route]]
match = { path = "/api/*", query = { page = "2" } }
to = "app"
[[route]]
match = { path = "/api/*", method = "GET", header = { accept-language = { prefix = "en" } }, query = { sort = true } }
to = "app"
"#;

const REFUSED: &str = r#"
[[route]]
match = { path = "/api/*", method = ["POST", "PUT"] }
to = "app"
"#;

const STRIPPED: &str = r#"
[[route]]
match = "/api/v1/*"
to = "app"
strip = "/api"
"#;

const REPLACED: &str = r#"
[[route]]
match = "/api/v1/users/{id}/*"
to = "app"
replace = "/by-user/{id}/{rest}"
"#;

const REDIRECT: &str = r#"
[[route]]
match = "/*"
redirect = "https://{host}{path}{query}"
"#;

/// Decides on a request, as the exchange does with every parsed head.
fn decide(routes: &str, times: u64) {
    let (plan, head, hop) = (compile(routes), head_of(BROWSER), Request::default());
    let mut buffers = DecisionBuffers::default();
    for _ in 0..times {
        let request = RequestHead {
            head: &head,
            block: black_box(BROWSER),
            hop: &hop,
            client: None,
            address: None,
            listener: ListenerId(0),
            claims: KnownClaims::NONE,
            is_https: false,
        };
        black_box(plan.decide(&plan.listeners[0], &request, &mut buffers));
    }
}

fn rewrite(routes: &str, times: u64) {
    with_route(routes, |route, view| {
        let rewrite = route.rewrite.as_ref().expect("a rewrite");
        let mut out = Vec::with_capacity(1024);
        for _ in 0..times {
            out.clear();
            rewrite.apply(0, black_box(view.path), &mut out);
            black_box(&out);
        }
    });
}

fn redirect(times: u64) {
    with_route(REDIRECT, |route, view| {
        let RouteTarget::Redirect(redirect) = &route.target else {
            unreachable!("the only route redirects");
        };
        let mut out = Vec::with_capacity(1024);
        for _ in 0..times {
            out.clear();
            redirect.location(black_box(view), 0, &mut out);
            black_box(&out);
        }
    });
}

/// Runs with the route that matches a browser's request, and a view of the request.
fn with_route(routes: &str, run: impl FnOnce(&RoutePlan, &RequestView<'_>)) {
    let (plan, head, mut scratch) = (compile(routes), head_of(BROWSER), ViewBuffers::default());
    let view = scratch.view(&head, BROWSER).expect("a good path");
    let found = plan.table.find(&view).route();
    let route = found.and_then(|id| plan.route(id));
    run(route.expect("a route takes it"), &view);
}
