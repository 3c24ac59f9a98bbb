//! Scripted endpoints. What to answer stands in the request itself, in `x-answer`; what was seen goes into a ledger.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use weir::io::sim::{Endpoint, Peer, Rng, Sim, World, at};
use weir::io::{Net, Tx};

use super::message::{Framing, Head, announce, body_of, frame, read_body};

/// All requests that endpoints have seen.
#[derive(Clone, Default)]
pub struct Ledger {
    seen: Rc<RefCell<Vec<Seen>>>,
}

/// One request as an endpoint saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: u64,
    pub method: String,
    pub endpoint: String,
    /// Its body came in full. Not said of requests that were answered before.
    pub complete: bool,
}

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub len: usize,
    pub framing: Framing,
    /// Waits this long before.
    pub delay_ms: u64,
    pub twist: Twist,
}

/// What goes wrong, or at least differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Nothing.
    None,
    /// Sends an interim answer before.
    Interim,
    /// Answers without reading the request's body, and closes.
    Early,
    /// Says `Connection: close` and closes.
    Close,
    /// Closes after the answer without having said so.
    CloseSilently,
    /// Closes as soon as the request is there.
    CloseBefore,
    /// Resets as soon as the request is there.
    ResetBefore,
    /// Ends in the middle of the answer's body.
    CloseWithin,
    /// Resets in the middle of the answer's body.
    ResetWithin,
    /// Never answers.
    Silent,
    /// Stops in the middle of the body and stays.
    Stall,
}

impl Twist {
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Interim,
        Self::Early,
        Self::Close,
        Self::CloseSilently,
        Self::CloseBefore,
        Self::ResetBefore,
        Self::CloseWithin,
        Self::ResetWithin,
        Self::Silent,
        Self::Stall,
    ];
}

impl Answer {
    /// The value of `x-answer`.
    pub fn spell(&self) -> String {
        let framing = match self.framing {
            Framing::None => 'n',
            Framing::Length => 'l',
            Framing::Chunked => 'c',
            Framing::Close => 'e',
        };
        let twist = Twist::ALL.iter().position(|&twist| twist == self.twist);
        let (status, len, delay) = (self.status, self.len, self.delay_ms);
        format!(
            "{status} {len} {framing} {delay} {}",
            twist.expect("listed")
        )
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut number = || words.next().expect("a word").to_owned();
        let (status, len, framing) = (number(), number(), number());
        let (delay, twist) = (number(), number());
        Self {
            status: status.parse().expect("a status"),
            len: len.parse().expect("a length"),
            framing: match &*framing {
                "n" => Framing::None,
                "l" => Framing::Length,
                "c" => Framing::Chunked,
                _ => Framing::Close,
            },
            delay_ms: delay.parse().expect("a delay"),
            twist: Twist::ALL[twist.parse::<usize>().expect("a twist")],
        }
    }
}

impl Ledger {
    /// How often a request was seen.
    pub fn count(&self, id: u64) -> usize {
        self.seen
            .borrow()
            .iter()
            .filter(|seen| seen.id == id)
            .count()
    }

    /// Which endpoints have seen anything.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub(super) fn add(&self, seen: Seen) -> usize {
        let mut all = self.seen.borrow_mut();
        all.push(seen);
        all.len() - 1
    }

    /// Notes that a request came in full.
    pub(super) fn complete(&self, seen: usize) {
        self.seen.borrow_mut()[seen].complete = true;
    }

    /// Starts an endpoint that does as it is told.
    pub fn endpoint(&self, world: &World, address: &str) -> Endpoint {
        let (ledger, name) = (self.clone(), address.to_owned());
        let seed = world.rng(99).next();
        world.endpoint(&at(address), move |peer| {
            serve(peer, ledger.clone(), name.clone(), Rng::new(seed))
        })
    }
}

async fn serve(mut peer: Peer<Sim>, ledger: Ledger, endpoint: String, mut rng: Rng) {
    while let Some(head) = Head::read(&mut peer).await {
        let id = head.get("x-id").expect("an id").parse().expect("a number");
        let method = head.line.split(' ').next().expect("a method").to_owned();
        let seen = ledger.add(Seen {
            id,
            method: method.clone(),
            endpoint: endpoint.clone(),
            complete: false,
        });
        let answer = Answer::parse(head.get("x-answer").expect("what to answer"));
        match answer.twist {
            Twist::CloseBefore => return,
            Twist::ResetBefore => return peer.reset(),
            Twist::Silent => return until_closed(peer).await,
            Twist::Early => {}
            _ => {
                let (body, complete) =
                    read_body(&mut peer, &head, head.framing(Framing::None)).await;
                let want = body_of(id, false, body.len());
                assert!(
                    body == want,
                    "request {id}: its body was changed on the way"
                );
                if !complete {
                    return;
                }
                let whole = head.get("x-body").expect("a length").parse::<usize>();
                assert_eq!(
                    body.len(),
                    whole.expect("a number"),
                    "request {id} was cut short"
                );
                ledger.complete(seen);
            }
        }
        if !reply(&mut peer, id, &method, answer, &mut rng).await {
            return;
        }
    }
}

/// Answers. Says whether the connection goes on.
async fn reply(peer: &mut Peer<Sim>, id: u64, method: &str, answer: Answer, rng: &mut Rng) -> bool {
    let net = peer.net().clone();
    if answer.delay_ms > 0 {
        let until = net.now() + Duration::from_millis(answer.delay_ms);
        net.sleep_until(until).await;
    }
    let mut wire = String::new();
    if answer.twist == Twist::Interim {
        wire += "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
    }
    let (status, len, framing) = (answer.status, answer.len, answer.framing);
    wire += &format!("HTTP/1.1 {status} Whatever\r\nX-Id: {id}\r\nX-Length: {len}\r\n");
    let bodiless = matches!(status, 204 | 304);
    if !bodiless {
        wire += &announce(framing, len);
    }
    if matches!(answer.twist, Twist::Close | Twist::Early) || framing == Framing::Close {
        wire += "Connection: close\r\n";
    }
    wire += "\r\n";
    let mut wire = wire.into_bytes();
    let mut whole = wire.len();
    if method != "HEAD" && !bodiless {
        let mut body = frame(framing, &body_of(id, true, len), rng);
        whole += body.len();
        if matches!(
            answer.twist,
            Twist::CloseWithin | Twist::ResetWithin | Twist::Stall
        ) {
            body.truncate(rng.below(body.len()));
        }
        wire.extend_from_slice(&body);
    }
    if peer.send(&wire).await.is_err() {
        return false;
    }
    let cut = wire.len() < whole;
    match answer.twist {
        Twist::ResetWithin => peer.tx.abort(),
        // What is still to come of the request is taken in, so that the answer is not lost by a reset.
        Twist::Early => {
            peer.finish();
            while let Ok(Some(_)) = peer.recv().await {}
        }
        Twist::Stall if cut => while let Ok(Some(_)) = peer.recv().await {},
        Twist::Stall => return framing != Framing::Close,
        Twist::None | Twist::Interim => return framing != Framing::Close,
        _ => {}
    }
    false
}

async fn until_closed(mut peer: Peer<Sim>) {
    while let Ok(Some(_)) = peer.recv().await {}
}
