//! Compresses answers for clients that accept it.
//!
//! [`Rules::edit_answer`] decides by the heads of request and answer, and edits the answer's head. The [`Compressor`] is
//! the filter that then changes the body.

mod accept;
mod coder;
mod coder_pool;
mod compressor;
mod media_types;

use std::rc::Rc;

use weir_config::{Compress, ContentCoding};
use weir_proto_h1::{BodyKind, FieldId, Head, Method};

pub use accept::choose;
pub use coder_pool::CoderPool;
pub use compressor::Compressor;
use media_types::MediaTypes;

use super::filter::Filter;
use super::vary::add_vary;
use super::{AnswerView, Facts, StepRequest, Verdict};

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Brotli,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl Coding {
    /// The name in Accept-Encoding and Content-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// What a byte of input costs, in nanoseconds. Measured on text and JSON, rounded up.
    fn byte_ns(self, level: u8) -> usize {
        match (self, level) {
            (Self::Zstd, 0..=3) => 5,
            (Self::Zstd, 4..=6) => 11,
            (Self::Zstd, 7..=9) => 15,
            (Self::Zstd, _) => 24,
            (Self::Brotli, 0..=2) => 11,
            (Self::Brotli, 3..=4) => 17,
            (Self::Brotli, _) => 28,
            (Self::Gzip, 0..=2) => 5,
            (Self::Gzip, 3..=6) => 13,
            (Self::Gzip, _) => 22,
        }
    }

    /// How many bytes the coder takes in one step: 50 to 120 us of work.
    fn step_bytes(self, level: u8) -> usize {
        match (self, level) {
            (Self::Zstd, 0..=6) | (Self::Brotli, 0..=2) => 8 * 1024,
            (Self::Zstd | Self::Brotli | Self::Gzip, _) => 4 * 1024,
        }
    }

    /// What a step of this many bytes costs, in microseconds.
    fn cost_us(self, level: u8, bytes: usize) -> u32 {
        (STEP_US + bytes * self.byte_ns(level) / 1_000) as u32
    }

    /// Whether the coder works on each byte when it gets it.
    fn works_as_it_goes(self) -> bool {
        self == Self::Gzip
    }
}

/// What a step costs apart from its bytes, in microseconds.
const STEP_US: usize = 10;

/// What `compress` of a route says.
#[derive(Debug)]
pub struct Rules {
    /// The codings in order of preference, each with its level.
    codings: Box<[(Coding, u8)]>,
    types: MediaTypes,
    /// Shorter answers stay as they are.
    bytes_min: u64,
}

impl Rules {
    /// Compiles the configuration.
    #[must_use]
    pub fn new(config: &Compress) -> Self {
        let coding = |&(coding, level): &(ContentCoding, u8)| {
            let coding = match coding {
                ContentCoding::Zstd => Coding::Zstd,
                ContentCoding::Br => Coding::Brotli,
                ContentCoding::Gzip => Coding::Gzip,
            };
            (coding, level)
        };
        Self {
            codings: config.algorithms.iter().map(coding).collect(),
            types: MediaTypes::new(config.types.iter().map(|text| &**text)),
            bytes_min: config.bytes_min,
        }
    }

    /// Compresses an answer if its kind, its fields and the client allow it. Says in Vary that the answer depends on
    /// what the client accepts, also where this client accepts no coding.
    pub fn edit_answer(
        &self,
        coders: Option<&Rc<CoderPool>>,
        request: &StepRequest<'_>,
        facts: &Facts,
        answer: &mut AnswerView<'_>,
    ) {
        if facts.is_grpc_call || request.hop.upgrade.is_some() {
            return;
        }
        let chosen = self.choose(request.head, request.block);
        if answer.head.status == 304 {
            return self.edit_not_modified(request, answer);
        }
        if !self.may_compress(request, answer) {
            return;
        }
        add_vary(answer, "Accept-Encoding");
        if answer.filters.is_memory_short() {
            if let Some(coders) = coders {
                coders.clear();
            }
            return;
        }
        let Some((coding, level)) = chosen else {
            return;
        };
        answer.edits.append("Content-Encoding", coding.name());
        //= rfc9110#14.3
        // Ranges would be those of the compressed answer, which the endpoint cannot serve.
        answer.edits.remove("Accept-Ranges");
        weaken_etag(answer);
        let compressor = Compressor::new(coding, level, coders.cloned().unwrap_or_default());
        answer.filters.add(Filter::Compress(Box::new(compressor)));
    }

    /// The coding for a client, with its level.
    fn choose(&self, head: &Head, block: &[u8]) -> Option<(Coding, u8)> {
        if has_element(head, block, FieldId::CacheControl, b"no-transform") {
            return None;
        }
        let accepted = head.elements(FieldId::AcceptEncoding, block);
        let offered = self.codings.iter().map(|&(coding, _)| coding);
        let chosen = choose(accepted, offered)?;
        self.codings
            .iter()
            .copied()
            .find(|&(coding, _)| coding == chosen)
    }

    /// Whether Weir would compress this answer for a client that accepts it.
    fn may_compress(&self, request: &StepRequest<'_>, answer: &AnswerView<'_>) -> bool {
        let is_head = request.hop.method == Method::Head;
        let has_content = !matches!(answer.head.status, 100..=199 | 204..=206)
            && (answer.body != BodyKind::None || is_head);
        if !has_content {
            return false;
        }
        let is_long = match length(answer) {
            Some(length) => length >= self.bytes_min,
            // A stream may become long, and its head cannot wait until that is known.
            None => true,
        };
        let content_type = field(answer, FieldId::ContentType, "Content-Type");
        is_long
            && content_type.is_some_and(|value| self.types.contain(value))
            && field(answer, FieldId::ContentEncoding, "Content-Encoding").is_none()
            && field(answer, FieldId::ContentRange, "Content-Range").is_none()
            //= rfc9111#5.2.2.6
            // An intermediary must not transform the content.
            && !says(answer, FieldId::CacheControl, "Cache-Control", b"no-transform")
            && !has_digest(answer)
    }

    /// Says of an answer without content what the answer with content said, so that caches find what they have stored:
    /// if the client has the weak entity tag that Weir made, the tag is weak again.
    fn edit_not_modified(&self, request: &StepRequest<'_>, answer: &mut AnswerView<'_>) {
        let Some(tag) = field(answer, FieldId::Etag, "ETag") else {
            return;
        };
        let weak = [b"W/", tag].concat();
        let mut known = request.head.all(FieldId::IfNoneMatch);
        let has_weak = known.any(|field| {
            let value = field.value.get(request.block);
            memchr::memmem::find(value, &weak).is_some()
        });
        if tag.starts_with(b"\"") && has_weak {
            add_vary(answer, "Accept-Encoding");
            weaken_etag(answer);
        }
    }

    /// Says what would become of an answer, as far as the request tells.
    #[must_use]
    pub fn explain(&self, request: &StepRequest<'_>, facts: &Facts) -> Verdict {
        if facts.is_grpc_call {
            return Verdict::Passes("does nothing for gRPC".into());
        }
        if request.hop.upgrade.is_some() {
            return Verdict::Passes("does nothing after an upgrade".into());
        }
        Verdict::Does(match self.choose(request.head, request.block) {
            Some((coding, level)) => {
                let name = coding.name();
                format!(
                    "uses {name}, level {level}, if the answer is long enough and of a listed type"
                )
            }
            None => {
                let names = self.codings.iter().map(|(coding, _)| coding.name());
                let names = names.collect::<Vec<_>>().join(", ");
                format!("does nothing: the client accepts none of {names}")
            }
        })
    }
}

/// The first field of a name that the client will get.
fn field<'v>(answer: &'v AnswerView<'_>, id: FieldId, name: &str) -> Option<&'v [u8]> {
    fields(answer, id, name).next()
}

/// All fields of a name that the client will get.
fn fields<'v>(
    answer: &'v AnswerView<'_>,
    id: FieldId,
    name: &str,
) -> impl Iterator<Item = &'v [u8]> {
    let is_removed = answer.edits.removed().has(id);
    let received = answer.head.all(id).filter(move |_| !is_removed);
    let added =
        (answer.edits.iter()).filter(move |(added, _)| added.eq_ignore_ascii_case(name.as_bytes()));
    received
        .map(|field| field.value.get(answer.block))
        .chain(added.map(|(_, value)| value))
}

/// Whether the list in fields of a name has an element, in any case.
fn says(answer: &AnswerView<'_>, id: FieldId, name: &str, element: &[u8]) -> bool {
    fields(answer, id, name).any(|value| list_has(value, element))
}

fn has_element(head: &Head, block: &[u8], id: FieldId, element: &[u8]) -> bool {
    head.all(id)
        .any(|field| list_has(field.value.get(block), element))
}

fn list_has(list: &[u8], element: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .any(|each| each.trim_ascii().eq_ignore_ascii_case(element))
}

/// How long the content is, or would be for GET; `None` if that is not known.
fn length(answer: &AnswerView<'_>) -> Option<u64> {
    match answer.body {
        BodyKind::Length(length) => Some(length),
        BodyKind::None => {
            let value = field(answer, FieldId::ContentLength, "Content-Length")?;
            std::str::from_utf8(value).ok()?.trim().parse().ok()
        }
        BodyKind::Chunked | BodyKind::UntilClose => None,
    }
}

/// Whether the answer has, or announces as a trailer, a digest of its content.
//= rfc9530#2
// A digest holds for the content with its codings. A server that sends one wants the content to arrive as it is.
fn has_digest(answer: &AnswerView<'_>) -> bool {
    let is_digest = |name: &[u8]| DIGESTS.iter().any(|known| name.eq_ignore_ascii_case(known));
    let mut received = answer.head.iter();
    received.any(|field| field.id == FieldId::Other && is_digest(field.name.get(answer.block)))
        || answer.edits.iter().any(|(name, _)| is_digest(name))
        || DIGESTS
            .iter()
            .any(|name| says(answer, FieldId::Trailer, "Trailer", name))
}

const DIGESTS: [&[u8]; 4] = [b"Content-Digest", b"Repr-Digest", b"Digest", b"Content-MD5"];

/// Makes a strong entity tag weak.
//= rfc9110#8.8.3.3
// Two codings of one content may not have the same strong tag.
fn weaken_etag(answer: &mut AnswerView<'_>) {
    let tag = field(answer, FieldId::Etag, "ETag");
    if let Some(tag) = tag.filter(|tag| tag.starts_with(b"\"")) {
        let weak = [b"W/", tag].concat();
        answer.edits.remove("ETag");
        answer.edits.append("ETag", weak);
    }
}

#[cfg(test)]
mod tests;
