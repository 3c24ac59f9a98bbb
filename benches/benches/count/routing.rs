//! From a parsed head to its route, with few routes and with many.

use std::hint::black_box;

use weir::plan::Plan;
use weir::route::Scratch;
use weir_proto_h1::parse::parse_request;
use weir_proto_h1::{Head, Limits};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "route-10",
        run: |times| decide(10, times),
    },
    Case {
        name: "route-1000",
        run: |times| decide(1_000, times),
    },
    Case {
        name: "route-10000",
        run: |times| decide(10_000, times),
    },
];

/// Routes of one host each tenth: prefixes, templates and exact paths, one upstream.
fn edge(routes: u32) -> String {
    let mut text =
        String::from("[listen.\"127.0.0.1:8080\"]\n[upstream]\napp = [\"127.0.0.1:9000\"]\n");
    for number in 0..routes {
        let (host, path) = (number / 10, number % 10);
        let path = match path % 3 {
            0 => format!("/v1/thing{path}/*"),
            1 => format!("/v1/thing{path}/{{id}}/orders"),
            _ => format!("/v1/thing{path}/exact"),
        };
        text.push_str(&format!(
            "[[route]]\nmatch = \"shop{host}.example.com{path}\"\nto = \"app\"\n"
        ));
    }
    text
}

fn decide(routes: u32, times: u64) {
    let Ok((config, _)) = weir_config::parse("edge.toml", &edge(routes)) else {
        return;
    };
    let Ok(plan) = Plan::compile(&config, &|_, _| Ok(Vec::new())) else {
        return;
    };
    let host = routes / 20;
    let block =
        format!("GET /v1/thing4/42/orders?page=2 HTTP/1.1\r\nHost: shop{host}.example.com\r\n\r\n")
            .into_bytes();
    let (limits, mut head, mut scratch) = (Limits::default(), Head::new(), Scratch::default());
    let Ok(_) = parse_request(&block, &limits, &mut head) else {
        return;
    };
    for _ in 0..times {
        if let Ok(view) = scratch.view(&head, black_box(&block)) {
            black_box(plan.decide(&view));
        }
    }
}
