//! The bodies of the fuzz targets, which also run in the test that replays the corpus. A body panics if a property does
//! not hold.

#![allow(clippy::unwrap_used)] // A panic reports a violated property.

use std::io::Read;
use std::rc::Rc;

use weir::io::Pool;
use weir::policy::compress::{CoderPool, Coding, Compressor, choose};
use weir::policy::filter::{Chain, Filter, Filters, Framed, Part};
use weir_proto_h1::{BodyKind, Edits, Head, Trailers};

/// The body of a fuzz target. The target, its corpus and its body have the same name.
pub(crate) type Body = fn(&[u8]);

pub(crate) const BODIES: &[(&str, Body)] =
    &[("filters", filters), ("accept_encoding", accept_encoding)];

const CODINGS: [(Coding, u8); 6] = [
    (Coding::Zstd, 1),
    (Coding::Zstd, 12),
    (Coding::Brotli, 4),
    (Coding::Brotli, 6),
    (Coding::Gzip, 1),
    (Coding::Gzip, 9),
];

/// The most bytes of a body that a turn codes, at any of these levels: the budget, and a step.
const TURN_BYTES_MAX: usize = 24 * 1024;

/// Sends two bodies, one after the other, through one or two coders, so that the second may get a coder of the first.
pub(crate) fn filters(bytes: &[u8]) {
    let [first, second, steps @ ..] = bytes else {
        return;
    };
    let coders = Rc::new(CoderPool::default());
    let pool = Pool::new();
    let mut chosen = vec![CODINGS[usize::from(*first) % CODINGS.len()]];
    if second % 3 == 0 {
        chosen.push(CODINGS[usize::from(second / 3) % CODINGS.len()]);
    }
    for body in 0..2 {
        let is_known = first / 8 % 2 == body;
        let length: usize = steps.chunks_exact(2).map(piece_len).sum();
        let mut chain = chain(&chosen, &coders);
        let kind = match is_known {
            true => BodyKind::Length(length as u64),
            false => BodyKind::Chunked,
        };
        let framed = chain.head(&Head::with_status(200), &mut Edits::new(), kind);
        assert_eq!(framed, Framed::Now(BodyKind::Chunked));
        let mut passage = Passage {
            chain,
            pool: &pool,
            coded: Vec::new(),
            has_ended: false,
        };
        let mut sent = Vec::new();
        for step in steps.chunks_exact(2) {
            let piece = piece(step);
            sent.extend_from_slice(&piece);
            if !piece.is_empty() {
                passage.chain.push(pool.copy(&piece));
            }
            match step[0] % 4 {
                0 => {
                    passage.pull();
                }
                1 => passage.work(),
                2 if passage.chain.flush() => {
                    passage.work();
                    assert!(decode(&chosen, &passage.coded).0 == sent, "flushed");
                }
                _ => {}
            }
        }
        passage.chain.end(&Trailers::default());
        passage.work();
        assert!(passage.has_ended, "the body has no end");
        assert!(decode(&chosen, &passage.coded) == (sent, true));
    }
    drop(coders);
    assert_eq!(pool.taken_bytes(), 0, "memory stays charged");
}

/// How long the piece of a step is.
fn piece_len(step: &[u8]) -> usize {
    usize::from(step[1]).pow(2) / [1, 4, 64][usize::from(step[0] / 4 % 3)]
}

/// A piece of a body: the same few bytes again and again, or bytes that do not compress.
fn piece(step: &[u8]) -> Vec<u8> {
    let mut state = u32::from(step[0]) * 256 + u32::from(step[1]);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mask = if step[0] >= 128 { 0xff } else { 0x03 };
    (0..piece_len(step)).map(|_| next() & mask).collect()
}

fn chain(chosen: &[(Coding, u8)], coders: &Rc<CoderPool>) -> Box<Chain> {
    let mut filters = Filters::default();
    for &(coding, level) in chosen {
        let compressor = Compressor::new(coding, level, coders.clone());
        filters.add(Filter::Compress(Box::new(compressor)));
    }
    filters.into_chain().unwrap()
}

/// A body on its way through a chain.
struct Passage<'p> {
    chain: Box<Chain>,
    pool: &'p Pool,
    coded: Vec<u8>,
    has_ended: bool,
}

impl Passage<'_> {
    /// Takes parts until there is none. Returns whether there was one.
    fn pull(&mut self) -> bool {
        let unread = self.chain.unread_bytes();
        let mut was_there = false;
        while let Some(part) = self.chain.pull(self.pool).unwrap() {
            was_there = true;
            match part {
                Part::Data(data) => {
                    assert!(!self.has_ended && !data.is_empty());
                    self.coded.extend_from_slice(&data);
                }
                Part::End => self.has_ended = true,
                Part::Head => panic!("the head has left"),
            }
        }
        let taken = unread.saturating_sub(self.chain.unread_bytes());
        assert!(taken <= TURN_BYTES_MAX, "{taken} bytes in one turn");
        was_there
    }

    /// Gives turns until there is nothing to do.
    fn work(&mut self) {
        for _ in 0..100_000 {
            let was_there = self.pull();
            if !self.chain.has_work() && !was_there {
                return;
            }
            self.chain.renew_budget();
        }
        panic!("the filters do not come to an end");
    }
}

/// Takes the codings off, the last one first. The flag says whether the bytes are the whole of a body.
fn decode(chosen: &[(Coding, u8)], bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut bytes, mut is_whole) = (bytes.to_vec(), true);
    for (coding, _) in chosen.iter().rev() {
        let (decoded, is_end) = decode_one(*coding, &bytes);
        (bytes, is_whole) = (decoded, is_whole && is_end);
    }
    (bytes, is_whole)
}

fn decode_one(coding: Coding, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut decoder: Box<dyn Read + '_> = match coding {
        Coding::Zstd => Box::new(zstd::Decoder::new(bytes).unwrap()),
        Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
    };
    let (mut whole, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return (whole, true),
            Ok(read) => whole.extend_from_slice(&buffer[..read]),
            Err(_) => return (whole, false),
        }
    }
}

/// Chooses a coding from a field. The first byte says what is offered.
pub(crate) fn accept_encoding(bytes: &[u8]) {
    let Some((&offer, field)) = bytes.split_first() else {
        return;
    };
    let mut offered = vec![Coding::Zstd, Coding::Brotli, Coding::Gzip];
    offered.rotate_left(usize::from(offer % 3));
    offered.truncate(1 + usize::from(offer / 3 % 3));
    let elements = || field.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let chosen = choose(elements(), offered.iter().copied());

    let elements: Vec<_> = elements().filter_map(parse).collect();
    let weight = |names: &[&str]| {
        let mut named = elements.iter();
        let found = named.find(|(name, _)| names.contains(&&**name));
        found.map(|(_, weight)| *weight)
    };
    let others = weight(&["*"]).unwrap_or(0.0);
    let mut best = None;
    let mut most = 0.0;
    for coding in offered {
        let own = match coding {
            Coding::Gzip => weight(&["gzip", "x-gzip"]),
            Coding::Zstd => weight(&["zstd"]),
            Coding::Brotli => weight(&["br"]),
        };
        let own = own.unwrap_or(others);
        if own > most {
            (best, most) = (Some(coding), own);
        }
    }
    // The answer as it is goes first only with a higher weight of its own.
    let identity = weight(&["identity"]).unwrap_or(0.0);
    assert_eq!(chosen, best.filter(|_| most >= identity));
}

/// An element's name in lower case and its weight. `None`: the weight is malformed.
fn parse(element: &[u8]) -> Option<(String, f64)> {
    let text = String::from_utf8_lossy(element).to_ascii_lowercase();
    let Some((name, parameter)) = text.split_once(';') else {
        return Some((text, 1.0));
    };
    let digits = parameter
        .trim_matches(|c: char| c.is_ascii_whitespace())
        .strip_prefix("q=")?;
    let is_number = digits.starts_with(['0', '1'])
        && digits.len() <= 5
        && digits.chars().enumerate().all(|(at, c)| match at {
            1 => c == '.',
            _ => c.is_ascii_digit(),
        });
    let weight: f64 = is_number.then(|| digits.parse().ok())??;
    let name = name.trim_end_matches(|c: char| c.is_ascii_whitespace());
    (weight <= 1.0).then(|| (name.to_owned(), weight))
}
