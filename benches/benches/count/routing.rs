//! Finds the route of a request, among few routes and among many.

use std::hint::black_box;

use weir::plan::{EndpointSets, Plan};
use weir::route::ViewBuffers;
use weir_proto_h1::parse::parse_request;
use weir_proto_h1::{Head, Limits};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "view",
        run: view,
        base: None,
    },
    Case {
        name: "route-10",
        run: |times| find(10, times),
        base: None,
    },
    Case {
        name: "route-1000",
        run: |times| find(1_000, times),
        base: None,
    },
    Case {
        name: "route-10000",
        run: |times| find(10_000, times),
        base: None,
    },
    Case {
        name: "route-10000-one-host",
        run: find_in_one_host,
        base: None,
    },
];

const REQUEST: &str = "GET /v1/thing4/42/orders?page=2 HTTP/1.1\r\nHost: shop0.example.com\r\n\r\n";

/// Routes for many hosts, ten each: prefixes, templates and exact paths, to one upstream.
fn edge(routes: u32) -> String {
    let mut text = String::new();
    for number in 0..routes {
        let (host, path) = (number / 10, number % 10);
        let path = match path % 3 {
            0 => format!("/v1/thing{path}/*"),
            1 => format!("/v1/thing{path}/{{id}}/orders"),
            _ => format!("/v1/thing{path}/exact"),
        };
        text.push_str(&route(&format!("shop{host}.example.com{path}")));
    }
    text
}

fn route(matches: &str) -> String {
    format!("[[route]]\nmatch = \"{matches}\"\nto = \"app\"\n")
}

/// Normalizes host and path of a parsed head for the lookup.
fn view(times: u64) {
    let (block, mut scratch) = (REQUEST.as_bytes(), ViewBuffers::default());
    let head = head_of(block);
    for _ in 0..times {
        let _ = black_box(scratch.view(&head, black_box(block)));
    }
}

fn find(routes: u32, times: u64) {
    let host = format!("shop{}.", routes / 20);
    find_among(&edge(routes), &REQUEST.replace("shop0.", &host), times);
}

/// All paths are in one tree, with a star and a template that match less text.
fn find_in_one_host(times: u64) {
    let mut text: String = (0..10_000)
        .map(|number| route(&format!("/v1/thing{number}/{{id}}/orders")))
        .collect();
    text.push_str(&route("/*"));
    text.push_str(&route("/{version}/*"));
    find_among(&text, &REQUEST.replace("thing4", "thing4321"), times);
}

fn find_among(routes: &str, request: &str, times: u64) {
    let (plan, block) = (compile(routes), request.as_bytes());
    let (head, mut scratch) = (head_of(block), ViewBuffers::default());
    let view = scratch.view(&head, block).expect("a good path");
    assert!(plan.table.find(&view).route().is_some());
    for _ in 0..times {
        black_box(plan.table.find(black_box(&view)));
    }
}

/// Compiles a plan with these routes, one listener and the upstream `app`.
pub(crate) fn compile(routes: &str) -> Plan {
    compile_for(SERVER, routes)
}

/// Compiles these routes to one server.
pub(crate) fn compile_for(server: &str, routes: &str) -> Plan {
    let file = file(server, routes);
    let (config, _) = weir_config::parse("edge.toml", &file).expect("a good file");
    Plan::compile(&config).expect("a good plan")
}

/// Compiles the endpoints of the plan with these routes.
pub(crate) fn endpoints(server: &str, routes: &str) -> EndpointSets {
    let file = file(server, routes);
    let (config, _) = weir_config::parse("edge.toml", &file).expect("a good file");
    EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).expect("good endpoints")
}

/// The server of the routes, which speaks HTTP/1.1.
pub(crate) const SERVER: &str = "10.2.0.1:8080";

fn file(server: &str, routes: &str) -> String {
    format!("[listen.\"10.1.0.1:80\"]\n[upstream]\napp = [\"{server}\"]\n{routes}")
}

pub(crate) fn head_of(block: &[u8]) -> Head {
    let mut head = Head::new();
    parse_request(block, &Limits::default(), &mut head).expect("a whole head");
    head
}
