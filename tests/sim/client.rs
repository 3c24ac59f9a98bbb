//! Scripted clients: they ask, and judge what they get.

use weir::io::sim::{End, Peer, Rng, Sim};
use weir::io::{Address, Tx};

use super::endpoint::{Answer, Twist};
use super::message::{Framing, Head, announce, body_of, frame, read_body};

/// One request to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: u64,
    pub method: &'static str,
    pub path: &'static str,
    pub len: usize,
    pub framing: Framing,
    pub answer: Answer,
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// The answer that the endpoint gave, complete and correct.
    Answered,
    /// An answer of Weir's own, with its reason.
    Refused(u16, String),
    /// An answer that visibly lacks its end.
    Truncated,
    /// The connection ended without one.
    Lost(End),
}

impl Ask {
    /// A request drawn by chance; its answer is a good one.
    pub fn drawn(id: u64, rng: &mut Rng) -> Self {
        let method = ["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"][rng.below(7)];
        let has_body = matches!(method, "POST" | "PUT");
        let framing = match rng.below(2) {
            _ if !has_body => Framing::None,
            0 => Framing::Length,
            _ => Framing::Chunked,
        };
        let answer = Answer {
            status: [200, 200, 200, 201, 204, 304, 404, 500][rng.below(8)],
            len: drawn_len(rng),
            framing: [Framing::Length, Framing::Chunked, Framing::Close][rng.below(3)],
            delay_ms: [0, 0, 0, 20][rng.below(4)],
            twist: [Twist::None, Twist::None, Twist::Interim, Twist::Close][rng.below(4)],
        };
        Self {
            id,
            method,
            path: "/",
            len: if has_body { drawn_len(rng) } else { 0 },
            framing,
            answer,
        }
    }

    /// Whether it may be made twice without harm.
    pub fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }

    /// The request as it goes over the wire.
    pub fn wire(&self, rng: &mut Rng) -> Vec<u8> {
        let (method, path, id, len) = (self.method, self.path, self.id, self.len);
        let (answer, framing) = (self.answer.spell(), announce(self.framing, len));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: sim\r\nX-Id: {id}\r\nX-Body: {len}\r\n\
             X-Answer: {answer}\r\n{framing}\r\n"
        );
        let mut wire = head.into_bytes();
        if self.framing != Framing::None {
            wire.extend(frame(self.framing, &body_of(id, false, len), rng));
        }
        wire
    }

    /// Reads the answer and judges it: what is wrong in itself panics, what may happen is returned. The flag says
    /// whether the connection goes on.
    pub async fn read(&self, peer: &mut Peer<Sim>) -> (Outcome, bool) {
        let head = loop {
            match Head::read(peer).await {
                Some(head) if head.line.contains(" 103 ") => {}
                Some(head) => break head,
                None => {
                    let (bytes, end) = peer.read_to_end().await;
                    assert!(
                        bytes.is_empty() || end != End::Orderly,
                        "half a head, then an end"
                    );
                    return (Outcome::Lost(end), false);
                }
            }
        };
        let status: u16 = head.line[9..12].parse().expect("a status");
        let bodiless = self.method == "HEAD" || matches!(status, 204 | 304);
        let framing = match bodiless {
            true => Framing::None,
            false => head.framing(Framing::Close),
        };
        let (body, complete) = read_body(peer, &head, framing).await;
        let goes_on =
            complete && framing != Framing::Close && head.get("connection") != Some("close");
        if let Some(why) = head.get("proxy-status") {
            assert!(complete, "an answer of Weir's own was cut short: {why}");
            let why = why.split('"').nth(1).expect("details").to_owned();
            return (Outcome::Refused(status, why), goes_on);
        }
        let id = self.id;
        assert_eq!(status, self.answer.status, "request {id}");
        assert_eq!(
            head.get("x-id"),
            Some(&*id.to_string()),
            "an answer to another request"
        );
        let want = match bodiless {
            true => Vec::new(),
            false => body_of(id, true, self.answer.len),
        };
        assert!(
            want.starts_with(&body),
            "request {id}: the answer was changed on the way"
        );
        if !complete {
            return (Outcome::Truncated, false);
        }
        let (got, whole) = (body.len(), want.len());
        assert_eq!(
            got, whole,
            "request {id}: a truncated answer looks complete"
        );
        (Outcome::Answered, goes_on)
    }
}

fn drawn_len(rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 => 0,
        1 => rng.size(3_000),
        _ => rng.size(150_000),
    }
}

/// Makes requests one after the other over as few connections as possible.
pub async fn ask_all(net: &Sim, to: &Address, asks: &[Ask], rng: &mut Rng) -> Vec<Outcome> {
    let mut peer = None;
    let mut outcomes = Vec::new();
    for ask in asks {
        let mut open = match peer.take() {
            Some(open) => open,
            None => Peer::connect(net, to).await.expect("Weir listens"),
        };
        open.write(&ask.wire(rng));
        let (outcome, goes_on) = ask.read(&mut open).await;
        let whole = matches!(outcome, Outcome::Answered | Outcome::Refused(..));
        outcomes.push(outcome);
        // Where the answer came before the request was sent, the rest of it is not worth sending.
        if goes_on && open.tx.queued() == 0 {
            peer = Some(open);
        } else if !goes_on && whole {
            expect_end(open).await;
        }
    }
    if let Some(mut open) = peer {
        open.finish();
        expect_end(open).await;
    }
    outcomes
}

/// Makes all requests at once over one connection, and reads the answers in their order, as far as there are any.
pub async fn pipeline(net: &Sim, to: &Address, asks: &[Ask], rng: &mut Rng) -> Vec<Outcome> {
    let mut peer = Peer::connect(net, to).await.expect("Weir listens");
    let wire: Vec<u8> = asks.iter().flat_map(|ask| ask.wire(rng)).collect();
    peer.write(&wire);
    let mut outcomes = Vec::new();
    for ask in asks {
        let (outcome, goes_on) = ask.read(&mut peer).await;
        outcomes.push(outcome);
        if !goes_on {
            expect_end(peer).await;
            return outcomes;
        }
    }
    peer.finish();
    expect_end(peer).await;
    outcomes
}

/// After the last answer there is nothing.
pub async fn expect_end(mut peer: Peer<Sim>) {
    let (bytes, _) = peer.read_to_end().await;
    assert!(
        bytes.is_empty(),
        "{} bytes after the last answer",
        bytes.len()
    );
}
