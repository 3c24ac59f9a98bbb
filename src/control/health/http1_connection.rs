//! A connection of checks over HTTP/1.1. It keeps no buffer between checks, because a box may have 10,000 of them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use weir_proto_h1::framing::BodyKind;
use weir_proto_h1::{Client, Event, Head, Limits, Method, Next};

use super::checker::{BODY_BYTES_MAX, Failure, Stream};

/// Bytes that a read has room for at first. The answers to most checks fit.
const READ_BYTES: usize = 2 * 1024;

/// An answer over HTTP/1.1.
pub(super) struct Http1Answer {
    pub(super) status: u16,
    /// The first [`BODY_BYTES_MAX`] bytes.
    pub(super) body: Vec<u8>,
    /// The connection takes another request.
    pub(super) may_reuse: bool,
}

/// Sends a request without a body, and receives the answer.
///
/// # Errors
/// The connection ends before the answer, or the answer is not valid.
pub(super) async fn exchange(
    stream: &mut dyn Stream,
    (method, request): (Method, &[u8]),
    limits: Limits,
) -> Result<Http1Answer, Failure> {
    let lost = |error: io::Error| Failure::Lost(error.to_string());
    let invalid = |error| Failure::Unfit(format!("its answer is invalid: {error}"));
    let mut client = Client::new(limits);
    client
        .begin_request(method, BodyKind::None, None, false)
        .and_then(|_| client.sender().end())
        .map_err(invalid)?;
    stream.write_all(request).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let (mut head, mut input, mut start) = (Head::new(), Vec::new(), 0);
    let mut body = Vec::new();
    loop {
        let rest = input.get(start..).unwrap_or_default();
        let received = client.receive(rest, &mut head).map_err(invalid)?;
        start += received.consumed;
        match received.event {
            Event::NeedMore => {
                input.drain(..start);
                start = 0;
                input.reserve(READ_BYTES);
                if stream.read_buf(&mut input).await.map_err(lost)? == 0 {
                    if client.is_silent() && input.is_empty() {
                        let why = "it closed the connection without an answer";
                        return Err(Failure::Lost(why.to_owned()));
                    }
                    let closed = client.receive_close(input.len());
                    closed.map_err(|_| Failure::Unfit("its answer breaks off".to_owned()))?;
                }
            }
            Event::Head | Event::Interim => {}
            Event::Data(range) => {
                let data = rest.get(range).unwrap_or_default();
                let room = BODY_BYTES_MAX - body.len();
                body.extend_from_slice(data.get(..room).unwrap_or(data));
                if data.len() > room {
                    break;
                }
            }
            Event::End | Event::Blocked | Event::Switch => break,
        }
    }
    Ok(Http1Answer {
        status: client.response().status,
        body,
        may_reuse: client.finish(input.len() - start) == Next::Reuse,
    })
}

/// Whether nothing has come from the endpoint since the last answer, neither bytes nor the end.
pub(super) async fn is_quiet(stream: &mut dyn Stream) -> bool {
    let mut byte = [0];
    poll_fn(|cx| {
        let read = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(read.is_pending())
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What an endpoint that sends these pieces, and then closes, looks like to a check.
    fn checked(method: Method, pieces: &[&str]) -> Result<(u16, String, bool), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let (mut ours, mut theirs) = duplex(1 << 20);
            let endpoint = async move {
                let mut request = [0; 5];
                theirs.read_exact(&mut request).await.expect("a request");
                for piece in pieces {
                    theirs.write_all(piece.as_bytes()).await.expect("room");
                    tokio::task::yield_now().await;
                }
            };
            let request = (method, &b"hello"[..]);
            let limits = Limits::default();
            let (answer, ()) = tokio::join!(exchange(&mut ours, request, limits), endpoint);
            match answer {
                Ok(answer) => {
                    let body = String::from_utf8(answer.body).expect("text");
                    Ok((answer.status, body, answer.may_reuse))
                }
                Err(Failure::Lost(why)) => Err(format!("lost: {why}")),
                Err(Failure::Unfit(why)) => Err(why),
            }
        })
    }

    #[test]
    fn answers_are_read_however_they_are_framed_and_cut() {
        let well = |status, body: &str, may_reuse| Ok((status, body.to_owned(), may_reuse));
        let cases: [(&[&str], _); 8] = [
            (
                &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
                well(200, "ok", true),
            ),
            (
                &["HTTP/1.1 20", "0 OK\r\nContent-Length: 2\r\n\r\no", "k"],
                well(200, "ok", true),
            ),
            (
                &[
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n",
                    "1\r\nk\r\n0\r\n\r\n",
                ],
                well(200, "ok", true),
            ),
            (&["HTTP/1.1 200 OK\r\n\r\no", "k"], well(200, "ok", false)),
            (&["HTTP/1.1 204 No Content\r\n\r\n"], well(204, "", true)),
            (
                &["HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"],
                well(503, "", true),
            ),
            (
                &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"],
                well(200, "", false),
            ),
            (
                &["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nokay"],
                well(200, "o", false),
            ),
        ];
        for (pieces, wanted) in cases {
            assert_eq!(checked(Method::Get, pieces), wanted, "{pieces:?}");
        }
        let head = checked(
            Method::Head,
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
        );
        assert_eq!(head, well(200, "", true));
    }

    #[test]
    fn a_long_body_is_read_in_part() {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}",
            "x".repeat(100_000)
        );
        let (status, body, may_reuse) = checked(Method::Get, &[&answer]).expect("an answer");
        assert_eq!(
            (status, body.len(), may_reuse),
            (200, BODY_BYTES_MAX, false)
        );
    }

    #[test]
    fn what_is_no_answer_says_why() {
        for (pieces, wanted) in [
            (&[][..], "lost: it closed the connection without an answer"),
            (&["HTTP/1.1 200 OK\r\n"], "its answer breaks off"),
            (
                &["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"],
                "its answer breaks off",
            ),
            (&["no HTTP\r\n\r\n"], "its answer is invalid: "),
            (
                &["HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"],
                "its answer is invalid: ",
            ),
        ] {
            let why = checked(Method::Get, pieces).expect_err("no answer");
            assert!(why.starts_with(wanted), "{pieces:?}: {why}");
        }
    }

    #[test]
    fn a_kept_connection_on_which_something_came_is_not_quiet() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let (mut ours, mut theirs) = duplex(64);
            assert!(is_quiet(&mut ours).await);
            theirs.write_all(b"HTTP/1.1 408").await.expect("room");
            assert!(!is_quiet(&mut ours).await);
            let (mut ours, theirs) = duplex(64);
            drop(theirs);
            assert!(!is_quiet(&mut ours).await);
        });
    }
}
