//! Unary gRPC calls through a simulated core, HTTP/2 in the clear on both sides, one connection each.
//!
//! A call is a head and one DATA frame, the answer a head, one DATA frame and trailers. A batch of calls comes in one
//! read, and all their answers go out in one write, as under load. As for other exchanges, a bare relay is the base.

use weir::io::sim::{Peer, Sim, World};
use weir_proto_h2::hpack::PseudoField;

use crate::Case;
use crate::exchange::{ENDPOINT, ROUTES, over_one_connection, recv, relay, start_core};
use crate::http2::{DATA, END_HEADERS, END_STREAM, Fields, FrameSource, HEADERS, frame};
use crate::routing::{compile_for, endpoints};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "exchange-grpc",
        run: |times| calls(1, proxy, times),
        base: Some("relay-grpc"),
    },
    Case {
        name: "relay-grpc",
        run: |times| calls(1, relay, times),
        base: None,
    },
    Case {
        name: "exchange-grpc-by-ten",
        run: |times| calls(10, proxy, times),
        base: Some("relay-grpc-by-ten"),
    },
    Case {
        name: "relay-grpc-by-ten",
        run: |times| calls(10, relay, times),
        base: None,
    },
];

const PSEUDO_FIELDS: &[(PseudoField, &str)] = &[
    (PseudoField::Method, "POST"),
    (PseudoField::Scheme, "http"),
    (PseudoField::Authority, "shop.example.com"),
    (PseudoField::Path, "/shop.Orders/Get"),
];
const FIELDS: Fields = &[
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "grpc-go/1.60.0"),
];
const ANSWER_FIELDS: Fields = &[("content-type", "application/grpc")];
const TRAILERS: Fields = &[("grpc-status", "0"), ("grpc-message", "")];

/// A message of 100 bytes with its prefix.
const MESSAGE: &[u8] = &{
    let mut message = [b'x'; 105];
    message[0] = 0;
    message[1] = 0;
    message[2] = 0;
    message[3] = 0;
    message[4] = 100;
    message
};

fn proxy(world: &World) {
    let server = format!("h2c://{ENDPOINT}");
    start_core(
        world,
        compile_for(&server, ROUTES),
        endpoints(&server, ROUTES),
    );
}

/// Makes `times` calls over one connection, `batch` of them at once.
fn calls(batch: u64, start: fn(&World), times: u64) {
    over_one_connection(start, serve, async move |mut peer| {
        let mut source = FrameSource::new(PSEUDO_FIELDS, FIELDS, END_HEADERS);
        let (mut out, mut answers) = (Vec::new(), Frames::default());
        source.first(&mut out);
        for _ in 0..times.div_ceil(batch) {
            for _ in 0..batch {
                let stream = source.stream;
                source.head(&mut out);
                frame(&mut out, DATA, END_STREAM, stream, MESSAGE);
            }
            peer.send(&out).await.expect("the connection stays open");
            out.clear();
            let mut ended = 0;
            while ended < batch {
                let read = recv(&mut peer).await.expect("answers");
                answers.each(&read, |_, flags, _| {
                    ended += u64::from(flags & END_STREAM != 0);
                });
            }
        }
    });
}

/// Answers every call whose end has come.
async fn serve(mut peer: Peer<Sim>) {
    let status = &[(PseudoField::Status, "200")];
    let mut heads = FrameSource::new(status, ANSWER_FIELDS, END_HEADERS);
    let mut trailers = FrameSource::new(&[], TRAILERS, END_HEADERS | END_STREAM);
    let (mut calls, mut out, mut preface) = (Frames::default(), Vec::new(), 24);
    heads.first(&mut out);
    while let Some(read) = recv(&mut peer).await {
        let skipped = read.len().min(preface);
        preface -= skipped;
        calls.each(&read[skipped..], |kind, flags, stream| {
            if kind == DATA && flags & END_STREAM != 0 {
                heads.head_of(stream, &mut out);
                frame(&mut out, DATA, 0, stream, MESSAGE);
                trailers.head_of(stream, &mut out);
            }
        });
        if !out.is_empty() && peer.send(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

/// The frames in a row of reads.
#[derive(Default)]
struct Frames {
    /// A frame whose end has not come.
    rest: Vec<u8>,
}

impl Frames {
    /// Calls `seen` with the kind, the flags and the stream of each whole frame on a stream.
    fn each(&mut self, read: &[u8], mut seen: impl FnMut(u8, u8, u32)) {
        let joined;
        let mut bytes = match self.rest.is_empty() {
            true => read,
            false => {
                self.rest.extend_from_slice(read);
                joined = std::mem::take(&mut self.rest);
                &joined
            }
        };
        while let [a, b, c, kind, flags, w, x, y, z, payload @ ..] = bytes {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some(after) = payload.get(len..) else {
                break;
            };
            let stream = u32::from_be_bytes([*w, *x, *y, *z]);
            if stream != 0 && matches!(*kind, DATA | HEADERS) {
                seen(*kind, *flags, stream);
            }
            bytes = after;
        }
        self.rest.extend_from_slice(bytes);
    }
}
