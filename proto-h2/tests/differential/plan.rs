//! The messages of both sides, generated from a seed.

use crate::replay::Random;

/// A request and its response.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) number: usize,
    pub(crate) method: &'static str,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) has_length: bool,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) status: u16,
    pub(crate) answer: Answer,
    /// Whether the client cancels once the response has begun.
    pub(crate) is_cancelled: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Whole {
        fields: Vec<(String, String)>,
        body: Vec<u8>,
        has_length: bool,
        trailers: Vec<(String, String)>,
    },
    /// The server resets it with this code.
    Reset(u32),
}

impl Exchange {
    pub(crate) fn path(&self) -> String {
        format!("/{}?x={}", self.number, self.number * 7)
    }

    /// Whether the head of the request ends it.
    pub(crate) fn is_head_only(&self) -> bool {
        self.body.is_empty() && self.trailers.is_empty() && !self.has_length
    }

    /// Whether the response cannot have a body.
    pub(crate) fn response_has_no_body(&self) -> bool {
        self.method == "HEAD" || matches!(self.status, 204 | 304)
    }
}

pub(crate) struct Plan {
    pub(crate) exchanges: Vec<Exchange>,
    /// The windows of the `h2` side.
    pub(crate) window: u32,
    pub(crate) connection_window: u32,
    pub(crate) frame: u32,
    /// Bytes that fit in the pipe.
    pub(crate) pipe: usize,
    pub(crate) read_max: usize,
    pub(crate) is_lazy: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = 1 + random.below(60);
        Self {
            exchanges: (0..count)
                .map(|number| exchange(number, &mut random))
                .collect(),
            window: [65_535, 1_000, 300_000][random.below(3)],
            connection_window: [65_535, 100_000, 1 << 20][random.below(3)],
            frame: [16_384, 100_000][random.below(2)],
            pipe: [64, 4_096, 1 << 16][random.below(3)],
            read_max: [17, 1_000, 1 << 16][random.below(3)],
            is_lazy: random.below(2) == 0,
        }
    }
}

fn exchange(number: usize, random: &mut Random) -> Exchange {
    let method = ["GET", "POST", "PUT", "HEAD", "PURGE"][random.below(5)];
    let has_body = matches!(method, "POST" | "PUT");
    let body = if has_body { body(random) } else { Vec::new() };
    let answer = if random.below(8) == 0 {
        Answer::Reset([0x7, 0x8, 0x2, 0xd][random.below(4)])
    } else {
        Answer::Whole {
            fields: fields(random, "answer"),
            body: self::body(random),
            has_length: random.below(2) == 0,
            trailers: trailers(random),
        }
    };
    Exchange {
        number,
        method,
        fields: fields(random, "ask"),
        has_length: has_body && random.below(2) == 0,
        trailers: if has_body {
            trailers(random)
        } else {
            Vec::new()
        },
        body,
        status: [200, 404, 503, 204, 304][random.below(5)],
        answer,
        is_cancelled: random.below(10) == 0,
    }
}

fn body(random: &mut Random) -> Vec<u8> {
    let len = match random.below(6) {
        0 => 0,
        1 => random.below(10),
        2..=4 => random.below(5_000),
        _ => random.below(150_000),
    };
    (0..len).map(|at| (at * 31 + len) as u8).collect()
}

fn trailers(random: &mut Random) -> Vec<(String, String)> {
    (0..random.below(4).saturating_sub(1))
        .map(|at| (format!("x-trailer-{at}"), random.below(1_000).to_string()))
        .collect()
}

fn fields(random: &mut Random, what: &str) -> Vec<(String, String)> {
    let mut fields = vec![("x-what".to_owned(), what.to_owned())];
    for at in 0..random.below(12) {
        let (name, value) = match random.below(7) {
            0 => ("user-agent".to_owned(), "differ/1.0 (tests)".to_owned()),
            1 => ("accept".to_owned(), "*/*".to_owned()),
            2 => ("content-type".to_owned(), "text/plain".to_owned()),
            3 => (
                "authorization".to_owned(),
                format!("Basic {}", random.next()),
            ),
            4 => (format!("x-{at}"), "v".repeat(random.below(300))),
            5 => ("etag".to_owned(), format!("\"{}\"", random.below(5))),
            _ => (
                format!("x-number-{}", random.below(5)),
                random.next().to_string(),
            ),
        };
        if fields.iter().all(|(before, _)| *before != name) {
            fields.push((name, value));
        }
    }
    if random.below(12) == 0 {
        fields.push((
            "x-big".to_owned(),
            "b".repeat(14_000 + random.below(30_000)),
        ));
    }
    fields
}
