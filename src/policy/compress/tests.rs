use std::io::Read;

use weir_config::ContentCoding;
use weir_proto_h1::{Client, Edits, Event, Limits, Server};

use super::*;
use crate::io::Pool;
use crate::limits::FILTER_BUDGET_US;
use crate::policy::filter::{Chain, Filters, Framed, Part};

fn rules() -> Rules {
    Rules::new(&Compress {
        algorithms: vec![
            (ContentCoding::Zstd, 3),
            (ContentCoding::Br, 4),
            (ContentCoding::Gzip, 5),
        ],
        types: ["text/*", "application/json", "+json"]
            .map(str::to_owned)
            .to_vec(),
        bytes_min: 1024,
    })
}

/// What a client gets: the fields that Weir adds, with what it removes, and whether the body goes through a filter.
struct Edited {
    lines: String,
    is_compressed: bool,
}

/// Edits an answer, given as the lines of both heads.
fn edit(request: &str, answer: &str) -> Edited {
    edit_with(request, answer, false)
}

fn edit_with(request: &str, answer: &str, is_memory_short: bool) -> Edited {
    let block = format!("{request}\r\nHost: a\r\n\r\n")
        .replace("\n", "\r\n")
        .replace("\r\r", "\r");
    let (mut server, mut head) = (Server::new(Limits::default()), Head::new());
    let received = server.receive(block.as_bytes(), &mut head).unwrap();
    assert_eq!(received.event, Event::Head);
    let answer_block = format!("{answer}\r\n\r\n")
        .replace("\n", "\r\n")
        .replace("\r\r", "\r");
    let (mut client, mut answer_head) = (Client::new(Limits::default()), Head::new());
    let hop = server.request();
    let framing = client
        .begin_request(hop.method, hop.body, None, false)
        .unwrap();
    assert_eq!(framing.body, hop.body);
    let ended = client.sender().end();
    assert!(ended.is_ok());
    client
        .receive(answer_block.as_bytes(), &mut answer_head)
        .unwrap();
    let (mut edits, mut filters) = (Edits::new(), Filters::new(is_memory_short));
    let mut view = AnswerView {
        head: &mut answer_head,
        block: answer_block.as_bytes(),
        edits: &mut edits,
        is_local: false,
        attempt: None,
        body: client.response().body,
        filters: &mut filters,
    };
    let request = StepRequest::for_test(&head, block.as_bytes(), hop);
    rules().edit_answer(None, &request, &Facts::default(), &mut view);
    let mut lines = String::new();
    let mut put = |name: &[u8], value: &[u8]| {
        let (name, value) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value),
        );
        lines += &format!("{name}: {value}\n");
    };
    for field in answer_head.iter() {
        let name = field.name.get(answer_block.as_bytes());
        let is_removed = match field.id {
            FieldId::Other => edits.removes_name(name),
            id => edits.removed().has(id),
        };
        if !is_removed {
            put(name, field.value.get(answer_block.as_bytes()));
        }
    }
    edits.iter().for_each(|(name, value)| put(name, value));
    Edited {
        lines,
        is_compressed: filters.into_chain().is_some(),
    }
}

const GET: &str = "GET / HTTP/1.1\nAccept-Encoding: gzip";
const TEXT: &str = "HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 5000";

#[test]
fn the_head_of_a_compressed_answer_says_so() {
    let edited = edit(GET, &format!("{TEXT}\nETag: \"a\"\nAccept-Ranges: bytes"));
    assert!(edited.is_compressed);
    assert_eq!(
        edited.lines,
        "Content-Type: text/html\nContent-Length: 5000\nVary: Accept-Encoding\nContent-Encoding: gzip\nETag: W/\"a\"\n"
    );
}

#[test]
fn an_answer_that_another_client_would_get_compressed_varies() {
    for request in ["GET / HTTP/1.1", "GET / HTTP/1.1\nAccept-Encoding: deflate"] {
        let edited = edit(request, &format!("{TEXT}\nETag: \"a\""));
        assert!(!edited.is_compressed);
        assert!(
            edited.lines.contains("Vary: Accept-Encoding"),
            "{}",
            edited.lines
        );
        assert!(edited.lines.contains("ETag: \"a\""));
    }
}

#[test]
fn vary_merges() {
    for (vary, merged) in [
        ("Vary: Origin", "Vary: Origin, Accept-Encoding\n"),
        (
            "Vary: Origin\nVary: Cookie",
            "Vary: Origin, Cookie, Accept-Encoding\n",
        ),
        ("Vary: accept-encoding", "Vary: accept-encoding\n"),
        (
            "Vary: Origin, Accept-Encoding",
            "Vary: Origin, Accept-Encoding\n",
        ),
        ("Vary: *", "Vary: *\n"),
    ] {
        let lines = edit(GET, &format!("{TEXT}\n{vary}")).lines;
        let found: Vec<_> = lines
            .lines()
            .filter(|line| line.starts_with("Vary"))
            .collect();
        assert_eq!(format!("{}\n", found.join("\n")), merged);
    }
}

#[test]
fn an_answer_that_must_not_change_stays_as_it_is() {
    for answer in [
        "HTTP/1.1 200 OK\nContent-Type: image/png\nContent-Length: 5000",
        "HTTP/1.1 200 OK\nContent-Length: 5000",
        "HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 1023",
        "HTTP/1.1 204 No Content\nContent-Type: text/html",
        "HTTP/1.1 206 Partial Content\nContent-Type: text/html\nContent-Range: bytes 0-4999/9000\nContent-Length: 5000",
        "HTTP/1.1 416 Range Not Satisfiable\nContent-Type: text/html\nContent-Range: bytes */9000\nContent-Length: 5000",
        &format!("{TEXT}\nContent-Encoding: br"),
        &format!("{TEXT}\nCache-Control: public, No-Transform"),
        &format!("{TEXT}\nContent-Digest: sha-256=:x=:"),
        &format!("{TEXT}\nRepr-Digest: sha-256=:x=:"),
        &format!("{TEXT}\ncontent-md5: x"),
        "HTTP/1.1 200 OK\nContent-Type: text/html\nTransfer-Encoding: chunked\nTrailer: Content-Digest",
    ] {
        let edited = edit(GET, answer);
        assert!(!edited.is_compressed, "{answer}");
        let added = edited.lines.contains("Vary") || edited.lines.contains("gzip");
        assert!(!added, "{answer}: {}", edited.lines);
    }
}

#[test]
fn statuses_lengths_and_streams_that_are_compressed() {
    for answer in [
        TEXT,
        "HTTP/1.1 404 Not Found\nContent-Type: application/problem+json\nContent-Length: 1024",
        "HTTP/1.1 200 OK\nContent-Type: text/event-stream\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\nContent-Type: text/html",
        &format!("{TEXT}\nTrailer: X-Sum"),
    ] {
        assert!(edit(GET, answer).is_compressed, "{answer}");
    }
    let refused = format!("{GET}\nCache-Control: no-transform");
    assert!(!edit(&refused, TEXT).is_compressed);
    let upgrade = format!("{GET}\nConnection: upgrade\nUpgrade: websocket");
    assert!(!edit(&upgrade, TEXT).is_compressed);
    let short_of_memory = edit_with(GET, TEXT, true);
    assert!(!short_of_memory.is_compressed && short_of_memory.lines.contains("Vary"));
}

#[test]
fn the_head_of_head_is_that_of_get() {
    let head = GET.replace("GET", "HEAD");
    for answer in [
        TEXT,
        "HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 100",
    ] {
        let (of_head, of_get) = (edit(&head, answer), edit(GET, answer));
        assert_eq!(of_head.lines, of_get.lines);
        assert_eq!(of_head.is_compressed, of_get.is_compressed);
    }
}

#[test]
fn a_304_has_the_tag_that_the_client_knows() {
    let answer = "HTTP/1.1 304 Not Modified\nETag: \"a,b\"";
    let weak = format!("{GET}\nIf-None-Match: \"x\", W/\"a,b\"");
    let lines = edit(&weak, answer).lines;
    assert_eq!(lines, "Vary: Accept-Encoding\nETag: W/\"a,b\"\n");
    let strong = format!("{GET}\nIf-None-Match: \"a,b\"");
    assert_eq!(edit(&strong, answer).lines, "ETag: \"a,b\"\n");
}

/// A body with repetitions.
fn body(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..50)
        .map(|_| {
            (0..rng.usize(1..12))
                .map(|_| rng.alphanumeric() as u8)
                .collect()
        })
        .collect();
    let mut body = Vec::new();
    while body.len() < len {
        match rng.u8(..20) {
            0 => body.extend((0..rng.usize(..300)).map(|_| rng.u8(..))),
            _ => body.extend_from_slice(&words[rng.usize(..50)]),
        }
    }
    body.truncate(len);
    body
}

fn chain(coding: Coding, level: u8, coders: &Rc<CoderPool>) -> Box<Chain> {
    let mut filters = Filters::default();
    filters.add(Filter::Compress(Box::new(Compressor::new(
        coding,
        level,
        coders.clone(),
    ))));
    filters.into_chain().unwrap()
}

/// Decodes as far as the bytes go.
fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut decoder: Box<dyn Read> = match coding {
        Coding::Zstd => Box::new(zstd::Decoder::new(bytes).unwrap()),
        Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
    };
    let (mut whole, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = decoder.read(&mut buffer) {
        whole.extend_from_slice(&buffer[..read]);
    }
    whole
}

const ALL: [(Coding, [u8; 3]); 3] = [
    (Coding::Zstd, [1, 3, 12]),
    (Coding::Brotli, [1, 4, 6]),
    (Coding::Gzip, [1, 5, 9]),
];

#[test]
fn any_body_in_any_pieces_decodes_to_itself() {
    let mut rng = fastrand::Rng::with_seed(11);
    let coders = Rc::default();
    let pool = Pool::new();
    for round in 0..60 {
        let (coding, levels) = ALL[round % 3];
        let level = levels[round / 3 % 3];
        let lengths = [
            0,
            1,
            100,
            4_096,
            8_192,
            16_384,
            70_000,
            rng.usize(..300_000),
        ];
        let length = lengths[rng.usize(..lengths.len())];
        let body = body(&mut rng, length);
        let is_known = rng.bool();
        let before = pool.taken_bytes();
        let mut chain = chain(coding, level, &coders);
        let kind = match is_known {
            true => BodyKind::Length(body.len() as u64),
            false => BodyKind::Chunked,
        };
        let framed = chain.head(&Head::with_status(200), &mut Edits::new(), kind);
        assert_eq!(framed, Framed::Now(BodyKind::Chunked));
        let (mut rest, mut coded, mut turns) = (&body[..], Vec::new(), 0);
        let mut taken_in_turn = 0;
        loop {
            let unread = chain.unread_bytes();
            let part = chain.pull(&pool).unwrap();
            taken_in_turn += unread - chain.unread_bytes();
            assert!(taken_in_turn <= turn_bytes_max(coding, level));
            match part {
                Some(Part::Data(data)) => {
                    assert!(!data.is_empty());
                    coded.extend_from_slice(&data);
                }
                Some(Part::End) => break,
                Some(Part::Head) => panic!("the head has left"),
                None if chain.has_work() => {
                    turns += 1;
                    taken_in_turn = 0;
                    chain.renew_budget();
                }
                None if rest.is_empty() => chain.end(&Default::default()),
                None => {
                    let cut = match rng.u8(..3) {
                        0 => rng.usize(1..40),
                        1 => rng.usize(1..5_000),
                        _ => rng.usize(1..65_000),
                    };
                    let (piece, more) = rest.split_at(cut.min(rest.len()));
                    chain.push(pool.copy(piece));
                    rest = more;
                    if rng.u8(..4) == 0 {
                        chain.flush();
                    }
                }
            }
        }
        assert!(
            decode(coding, &coded) == body,
            "{coding:?} {level}, round {round}"
        );
        // One step is about one budget.
        let steps = body.len() / coding.step_bytes(level);
        assert!(
            turns >= steps / 2,
            "{turns} turns for {steps} steps of {coding:?} {level}"
        );
        drop(chain);
        coders.clear();
        assert_eq!(pool.taken_bytes(), before, "bytes are still charged");
    }
}

/// The most bytes that a turn may code: less than the budget, and then one step.
fn turn_bytes_max(coding: Coding, level: u8) -> usize {
    let budget = FILTER_BUDGET_US as usize * 1_000 / coding.byte_ns(level);
    coding.step_bytes(level) + budget
}

#[test]
fn a_turn_is_bounded_for_each_level() {
    for (coding, levels) in [
        (Coding::Zstd, 1..=12),
        (Coding::Brotli, 0..=6),
        (Coding::Gzip, 1..=9),
    ] {
        for level in levels {
            let step_us = coding.cost_us(level, coding.step_bytes(level));
            assert!(step_us <= 125, "{step_us} us a step of {coding:?} {level}");
        }
    }
}

#[test]
fn a_body_ends_with_its_last_byte_if_its_length_is_known() {
    for (coding, levels) in ALL {
        let (coders, pool) = (Rc::default(), Pool::new());
        let mut chain = chain(coding, levels[1], &coders);
        let head = Head::with_status(200);
        chain.head(&head, &mut Edits::new(), BodyKind::Length(3_000));
        chain.push(pool.copy(&[b'a'; 3_000]));
        let mut coded = Vec::new();
        chain.renew_budget();
        while let Some(part) = chain.pull(&pool).unwrap() {
            let Part::Data(data) = part else {
                panic!("{part:?} before the end");
            };
            coded.extend_from_slice(&data);
        }
        assert!(!chain.has_work() && decode(coding, &coded).len() == 3_000);
        chain.end(&Default::default());
        assert!(matches!(chain.pull(&pool), Ok(Some(Part::End))));
    }
}

#[test]
fn what_came_before_a_pause_can_be_decoded() {
    for (coding, levels) in ALL {
        for level in levels {
            let (coders, pool) = (Rc::default(), Pool::new());
            let mut chain = chain(coding, level, &coders);
            chain.head(
                &Head::with_status(200),
                &mut Edits::new(),
                BodyKind::Chunked,
            );
            let (mut coded, mut sent) = (Vec::new(), Vec::new());
            for event in 0..50 {
                let event = format!("data: {event}\n\n").repeat(event * event % 90 + 1);
                sent.extend_from_slice(event.as_bytes());
                chain.push(pool.copy(event.as_bytes()));
                assert!(chain.flush());
                while chain.has_work() {
                    chain.renew_budget();
                    while let Some(part) = chain.pull(&pool).unwrap() {
                        let Part::Data(data) = part else {
                            panic!("{part:?}");
                        };
                        coded.extend_from_slice(&data);
                    }
                }
                assert!(decode(coding, &coded) == sent, "{coding:?} {level}");
            }
        }
    }
}

#[test]
fn a_coder_takes_no_more_memory_than_is_charged_for_it() {
    for (coding, levels) in ALL {
        for level in levels {
            let (coders, pool) = (Rc::default(), Pool::new());
            let mut chain = chain(coding, level, &coders);
            chain.head(
                &Head::with_status(200),
                &mut Edits::new(),
                BodyKind::Chunked,
            );
            chain.push(pool.copy(&[b'a'; 100]));
            let before = pool.taken_bytes();
            chain.flush();
            chain.renew_budget();
            chain.pull(&pool).unwrap();
            let charged = coder::state_bytes(coding, level, None);
            assert!(pool.taken_bytes() + 32 * 1024 >= before + charged);
            assert!(chain.held() >= charged);
            assert!(charged < 5_000_000, "{coding:?} {level}");
        }
    }
}
