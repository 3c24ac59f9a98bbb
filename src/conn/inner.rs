//! The client's side of a sub-request: the request comes from memory, and its answer stays there.

use weir_proto_h1::{BodyKind, FieldId, Framing, Head, Method, Request, Trailers, Version};

use crate::fault::{Fault, Phase, Reason};
use crate::io::{Charge, Chunk, Pool};
use crate::limits::{CALL_FIELD_BYTES, UNREAD_BYTES_MAX};
use crate::policy::{AnswerBody, CallAnswer};

/// A request of Weir's own and the answer so far.
pub struct InnerStream {
    request: Request,
    pieces: std::vec::IntoIter<Chunk>,
    trailers: Trailers,
    answer: CallAnswer,
    body: AnswerBody,
    body_bytes_max: usize,
    /// Bytes of the answer that Weir has dropped.
    dropped: usize,
    /// Bytes of memory that the answer takes.
    held: usize,
    has_enough: bool,
    pool: Pool,
    charge: Option<Charge>,
}

impl InnerStream {
    /// Begins a request with this method and no body. `body` and `body_bytes_max` say how much of the answer to keep.
    pub fn new(method: Method, (body, body_bytes_max): (AnswerBody, usize), pool: &Pool) -> Self {
        Self {
            request: Request {
                method,
                version: Version::Http11,
                //= rfc9110#8.6
                // A request without a body says so if its method usually has one.
                body: match method {
                    Method::Post | Method::Put | Method::Patch => BodyKind::Length(0),
                    _ => BodyKind::None,
                },
                keeps_alive: true,
                ..Request::default()
            },
            pieces: Vec::new().into_iter(),
            trailers: Trailers::default(),
            answer: CallAnswer::default(),
            body,
            body_bytes_max,
            dropped: 0,
            held: 0,
            has_enough: false,
            pool: pool.clone(),
            charge: None,
        }
    }

    /// Gives the request a body of these pieces, in place of none.
    pub fn set_body(&mut self, kind: BodyKind, pieces: Vec<Chunk>, accepts_trailers: bool) {
        if kind != BodyKind::None {
            self.request.body = kind;
        }
        self.request.accepts_trailers = accepts_trailers;
        self.pieces = pieces.into_iter();
    }

    /// The next piece of the request's body; `None` at its end.
    pub fn next_piece(&mut self) -> Option<Chunk> {
        self.pieces.next()
    }

    /// What the request's head says about this hop.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The request's trailers: none.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Whether the final answer has begun.
    pub fn is_answered(&self) -> bool {
        self.answer.status != 0
    }

    /// Bytes of memory that the answer takes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The answer, if its head arrived. `failure` says why its body did not, if so.
    pub fn into_answer(mut self, failure: Option<Reason>) -> Option<CallAnswer> {
        self.answer.cut_by = failure.filter(|_| !self.has_enough && self.collects());
        self.is_answered().then_some(self.answer)
    }

    /// Takes the head of the answer. Fields of framing and connection stay out.
    ///
    /// # Errors
    /// [`Reason::CallTooLarge`]: the body is larger than the caller collects.
    pub fn respond(&mut self, head: &Head, block: &[u8], body: BodyKind) -> Result<Framing, Fault> {
        self.answer.status = head.status;
        if self.body == AnswerBody::Discarded {
            return Ok(Framing {
                body,
                ..Framing::default()
            });
        }
        let is_framing = |id| matches!(id, FieldId::ContentLength | FieldId::TransferEncoding);
        let kept = head.iter().filter(|field| !is_framing(field.id));
        for field in kept {
            let (name, value) = (field.name.get(block), field.value.get(block));
            self.held += name.len() + value.len() + CALL_FIELD_BYTES;
            self.answer.fields.push((name.into(), value.into()));
        }
        if let BodyKind::Length(length) = body
            && self.collects()
        {
            self.check_length(usize::try_from(length).unwrap_or(usize::MAX))?;
        }
        self.count();
        Ok(Framing {
            body,
            ..Framing::default()
        })
    }

    /// Takes a piece of the answer's body.
    ///
    /// # Errors
    /// [`Reason::CallTooLarge`]: the body is larger than the caller collects, or the caller has enough.
    pub fn send_data(&mut self, data: &Chunk) -> Result<(), Fault> {
        if self.body == AnswerBody::Discarded {
            return Ok(());
        }
        if !self.collects() {
            self.dropped += data.len();
            self.has_enough = self.dropped > UNREAD_BYTES_MAX;
            return if self.has_enough { too_large() } else { Ok(()) };
        }
        self.check_length(self.answer.body.len() + data.len())?;
        self.answer.body.extend_from_slice(data);
        self.held += data.len();
        self.count();
        Ok(())
    }

    fn collects(&self) -> bool {
        match self.body {
            AnswerBody::Dropped | AnswerBody::Discarded => false,
            AnswerBody::OfRefusals => !matches!(self.answer.status, 200..=299),
            AnswerBody::Collected => true,
        }
    }

    fn check_length(&self, length: usize) -> Result<(), Fault> {
        match length <= self.body_bytes_max {
            true => Ok(()),
            false => too_large(),
        }
    }

    /// Counts the answer as memory of the core.
    fn count(&mut self) {
        self.charge = Some(self.pool.charge(self.held));
    }
}

fn too_large() -> Result<(), Fault> {
    Err(Fault::local(Phase::Body, Reason::CallTooLarge))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(body: AnswerBody, pool: &Pool) -> InnerStream {
        InnerStream::new(Method::Get, (body, 10), pool)
    }

    fn head(status: u16) -> Head {
        Head::with_status(status)
    }

    #[test]
    fn an_answer_is_collected_up_to_its_limit() {
        let pool = Pool::new();
        let mut stream = stream(AnswerBody::Collected, &pool);
        assert!(!stream.is_answered());
        stream
            .respond(&head(200), b"", BodyKind::Length(10))
            .unwrap();
        stream.send_data(&pool.copy(b"01234")).unwrap();
        stream.send_data(&pool.copy(b"56789")).unwrap();
        assert_eq!(pool.taken_bytes(), 10, "the core's memory has the answer");
        let fault = stream.send_data(&pool.copy(b"x")).unwrap_err();
        assert_eq!(fault.reason, Reason::CallTooLarge);
        let answer = stream.into_answer(Some(fault.reason)).unwrap();
        assert_eq!(answer.body, b"0123456789");
        assert_eq!(answer.cut_by, Some(Reason::CallTooLarge));
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn an_answer_that_announces_too_much_fails_at_once() {
        let pool = Pool::new();
        let mut stream = stream(AnswerBody::OfRefusals, &pool);
        let refused = stream.respond(&head(403), b"", BodyKind::Length(11));
        assert_eq!(refused.unwrap_err().reason, Reason::CallTooLarge);
        let answer = stream.into_answer(Some(Reason::CallTooLarge)).unwrap();
        assert_eq!(
            (answer.status, answer.cut_by),
            (403, Some(Reason::CallTooLarge))
        );
    }

    #[test]
    fn a_body_that_nobody_needs_is_dropped_and_cut_if_long() {
        let pool = Pool::new();
        for body in [AnswerBody::Dropped, AnswerBody::OfRefusals] {
            let mut stream = stream(body, &pool);
            assert_eq!(
                InnerStream::new(Method::Get, (body, 0), &pool).into_answer(None),
                None
            );
            let length = BodyKind::Length(1 << 40);
            stream.respond(&head(204), b"", length).unwrap();
            let piece = pool.copy(&[0; 16 * 1024]);
            let mut pieces = 0;
            while stream.send_data(&piece).is_ok() {
                pieces += 1;
            }
            assert_eq!(pieces, UNREAD_BYTES_MAX / piece.len());
            let answer = stream.into_answer(Some(Reason::CallTooLarge)).unwrap();
            assert_eq!((answer.body.len(), answer.cut_by), (0, None));
        }
    }
}
