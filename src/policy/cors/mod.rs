//! `cors`: tells browsers which pages of other origins may read a route's answers.
//!
//! Weir answers preflights itself, and replaces the CORS fields of all other answers. What the fields mean is in the
//! Fetch standard, section "HTTP CORS protocol".

mod origin_set;

use std::cell::RefCell;
use std::sync::Arc;

use regex_automata::meta::Cache;
use weir_config::AskedFor;
use weir_proto_h1::{FieldId, Head, Method, is_token};

use super::vary::add_vary;
use super::{
    AnswerView, Flow, PlannedStep, State, StatePlan, StatePlans, Step, StepReply, StepRequest,
    Verdict,
};
use crate::fault::Reason;

pub use origin_set::OriginSet;

const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";
const ALLOW_HEADERS: &str = "Access-Control-Allow-Headers";
const ALLOW_METHODS: &str = "Access-Control-Allow-Methods";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALLOW_PRIVATE_NETWORK: &str = "Access-Control-Allow-Private-Network";
const EXPOSE_HEADERS: &str = "Access-Control-Expose-Headers";
const MAX_AGE: &str = "Access-Control-Max-Age";
const REQUEST_HEADERS: &str = "Access-Control-Request-Headers";
const REQUEST_METHOD: &str = "Access-Control-Request-Method";
const REQUEST_PRIVATE_NETWORK: &str = "Access-Control-Request-Private-Network";

/// The fields with which a server takes part in the CORS protocol.
const ANSWER_FIELDS: [&str; 7] = [
    ALLOW_CREDENTIALS,
    ALLOW_HEADERS,
    ALLOW_METHODS,
    ALLOW_ORIGIN,
    ALLOW_PRIVATE_NETWORK,
    EXPOSE_HEADERS,
    MAX_AGE,
];

/// The rules of a route, with the values of fields written out.
#[derive(Debug)]
pub struct Rules {
    origins: Arc<OriginSet>,
    /// `None`: the method that is asked for.
    methods: Option<Box<str>>,
    /// `None`: the fields that are asked for.
    headers: Option<Box<str>>,
    expose: Option<Box<str>>,
    credentials: bool,
    max_age: Option<Box<str>>,
    private_network: bool,
}

/// The memory of one core for the regular expressions of an [`OriginSet`]; `None` if it has none.
pub type RegexCache = RefCell<Option<Cache>>;

/// Compiles the rules of a route. Routes with the same origins share their automaton, and on each core its memory.
///
/// # Errors
/// The regular expressions of `origins` are too large together.
pub(super) fn compile(
    cors: &weir_config::Cors,
    states: &mut StatePlans,
) -> Result<PlannedStep, String> {
    let known = states.iter().find_map(|state| match state {
        StatePlan::Origins(origins) if origins.is_of(&cors.origins) => Some(origins.clone()),
        _ => None,
    });
    let origins = match known {
        Some(origins) => origins,
        None => Arc::new(OriginSet::compile(&cors.origins)?),
    };
    let state = origins
        .has_regex()
        .then(|| states.add(StatePlan::Origins(origins.clone())));
    let list = |asked: &AskedFor| match asked {
        AskedFor::All => None,
        AskedFor::Listed(names) => Some(names.join(", ").into()),
    };
    let rules = Rules {
        origins,
        methods: list(&cors.methods),
        headers: list(&cors.headers),
        expose: (!cors.expose.is_empty()).then(|| cors.expose.join(", ").into()),
        credentials: cors.credentials,
        max_age: cors.max_age.map(|age| age.as_secs().to_string().into()),
        private_network: cors.private_network,
    };
    Ok(PlannedStep {
        step: Step::Cors(Arc::new(rules)),
        state,
    })
}

/// The cache that a step's state is.
fn cache(state: Option<&State>) -> Option<&RegexCache> {
    match state {
        Some(State::Origins(cache)) => Some(cache),
        _ => None,
    }
}

impl Rules {
    /// Answers a preflight. Any other request passes.
    pub(super) fn run(&self, state: Option<&State>, request: &StepRequest<'_>) -> Flow {
        let (head, block, cache) = (request.head, request.block, cache(state));
        let Some(method) = preflight_method(head, block) else {
            return Flow::Next;
        };
        if self.allowed_origin(cache, head, block).is_none() {
            return Flow::refuse(Reason::OriginDenied);
        }
        Flow::Reply(Box::new(self.answer_preflight(method, head, block)))
    }

    /// The answer to a preflight whose origin is allowed. [`Rules::edit_answer`] adds the rest.
    //= fetch#http-responses: a successful preflight has any 2xx status.
    fn answer_preflight(&self, method: &[u8], head: &Head, block: &[u8]) -> StepReply {
        let mut reply = StepReply {
            status: 204,
            ..StepReply::default()
        };
        let mut add = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                reply.fields.push((name.into(), value.into()));
            }
        };
        match &self.methods {
            Some(methods) => add(ALLOW_METHODS, methods.as_bytes()),
            None => add(ALLOW_METHODS, method),
        }
        match &self.headers {
            Some(headers) => add(ALLOW_HEADERS, headers.as_bytes()),
            None => add(ALLOW_HEADERS, &asked_headers(head, block)),
        }
        if let Some(max_age) = &self.max_age {
            add(MAX_AGE, max_age.as_bytes());
        }
        if self.private_network && only(REQUEST_PRIVATE_NETWORK, head, block) == Some(b"true") {
            add(ALLOW_PRIVATE_NETWORK, b"true");
        }
        reply
    }

    /// Replaces the CORS fields of an answer.
    pub(super) fn edit_answer(
        &self,
        state: Option<&State>,
        request: &StepRequest<'_>,
        answer: &mut AnswerView<'_>,
    ) {
        let (head, block, cache) = (request.head, request.block, cache(state));
        let is_preflight = preflight_method(head, block).is_some();
        if !is_preflight {
            remove_answer_fields(answer);
        }
        let allowed = self.allowed_origin(cache, head, block);
        if let Some(origin) = allowed {
            answer.edits.append(ALLOW_ORIGIN, origin);
            if self.credentials {
                answer.edits.append(ALLOW_CREDENTIALS, "true");
            }
            if let Some(expose) = self.expose.as_ref().filter(|_| !is_preflight) {
                answer.edits.append(EXPOSE_HEADERS, expose.as_bytes());
            }
        }
        //= fetch#cors-protocol-and-http-caches
        // An answer that differs by origin says so, also to requests without one. `*` differs for nobody.
        if !self.origins.is_any() {
            add_vary(answer, "Origin");
        }
        if is_preflight {
            self.add_preflight_vary(answer);
        }
    }

    fn add_preflight_vary(&self, answer: &mut AnswerView<'_>) {
        if self.methods.is_none() {
            add_vary(answer, REQUEST_METHOD);
        }
        if self.headers.is_none() {
            add_vary(answer, REQUEST_HEADERS);
        }
        if self.private_network {
            add_vary(answer, REQUEST_PRIVATE_NETWORK);
        }
    }

    /// The value of Access-Control-Allow-Origin; `None` if the page may not read the answer.
    fn allowed_origin<'b>(
        &self,
        cache: Option<&RegexCache>,
        head: &Head,
        block: &'b [u8],
    ) -> Option<&'b [u8]> {
        if self.origins.is_any() {
            return Some(b"*");
        }
        let origin = origin_of(head, block)?;
        self.origins.contains(origin, cache).then_some(origin)
    }

    /// Says what the rules do with a request.
    pub(super) fn explain(&self, request: &StepRequest<'_>) -> Verdict {
        self.explain_head(request.head, request.block)
    }

    /// Says what becomes of an answer; `None` for the answer to a preflight that the rules have not seen.
    pub(super) fn explain_answer(&self, request: &StepRequest<'_>) -> Option<String> {
        match self.explain(request) {
            Verdict::Does(text) => Some(text),
            _ => None,
        }
    }

    fn explain_head(&self, head: &Head, block: &[u8]) -> Verdict {
        let cache = self.origins.make_cache();
        let origin = origin_of(head, block).map(String::from_utf8_lossy);
        let origin = origin.as_deref().unwrap_or("without an origin");
        let is_allowed = self.allowed_origin(Some(&cache), head, block).is_some();
        match (preflight_method(head, block), is_allowed) {
            (Some(_), true) => Verdict::Answers(204, format!("allows the preflight of {origin}")),
            (Some(_), false) => Verdict::Refuses(
                Reason::OriginDenied,
                format!("{origin} is not in `origins`"),
            ),
            (None, _) if self.origins.is_any() => {
                Verdict::Does("lets pages of every origin read the answer".to_owned())
            }
            (None, true) => Verdict::Does(format!("lets pages of {origin} read the answer")),
            (None, false) if origin_of(head, block).is_none() => Verdict::Does(
                "takes CORS fields off the answer: the request has no Origin".to_owned(),
            ),
            (None, false) => Verdict::Does(format!(
                "takes CORS fields off the answer: {origin} is not in `origins`"
            )),
        }
    }
}

/// The method that a CORS preflight asks about; `None` if the request is no preflight.
#[inline]
pub fn preflight_method<'b>(head: &Head, block: &'b [u8]) -> Option<&'b [u8]> {
    match head.method {
        Method::Options => asked_method(head, block),
        _ => None,
    }
}

//= fetch#cors-preflight-request
// A preflight is an OPTIONS request with Origin and Access-Control-Request-Method.
#[cold]
fn asked_method<'b>(head: &Head, block: &'b [u8]) -> Option<&'b [u8]> {
    head.find(FieldId::Origin)?;
    only(REQUEST_METHOD, head, block).filter(|method| is_token(method))
}

/// The fields that a preflight asks about. Empty if one of the names is not a name.
fn asked_headers(head: &Head, block: &[u8]) -> Vec<u8> {
    let asked = only(REQUEST_HEADERS, head, block).unwrap_or_default();
    let is_name = |name: &[u8]| is_token(name.trim_ascii());
    match asked.split(|&byte| byte == b',').all(is_name) {
        true => asked.to_vec(),
        false => Vec::new(),
    }
}

/// The value of Origin; `None` if there is none or more than one.
fn origin_of<'b>(head: &Head, block: &'b [u8]) -> Option<&'b [u8]> {
    let mut origins = head.all(FieldId::Origin);
    let origin = origins.next()?;
    origins.next().is_none().then(|| origin.value.get(block))
}

/// The value of the only field with this name.
fn only<'b>(name: &str, head: &Head, block: &'b [u8]) -> Option<&'b [u8]> {
    let is_named =
        |field: &&weir_proto_h1::Field| field.name.get(block).eq_ignore_ascii_case(name.as_bytes());
    let mut fields = head.iter().filter(is_named);
    let field = fields.next()?;
    fields.next().is_none().then(|| field.value.get(block))
}

/// Removes the CORS fields that the endpoint or another part of the configuration has set.
fn remove_answer_fields(answer: &mut AnswerView<'_>) {
    const PREFIX: &[u8] = b"access-control-";
    let begins = |name: &[u8]| {
        name.get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    };
    let in_head = answer
        .head
        .iter()
        .any(|field| begins(field.name.get(answer.block)));
    if in_head || answer.edits.iter().any(|(name, _)| begins(name)) {
        ANSWER_FIELDS
            .iter()
            .for_each(|name| answer.edits.remove(name));
    }
}

#[cfg(test)]
mod tests;
