//! `forward_auth`: asks another server whether a request may pass.
//!
//! Weir describes the request to an authorization server in the fields that Traefik, nginx and Caddy send too. A status
//! of 2xx lets the request pass. Any other answer goes to the client as it is, so that the server can redirect the
//! client to a login page or ask for credentials. `config/policies.md` has the rules.

mod refusal;
mod verdicts;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_config::{Config, OnAuthError};
use weir_proto_h1::{Edits, Field, FieldId, is_other_spelling};

pub use verdicts::{AuthNotes, Verdicts};

use super::{
    AnswerBody, AnswerView, Call, CallAnswer, CallRequest, Facts, Flow, StepRequest, Verdict, Wait,
    Woken,
};
use crate::fault::Reason;
use crate::ids::UpstreamId;
use crate::limits::AUTH_BODY_BYTES_MAX;
use verdicts::{Approval, Fields};

/// The settings of `forward_auth` on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    /// The upstream that Weir asks.
    upstream: UpstreamId,
    /// The name of that upstream.
    upstream_name: Arc<str>,
    /// The host that the server gets: that of its URL, or the one that the file sets for the upstream; else the client's.
    authority: Option<Box<str>>,
    method: Box<str>,
    /// The path, and the query if there is one.
    target: Box<str>,
    /// The client's fields that the server gets; `None` for all.
    request_fields: Option<Box<[Box<str>]>>,
    /// Fields of the server's answer that endpoints get.
    copy_to_request: Box<[Box<str>]>,
    /// Fields of the server's answer that the client gets.
    copy_to_response: Box<[Box<str>]>,
    timeout: Duration,
    /// Whether requests pass while the server fails.
    allows_on_error: bool,
    /// How long Weir keeps a verdict.
    cache: Option<Duration>,
}

impl ForwardAuth {
    /// Compiles the settings of a route.
    ///
    /// # Errors
    /// The upstream is not in `config`.
    pub(super) fn compile(
        config: &Config,
        from: &weir_config::ForwardAuth,
    ) -> Result<Self, String> {
        let known = config.upstreams.get(from.upstream);
        let id = u32::try_from(from.upstream).ok();
        let (Some(upstream), Some(id)) = (known, id) else {
            return Err(format!("there is no upstream number {}", from.upstream));
        };
        let host = from.authority.as_deref().or(upstream.host.as_deref());
        let names = |names: &Vec<String>| names.iter().map(|name| name.as_str().into()).collect();
        Ok(Self {
            upstream: UpstreamId(id),
            upstream_name: upstream.name.as_str().into(),
            authority: host.map(Into::into),
            method: from.method.as_str().into(),
            target: from.target.as_str().into(),
            request_fields: from.request_headers.as_ref().map(names),
            copy_to_request: names(&from.copy_to_request),
            copy_to_response: names(&from.copy_to_response),
            timeout: from.timeout,
            allows_on_error: from.on_error == OnAuthError::Allow,
            cache: from.cache,
        })
    }

    /// Whether the step keeps verdicts.
    pub(super) fn keeps_verdicts(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether a verdict for one is a verdict for the other: all settings are equal. The upstream may have another
    /// place in another plan.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        let upstream = self.upstream;
        let other = Self {
            upstream,
            ..other.clone()
        };
        *self == other
    }

    /// Asks the server, unless the core still has its verdict about an equal request.
    pub fn run(
        &self,
        verdicts: Option<&Verdicts>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
    ) -> Flow {
        let Some(verdicts) = verdicts else {
            let mut asked = CallRequest::default();
            self.describe(request, facts, &mut asked);
            return self.ask(asked);
        };
        let mut asked = verdicts.take_scratch();
        self.describe(request, facts, &mut asked);
        if let Some(approval) = verdicts.find(asked.block(), request.now) {
            verdicts.return_scratch(asked);
            if !approval.is_empty() {
                let notes = facts.notes.get_or_insert_default();
                notes.auth.approval = Some(approval);
            }
            return Flow::Next;
        }
        let notes = facts.notes.get_or_insert_default();
        notes.auth.key = Some(asked.block().into());
        self.ask(asked)
    }

    /// Goes on with the server's answer.
    pub fn resume(
        &self,
        verdicts: Option<&Verdicts>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
        woken: Woken,
    ) -> Flow {
        match woken {
            Woken::Answered(answer) => self.judge(verdicts, request, facts, *answer),
            Woken::CallFailed(reason) if is_of_weir(reason) => Flow::refuse(reason),
            Woken::CallFailed(reason) => self.go_without_verdict(is_of_server(reason)),
            _ => Flow::refuse(Reason::Internal),
        }
    }

    /// Whether only the server may set the field, in headers and in trailers.
    pub fn sets_field(&self, name: &[u8]) -> bool {
        let mut copied = self.copy_to_request.iter();
        copied.any(|copied| {
            is_alike(name, copied.as_bytes()) || is_other_spelling(name, copied.as_bytes())
        })
    }

    /// Takes the client's own fields off that only the server may set, and adds the server's.
    pub fn edit_request(&self, request: &StepRequest<'_>, facts: &Facts, edits: &mut Edits) {
        for name in &self.copy_to_request {
            edits.remove(name.as_bytes());
        }
        if request.head.has_odd_names() {
            self.remove_other_spellings(request, edits);
        }
        if let Some(approval) = approval(facts) {
            let fields = &approval.to_request;
            fields
                .iter()
                .for_each(|(name, value)| edits.append(name, value));
        }
    }

    /// Adds the server's fields to the answer. They replace fields of the same names, except cookies.
    pub fn edit_answer(&self, facts: &Facts, answer: &mut AnswerView<'_>) {
        let Some(approval) = approval(facts) else {
            return;
        };
        for (name, _) in &approval.to_response {
            if FieldId::from_name(name) != FieldId::SetCookie {
                answer.edits.remove(name);
            }
        }
        for (name, value) in &approval.to_response {
            answer.edits.append(name, value);
        }
    }

    /// Says what the step would ask, and what follows.
    pub fn explain(&self) -> Verdict {
        let mut text = format!(
            "asks {} ({} {})",
            self.upstream_name, self.method, self.target
        );
        let copies = [
            (&self.copy_to_request, "endpoints get"),
            (&self.copy_to_response, "the client gets"),
        ];
        for (names, who_gets) in copies {
            if !names.is_empty() {
                text.push_str(&format!("; {who_gets} its {}", names.join(", ")));
            }
        }
        if self.allows_on_error {
            text.push_str("; lets requests pass while it fails");
        }
        Verdict::WouldCheck(text)
    }

    fn ask(&self, request: CallRequest) -> Flow {
        Flow::Wait(Wait::Call(Box::new(Call {
            upstream: self.upstream,
            request,
            timeout: self.timeout,
            body: AnswerBody::OfRefusals,
            body_bytes_max: AUTH_BODY_BYTES_MAX,
        })))
    }

    /// Describes the client's request to the server.
    fn describe(&self, request: &StepRequest<'_>, facts: &Facts, asked: &mut CallRequest) {
        let (head, block) = (request.head, request.block);
        let host = head.authority.get(block);
        let authority = self.authority.as_deref().map_or(host, str::as_bytes);
        asked.begin(self.method.as_bytes(), authority, self.target.as_bytes());
        for field in head.iter() {
            let name = field.name.get(block);
            if self.sends(field, name) {
                asked.field(name, field.value.get(block));
            }
        }
        let scheme: &[u8] = if facts.is_https { b"https" } else { b"http" };
        let forwarded_host = facts.forwarded_host.map_or(host, |span| span.get(block));
        let method = head.method_span.get(block);
        let query = head.query.get(block);
        let mark: &[u8] = if head.has_query { b"?" } else { b"" };
        asked.field(b"X-Forwarded-Method", method);
        asked.field(b"X-Forwarded-Proto", scheme);
        asked.field(b"X-Forwarded-Host", forwarded_host);
        let path = sent_path(request);
        asked.field_of(b"X-Forwarded-Uri", &[path, mark, query]);
        if let Some(client) = facts.client {
            asked.field_text(b"X-Forwarded-For", client);
        }
        asked.field(b"X-Original-Method", method);
        let url = [scheme, b"://", forwarded_host, path, mark, query];
        asked.field_of(b"X-Original-URL", &url);
    }

    /// Whether the server gets this field of the client's request.
    fn sends(&self, field: &Field, name: &[u8]) -> bool {
        let is_named = |names: &[Box<str>]| {
            names
                .iter()
                .any(|other| other.as_bytes().eq_ignore_ascii_case(name))
        };
        let is_wanted = match self.request_fields.as_deref() {
            Some(names) => is_named(names),
            None => !is_condition(field.id),
        };
        is_wanted && !is_weirs_own(field.id, name)
    }

    fn judge(
        &self,
        verdicts: Option<&Verdicts>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
        answer: CallAnswer,
    ) -> Flow {
        match answer.status {
            200..=299 => self.approve(verdicts, request, facts, &answer),
            300..=499 => match answer.cut_by {
                None => Flow::Reply(Box::new(refusal::reply(request, facts, answer))),
                Some(reason) if is_of_weir(reason) => Flow::refuse(reason),
                // A refusal that Weir cannot pass on is still a refusal.
                Some(_) => self.go_without_verdict(false),
            },
            _ => self.go_without_verdict(true),
        }
    }

    fn approve(
        &self,
        verdicts: Option<&Verdicts>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
        answer: &CallAnswer,
    ) -> Flow {
        let approval = Rc::new(Approval {
            to_request: collect(&self.copy_to_request, answer),
            to_response: collect(&self.copy_to_response, answer),
        });
        let key = facts.notes.as_mut().and_then(|notes| notes.auth.key.take());
        if let (Some(verdicts), Some(key), Some(time)) = (verdicts, key, self.cache)
            && answer.values(b"Set-Cookie").next().is_none()
        {
            verdicts.keep(key, approval.clone(), request.now, time);
        }
        if !approval.is_empty() {
            facts.notes.get_or_insert_default().auth.approval = Some(approval);
        }
        Flow::Next
    }

    /// Decides about a request without a verdict. `is_error`: the server failed, which `on_error` is about.
    fn go_without_verdict(&self, is_error: bool) -> Flow {
        if is_error && self.allows_on_error {
            return Flow::Next;
        }
        Flow::refuse(Reason::AuthUnavailable)
    }

    #[cold]
    fn remove_other_spellings(&self, request: &StepRequest<'_>, edits: &mut Edits) {
        let block = request.block;
        let names = request.head.iter().map(|field| field.name.get(block));
        let forged = names.filter(|name| self.sets_field(name));
        forged.for_each(|name| edits.remove(name));
    }
}

/// The approval of the request, if its server has sent one with fields.
fn approval(facts: &Facts) -> Option<&Approval> {
    facts.notes.as_ref()?.auth.approval.as_deref()
}

/// The fields of these names in the answer.
fn collect(names: &[Box<str>], answer: &CallAnswer) -> Fields {
    let field = |(name, value): &(Box<[u8]>, Vec<u8>)| (name.clone(), value.as_slice().into());
    let is_wanted = |(name, _): &&(Box<[u8]>, Vec<u8>)| {
        names
            .iter()
            .any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(name))
    };
    answer.fields.iter().filter(is_wanted).map(field).collect()
}

/// The path and only the path as endpoints get it.
fn sent_path<'a>(request: &StepRequest<'a>) -> &'a [u8] {
    match request.sent_path {
        [] => request.head.effective_path(request.block),
        path => path,
    }
}

/// Whether the server learns this from Weir alone, whatever a client or a trusted proxy says.
fn is_weirs_own(id: FieldId, name: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        let start = name.get(..with.len());
        start.is_some_and(|start| is_alike(start, with))
    };
    matches!(
        id,
        FieldId::Forwarded | FieldId::XRealIp | FieldId::XRequestId
    ) || begins(b"X-Forwarded-")
        || begins(b"X-Original-")
}

/// Whether an endpoint may take one name for the other: in any case, with underscores for hyphens.
fn is_alike(name: &[u8], other: &[u8]) -> bool {
    let fold = |byte: &u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    name.iter().map(fold).eq(other.iter().map(fold))
}

/// Whether the field asks for a part of the resource, or for the resource on a condition. The server's answer is not
/// that resource.
fn is_condition(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::IfMatch
            | FieldId::IfNoneMatch
            | FieldId::IfModifiedSince
            | FieldId::IfUnmodifiedSince
            | FieldId::IfRange
            | FieldId::Range
    )
}

/// Whether a call failed for a reason that is not about the server at all.
fn is_of_weir(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ShuttingDown | Reason::MemoryLimit | Reason::CallLimit | Reason::Internal
    )
}

/// Whether the server could not be reached or was late, so that `on_error` decides. A client can cause other failures:
/// a login page that repeats a long query may be an answer that Weir cannot read.
fn is_of_server(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoEndpoint
            | Reason::Unresolved
            | Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::ConnectNoSocket
            | Reason::ConnectDenied
            | Reason::ConnectUnreachable
            | Reason::UpstreamTlsCertificate
            | Reason::UpstreamTlsAlert
            | Reason::UpstreamTlsFailed
            | Reason::QueueTimeout
            | Reason::FirstByteTimeout
            | Reason::UpstreamNotReading
            | Reason::TotalTimeout
    )
}

#[cfg(test)]
mod tests;
