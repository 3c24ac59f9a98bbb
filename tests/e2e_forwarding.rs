//! What requests and responses gain and lose on their way through.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use e2e::*;

#[test]
fn a_request_is_relayed_and_its_answer_comes_back() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask(post("/some/path?q=1", "a body"));
    assert_eq!(
        (response.status(), response.text().as_str()),
        (200, "hello")
    );
    let request = endpoint.only();
    assert_eq!(request.start, "POST /some/path?q=1 HTTP/1.1");
    assert_eq!(request.field("Host"), Some("weir.test"));
    assert_eq!(request.text(), "a body");
    assert_eq!(weir.entry("/some/path?q=1").number("status"), 200.0);
    assert_eq!(weir.metric("weir_build_info{version=\"0.1.0\"}"), 1.0);
}
