//! Clients that leave before their request reaches an endpoint: the exchange ends at once and frees its place.

use h2::Reason;

use crate::e2e::{Conn, Weir};
use crate::peers::frames::{ClientConnection, ClosedPort, Listener, connect};
use crate::peers::*;

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By a reset of its connection.
    Reset,
    /// The same with a body that Weir has not read.
    ResetWithBody,
    /// By closing in the middle of its request.
    Cut,
    /// By a reset of its stream.
    Stream,
    /// By closing its HTTP/2 connection.
    Lost,
}

const WAYS: [Way; 5] = [
    Way::Reset,
    Way::ResetWithBody,
    Way::Cut,
    Way::Stream,
    Way::Lost,
];

/// A client that has sent a request and will leave.
enum Leaver {
    Http1(Conn, Way),
    Http2(
        ClientConnection,
        h2::client::ResponseFuture,
        h2::SendStream<bytes::Bytes>,
        Way,
    ),
}

impl Leaver {
    async fn ask(weir: &Weir, way: Way, path: &str) -> Self {
        if matches!(way, Way::Stream | Way::Lost) {
            let mut client = connect(weir.address).await;
            let asked = request("GET", path).body(()).unwrap();
            let (response, stream) = client.send(asked, true);
            return Self::Http2(client, response, stream, way);
        }
        let client = weir.connect();
        let body = match way {
            Way::ResetWithBody => "Content-Length: 4\r\n\r\nbody",
            Way::Cut => "Content-Length: 4\r\n\r\n",
            _ => "\r\n",
        };
        client.send(format!("PUT {path} HTTP/1.1\r\nHost: weir.test\r\n{body}"));
        Self::Http1(client, way)
    }

    /// Leaves. Returns the connection if it stays open.
    fn leave(self) -> Option<ClientConnection> {
        match self {
            Self::Http1(client, Way::Cut) => client.finish(),
            Self::Http1(mut client, _) => client.reset_now(),
            Self::Http2(client, _response, mut stream, Way::Stream) => {
                stream.send_reset(Reason::CANCEL);
                return Some(client);
            }
            Self::Http2(client, ..) => client.task.abort(),
        }
        None
    }

    /// Leaves, and waits until Weir has logged that and this many exchanges remain.
    async fn leaves(self, weir: &Weir, path: &str, left: f64) {
        let _stays = self.leave();
        active(weir, left).await;
        let entry = weir.entry(path);
        assert_eq!(entry.text("reason"), "client_closed", "{path}");
        assert_eq!(entry.number("status"), 499.0, "{path}");
    }
}

async fn active(weir: &Weir, count: f64) {
    // HTTP/2 clients are tasks of this thread, which therefore must not block.
    let reached = async {
        while weir.metric("weir_core_exchanges_active{core=\"0\"}") != count {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

#[test]
fn a_client_that_leaves_during_a_connect_cancels_only_its_own_request() {
    for way in WAYS {
        run(async {
            // The endpoint accepts connections and never answers the TLS handshake.
            let listener = Listener::bind().await;
            let name = listener.name.replace("h2c", "https");
            let weir = Weir::start(&routed("timeouts = { connect = \"10m\" }", &[name], ""));
            let maker = Leaver::ask(&weir, way, "/maker").await;
            let _made = listener.accept_raw().await;
            let waiter = Leaver::ask(&weir, way, "/waiter").await;
            active(&weir, 2.0).await;
            waiter.leaves(&weir, "/waiter", 1.0).await;
            let stays = Leaver::ask(&weir, way, "/stays").await;
            active(&weir, 2.0).await;
            maker.leaves(&weir, "/maker", 1.0).await;
            // A request that waited for the connection opens its own.
            let _another = listener.accept_raw().await;
            stays.leaves(&weir, "/stays", 0.0).await;
            let failed = format!(
                "weir_endpoint_connect_failures_total{{upstream=\"up\",endpoint=\"{}\"}}",
                &listener.name.replace("h2c", "https")
            );
            assert!(weir.admin("/metrics").text().contains(&failed));
            assert_eq!(weir.metric(&failed), 0.0);
        });
    }
}

#[test]
fn a_client_that_leaves_before_a_retry_cancels_it() {
    for way in WAYS {
        run(async {
            let dead = ClosedPort::bind();
            let keys = "retries = { count = 1, backoff = \"10m\" }";
            let weir = Weir::start(&routed(keys, std::slice::from_ref(&dead.name), ""));
            let leaver = Leaver::ask(&weir, way, "/leaver").await;
            while weir.metric("weir_upstream_retries_total{upstream=\"up\"}") == 0.0 {
                tokio::task::yield_now().await;
            }
            leaver.leaves(&weir, "/leaver", 0.0).await;
        });
    }
}
