//! Our client against the `h2` server.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use tokio::io::duplex;
use weir_proto_h1::{BodyKind, Edits, Method, Span};
use weir_proto_h2::{Config, Connection, ErrorCode, Event, Framing, StreamKey};

use crate::our_server::{map, pairs, read_all, sorted};
use crate::ours::{Message, OurSide, Outgoing, head_of};
use crate::plan::{Answer, Exchange, Plan};

pub(crate) async fn run_plan(plan: Plan) {
    let (near, far) = duplex(plan.pipe);
    let plan = Rc::new(plan);
    let server = tokio::task::spawn_local(serve(Rc::clone(&plan), far));
    ask_all(&plan, near).await;
    server.await.unwrap();
}

/// Runs the h2 side, with a task for each request.
async fn serve(plan: Rc<Plan>, io: tokio::io::DuplexStream) {
    let mut builder = Builder::new();
    builder
        .initial_window_size(plan.window)
        .initial_connection_window_size(plan.connection_window)
        .max_frame_size(plan.frame)
        .max_header_list_size(1 << 20)
        .max_concurrent_streams(10);
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    let mut tasks = Vec::new();
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = match accepted {
            Ok(accepted) => accepted,
            // Our client closes the connection when it has all responses.
            Err(error) => {
                assert!(error.is_io(), "our client follows the rules: {error}");
                break;
            }
        };
        let plan = Rc::clone(&plan);
        tasks.push(tokio::task::spawn_local(answer(plan, request, respond)));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn answer(
    plan: Rc<Plan>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let number: usize = request.headers()["x-exchange"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let exchange = &plan.exchanges[number];
    assert_eq!(request.method().as_str(), exchange.method);
    assert_eq!(
        request.uri().path_and_query().unwrap().as_str(),
        exchange.path()
    );
    assert_eq!(request.uri().authority().unwrap().as_str(), "a.test");
    let mut want = exchange.fields.clone();
    want.push(("x-exchange".into(), number.to_string()));
    if exchange.has_length {
        want.push(("content-length".into(), exchange.body.len().to_string()));
    }
    assert_eq!(pairs(request.headers()), sorted(want));
    let (body, trailers) = read_all(request.into_body()).await;
    assert_eq!(body, exchange.body);
    assert_eq!(trailers, sorted(exchange.trailers.clone()));
    let Answer::Whole {
        fields,
        body,
        has_length,
        trailers,
    } = &exchange.answer
    else {
        if let Answer::Reset(code) = exchange.answer {
            respond.send_reset(h2::Reason::from(code));
        }
        return;
    };
    let mut response = Response::builder().status(exchange.status);
    for (name, value) in fields {
        response = response.header(name, value);
    }
    let has_no_body = exchange.response_has_no_body();
    if *has_length && !has_no_body {
        response = response.header("content-length", body.len().to_string());
    }
    let response = response.body(()).unwrap();
    if has_no_body {
        let _ = respond.send_response(response, true);
        return;
    }
    // The client may have cancelled by now.
    let Ok(mut stream) = respond.send_response(response, false) else {
        return;
    };
    let body = Bytes::from(body.clone());
    if trailers.is_empty() {
        let _ = stream.send_data(body, true);
    } else if stream.send_data(body, false).is_ok() {
        let _ = stream.send_trailers(map(trailers));
    }
}

/// Runs our side, with as many concurrent requests as the server accepts.
async fn ask_all(plan: &Plan, io: tokio::io::DuplexStream) {
    let config = Config {
        list_bytes_max: 64 * 1024,
        fields_max: 200,
        ..Config::default()
    };
    let mut ours = OurSide::new(Connection::client(config), io);
    (ours.read_max, ours.is_lazy) = (plan.read_max, plan.is_lazy);
    let mut left: Vec<&Exchange> = plan.exchanges.iter().rev().collect();
    let mut asked: BTreeMap<StreamKey, (&Exchange, u16)> = BTreeMap::new();
    let mut has_peer_settings = false;
    loop {
        while has_peer_settings && ours.connection.can_open() {
            let Some(exchange) = left.pop() else {
                break;
            };
            asked.insert(open(&mut ours, exchange), (exchange, 0));
        }
        if left.is_empty() && has_peer_settings {
            ours.connection.shut_down();
            if ours.connection.is_finished() {
                break;
            }
        }
        let events = ours.turn().await.expect("the h2 server follows the rules");
        assert!(!events.is_empty(), "the server waits for us to end");
        for event in events {
            match event {
                Event::SettingsChanged => has_peer_settings = true,
                Event::Response { stream, .. } => {
                    let (exchange, status) = asked.get_mut(&stream).unwrap();
                    *status = exchange.status;
                    if exchange.is_cancelled {
                        ours.reset(stream, ErrorCode::CANCEL);
                    }
                }
                _ => {}
            }
        }
    }
    ours.flush().await;
    for (key, (exchange, status)) in asked {
        check(exchange, status, &ours.received[&key]);
    }
}

fn open(ours: &mut OurSide, exchange: &Exchange) -> StreamKey {
    let mut fields = exchange.fields.clone();
    fields.push(("X-Exchange".into(), exchange.number.to_string()));
    let (mut block, mut head) = head_of(&fields);
    let mut put = |text: &str| {
        let start = block.len();
        block.extend_from_slice(text.as_bytes());
        Span::new(start, block.len())
    };
    head.method = Method::from_token(exchange.method.as_bytes());
    head.method_span = put(exchange.method);
    head.authority = put("a.test");
    let target = put(&exchange.path());
    head.set_target(target, &block).unwrap();
    let is_end = exchange.is_head_only();
    let framing = Framing {
        body: if exchange.has_length {
            BodyKind::Length(exchange.body.len() as u64)
        } else {
            BodyKind::Chunked
        },
        is_end,
        ..Framing::default()
    };
    let edits = Edits::new();
    let key = ours
        .connection
        .open(&mut ours.out, &block, &head, &edits, &framing)
        .unwrap();
    if !is_end {
        let outgoing = Outgoing {
            body: exchange.body.clone(),
            trailers: exchange.trailers.clone(),
            ..Outgoing::default()
        };
        ours.sending.insert(key, outgoing);
    }
    key
}

fn check(exchange: &Exchange, status: u16, message: &Message) {
    let Answer::Whole {
        fields,
        body,
        has_length,
        trailers,
    } = &exchange.answer
    else {
        let Answer::Reset(code) = exchange.answer else {
            return;
        };
        assert_eq!(message.code, Some(code));
        return;
    };
    assert_eq!(status, exchange.status);
    let mut want = fields.clone();
    if *has_length && !exchange.response_has_no_body() {
        want.push(("content-length".into(), body.len().to_string()));
    }
    assert_eq!(sorted(message.fields.clone()), sorted(want));
    if exchange.is_cancelled {
        return;
    }
    assert!(message.is_complete);
    if !exchange.response_has_no_body() {
        assert_eq!(&message.body, body);
        assert_eq!(sorted(message.trailers.clone()), sorted(trailers.clone()));
    }
}
