//! The `h2` client against our server.

use std::rc::Rc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::io::duplex;
use weir_proto_h1::BodyKind;
use weir_proto_h2::{Config, Connection, ErrorCode, Event, Framing, StreamKey};

use crate::ours::{OurSide, Outgoing};
use crate::plan::{Answer, Exchange, Plan};

pub(crate) async fn run_plan(plan: Plan) {
    let (near, far) = duplex(plan.pipe);
    let plan = Rc::new(plan);
    let server = tokio::task::spawn_local(serve(Rc::clone(&plan), far));
    let mut builder = Builder::new();
    builder
        .initial_window_size(plan.window)
        .initial_connection_window_size(plan.connection_window)
        .max_frame_size(plan.frame)
        .enable_push(false);
    let (sender, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
    let driver = tokio::task::spawn_local(connection);
    let tasks: Vec<_> = plan
        .exchanges
        .iter()
        .map(|exchange| tokio::task::spawn_local(ask(sender.clone(), exchange.clone())))
        .collect();
    drop(sender);
    for task in tasks {
        task.await.unwrap();
    }
    driver.await.unwrap().unwrap();
    server.await.unwrap();
}

/// Runs our side: checks each request against the plan and responds as planned.
async fn serve(plan: Rc<Plan>, io: tokio::io::DuplexStream) {
    let config = Config {
        list_bytes_max: 64 * 1024,
        fields_max: 200,
        ..Config::default()
    };
    let mut ours = OurSide::new(Connection::server(config), io);
    (ours.read_max, ours.is_lazy) = (plan.read_max, plan.is_lazy);
    let mut waiting: Vec<StreamKey> = Vec::new();
    let mut served = 0;
    loop {
        let events = ours.turn().await.expect("the h2 client follows the rules");
        if events.is_empty() {
            break;
        }
        for event in events {
            match event {
                Event::Request { stream, .. } => waiting.push(stream),
                Event::Reset { stream, code, .. } => {
                    assert_eq!(code, ErrorCode::CANCEL);
                    waiting.retain(|key| *key != stream);
                    served += 1;
                }
                _ => {}
            }
        }
        waiting.retain(|key| {
            let message = &ours.received[key];
            if !message.is_complete {
                return true;
            }
            let message = message.clone();
            let number = message.fields.iter().find(|(name, _)| name == "x-exchange");
            let exchange = &plan.exchanges[number.unwrap().1.parse::<usize>().unwrap()];
            check(exchange, &message);
            answer(&mut ours, *key, exchange);
            served += 1;
            false
        });
        // The server ends every other connection.
        if served == plan.exchanges.len() && plan.exchanges.len().is_multiple_of(2) {
            ours.connection.shut_down();
        }
    }
    ours.pump();
    assert!(ours.sending.is_empty(), "nothing is left unsent");
}

fn check(exchange: &Exchange, message: &crate::ours::Message) {
    assert_eq!(message.method, exchange.method);
    assert_eq!(message.target, exchange.path());
    let mut want = exchange.fields.clone();
    want.push(("x-exchange".into(), exchange.number.to_string()));
    let mut fields = message.fields.clone();
    fields.retain(|(name, _)| name != "content-length");
    fields.sort();
    want.sort();
    assert_eq!(fields, want);
    assert_eq!(message.body, exchange.body);
    assert_eq!(message.trailers, exchange.trailers);
}

fn answer(ours: &mut OurSide, key: StreamKey, exchange: &Exchange) {
    match &exchange.answer {
        Answer::Reset(code) => ours.reset(key, ErrorCode(*code)),
        Answer::Whole {
            fields,
            body,
            has_length,
            trailers,
        } => {
            let framing = Framing {
                body: if *has_length {
                    BodyKind::Length(body.len() as u64)
                } else {
                    BodyKind::Chunked
                },
                ..Framing::default()
            };
            let outgoing = Outgoing {
                body: body.clone(),
                trailers: trailers.clone(),
                ..Outgoing::default()
            };
            ours.respond(key, exchange.status, fields, &framing, outgoing);
        }
    }
}

/// Runs one exchange on the h2 side.
async fn ask(sender: SendRequest<Bytes>, exchange: Exchange) {
    let mut sender = sender.ready().await.unwrap();
    let mut request = Request::builder()
        .method(exchange.method)
        .uri(format!("http://a.test{}", exchange.path()));
    for (name, value) in &exchange.fields {
        request = request.header(name, value);
    }
    request = request.header("x-exchange", exchange.number.to_string());
    if exchange.has_length {
        request = request.header("content-length", exchange.body.len().to_string());
    }
    let is_end = exchange.is_head_only();
    let (response, mut stream) = sender
        .send_request(request.body(()).unwrap(), is_end)
        .unwrap();
    drop(sender);
    if !is_end {
        let body = Bytes::from(exchange.body.clone());
        if exchange.trailers.is_empty() {
            stream.send_data(body, true).unwrap();
        } else {
            stream.send_data(body, false).unwrap();
            stream.send_trailers(map(&exchange.trailers)).unwrap();
        }
    }
    let response = response.await;
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
        let error = response.map(drop).unwrap_err();
        assert_eq!(error.reason().map(u32::from), Some(code));
        return;
    };
    let response = response.unwrap();
    if exchange.is_cancelled {
        stream.send_reset(h2::Reason::CANCEL);
        return;
    }
    assert_eq!(response.status().as_u16(), exchange.status);
    let has_no_body = exchange.response_has_no_body();
    let mut want = fields.clone();
    if *has_length && !has_no_body {
        want.push(("content-length".into(), body.len().to_string()));
    }
    assert_eq!(pairs(response.headers()), sorted(want));
    let (received, received_trailers) = read_all(response.into_body()).await;
    if has_no_body {
        assert!(received.is_empty());
        return;
    }
    assert_eq!(&received, body);
    assert_eq!(received_trailers, sorted(trailers.clone()));
}

/// Reads a message to its end on the h2 side. Returns its data and sorted trailers.
pub(crate) async fn read_all(mut incoming: h2::RecvStream) -> (Vec<u8>, Vec<(String, String)>) {
    let mut data = Vec::new();
    while let Some(piece) = incoming.data().await {
        let piece = piece.unwrap();
        data.extend_from_slice(&piece);
        let _ = incoming.flow_control().release_capacity(piece.len());
    }
    let trailers = incoming.trailers().await.unwrap().unwrap_or_default();
    (data, pairs(&trailers))
}

pub(crate) fn map(fields: &[(String, String)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    fields.collect()
}

pub(crate) fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
    let fields = map
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    sorted(fields.collect())
}

pub(crate) fn sorted(mut fields: Vec<(String, String)>) -> Vec<(String, String)> {
    fields.sort();
    fields
}
