//! The answer to a request that the authorization server refuses.

use weir_proto_h1::{FieldId, Version};

use crate::policy::{CallAnswer, Facts, StepReply, StepRequest};

/// The client's answer: the server's own. A gRPC client gets the same in its own words, because gRPC has no other
/// statuses.
pub(super) fn reply(request: &StepRequest<'_>, facts: &Facts, answer: CallAnswer) -> StepReply {
    let is_call = facts.is_grpc_call && request.head.version == Version::Http2;
    let speaks_grpc = answer
        .values(b"Content-Type")
        .next()
        .is_some_and(|media| media.starts_with(b"application/grpc"));
    if is_call && !speaks_grpc {
        return grpc_reply(answer);
    }
    StepReply {
        reason: None,
        status: answer.status,
        fields: client_fields(answer.fields, |_| true),
        body: answer.body,
    }
}

/// A refusal as gRPC clients read it: a status in a head that ends the answer.
fn grpc_reply(answer: CallAnswer) -> StepReply {
    let (code, text) = grpc_status(answer.status);
    let describes_body = |id| {
        matches!(
            id,
            FieldId::ContentType
                | FieldId::ContentEncoding
                | FieldId::ContentLanguage
                | FieldId::ContentLocation
                | FieldId::ContentRange
                | FieldId::AcceptRanges
                | FieldId::Etag
                | FieldId::LastModified
                | FieldId::Location
        )
    };
    let reply = StepReply {
        reason: None,
        status: 200,
        fields: client_fields(answer.fields, |id| !describes_body(id)),
        body: Vec::new(),
    };
    reply
        .with_field("Content-Type", "application/grpc")
        .with_field("grpc-status", code)
        .with_field("grpc-message", text)
}

/// The status of a call that the server refused with this HTTP status: gRPC's own mapping, in which a redirect to a
/// login page asks for credentials too.
fn grpc_status(status: u16) -> (&'static str, &'static str) {
    match status {
        300..=399 | 401 => ("16", "authorization server asks for credentials"),
        403 => ("7", "authorization server denied the call"),
        404 => ("12", "authorization server answered 404"),
        429 => ("14", "authorization server answered 429"),
        _ => ("2", "authorization server refused the call"),
    }
}

/// The fields that the client gets. Weir writes the date and the request's id itself.
fn client_fields(
    fields: Vec<(Box<[u8]>, Vec<u8>)>,
    passes: impl Fn(FieldId) -> bool,
) -> Vec<(Box<str>, Vec<u8>)> {
    let is_weirs_own = |id| {
        matches!(
            id,
            FieldId::Date | FieldId::XRequestId | FieldId::Trailer | FieldId::KeepAlive
        )
    };
    let kept = fields.into_iter().filter_map(|(name, value)| {
        let id = FieldId::from_name(&name);
        let name = String::from_utf8(name.into()).ok()?;
        (passes(id) && !is_weirs_own(id)).then(|| (name.into(), value))
    });
    kept.collect()
}
