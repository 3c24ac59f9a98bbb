//! Heads, framing and paths of HTTP/1.1.

use std::hint::black_box;

use weir_proto_h1::encode::{ConnectionOption, Framing, encode_request, encode_response};
use weir_proto_h1::framing::{MessageKind, request_body, response_body, strip_hop_by_hop};
use weir_proto_h1::parse::{parse_request, parse_response};
use weir_proto_h1::path::normalize_path;
use weir_proto_h1::{Edits, Head, Limits};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "request-small",
        run: |times| parse_requests(SMALL, times),
        base: None,
    },
    Case {
        name: "request-browser",
        run: |times| parse_requests(BROWSER, times),
        base: None,
    },
    Case {
        name: "request-small-httparse",
        run: |times| parse_requests_httparse(SMALL, times),
        base: None,
    },
    Case {
        name: "request-browser-httparse",
        run: |times| parse_requests_httparse(BROWSER, times),
        base: None,
    },
    Case {
        name: "response",
        run: parse_responses,
        base: None,
    },
    Case {
        name: "path-normal",
        run: |times| normalize_paths(b"/api/v1/users/42/orders", times),
        base: None,
    },
    Case {
        name: "path-dirty",
        run: |times| normalize_paths(b"/api//v1/./users/%34%32/../42", times),
        base: None,
    },
    Case {
        name: "forward-request",
        run: forward_requests,
        base: None,
    },
    Case {
        name: "forward-response",
        run: forward_responses,
        base: None,
    },
];

const SMALL: &[u8] =
    b"GET /b/1024 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: pace\r\nAccept: */*\r\n\r\n";

pub(crate) const BROWSER: &[u8] = b"GET /api/v1/users/42/orders?page=3&sort=date HTTP/1.1\r\n\
Host: shop.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://shop.example.com/orders\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
\r\n";

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\
Content-Type: application/json\r\nContent-Length: 1024\r\nCache-Control: no-store\r\n\r\n";

fn parse_requests(bytes: &[u8], times: u64) {
    let (limits, mut head) = (Limits::default(), Head::new());
    for _ in 0..times {
        head.clear();
        let _ = black_box(parse_request(black_box(bytes), &limits, &mut head));
    }
}

fn parse_requests_httparse(bytes: &[u8], times: u64) {
    for _ in 0..times {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut fields);
        let _ = black_box(request.parse(black_box(bytes)));
    }
}

fn parse_responses(times: u64) {
    let (limits, mut head) = (Limits::default(), Head::new());
    for _ in 0..times {
        head.clear();
        let _ = black_box(parse_response(black_box(RESPONSE), &limits, &mut head));
    }
}

fn normalize_paths(path: &[u8], times: u64) {
    let mut out = Vec::with_capacity(256);
    for _ in 0..times {
        let _ = black_box(normalize_path(black_box(path), &mut out));
    }
}

/// Forwards the head of a request as a proxy does: parses it, determines the framing, removes
/// hop-by-hop fields, adds the proxy's own, and encodes it.
fn forward_requests(times: u64) {
    let (limits, mut head, mut edits) = (Limits::default(), Head::new(), Edits::new());
    let mut out = Vec::with_capacity(4096);
    for _ in 0..times {
        head.clear();
        edits.clear();
        out.clear();
        let block = black_box(BROWSER);
        let Ok(_) = parse_request(block, &limits, &mut head) else {
            return;
        };
        let Ok(body) = request_body(&mut head, block) else {
            return;
        };
        let Ok(hop) = strip_hop_by_hop(&mut head, block, MessageKind::Request) else {
            return;
        };
        edits.append("X-Forwarded-For", "192.0.2.1");
        edits.append("X-Forwarded-Proto", "http");
        edits.append("X-Forwarded-Host", "shop.example.com");
        edits.append("Via", "1.1 weir");
        let framing = Framing {
            body,
            connection: ConnectionOption::Implied,
            accepts_trailers: hop.accepts_trailers,
        };
        encode_request(&mut out, block, &head, &edits, &framing);
        black_box(&out);
    }
}

fn forward_responses(times: u64) {
    let (limits, mut head, edits) = (Limits::default(), Head::new(), Edits::new());
    let mut out = Vec::with_capacity(4096);
    for _ in 0..times {
        head.clear();
        out.clear();
        let block = black_box(RESPONSE);
        let Ok(_) = parse_response(block, &limits, &mut head) else {
            return;
        };
        let Ok(body) = response_body(&mut head, block, weir_proto_h1::Method::Get) else {
            return;
        };
        let Ok(_) = strip_hop_by_hop(&mut head, block, MessageKind::Response) else {
            return;
        };
        let framing = Framing {
            body,
            connection: ConnectionOption::Implied,
            accepts_trailers: false,
        };
        encode_response(&mut out, block, &head, &edits, &framing);
        black_box(&out);
    }
}
