//! `headers`: fields that Weir removes, sets and adds.

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{NamedEntries, NamedEntry, OneOrMany, PlainText, SpannedKind, TextKind};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Place, Policy, Setting, TargetKind};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::text::suggest::nearest;
use crate::value::field::{FieldName, is_token, not_a_field_name, written_field};
use crate::value::template::{ValuePiece, ValueTemplate, ValueTemplateText};
use crate::value::variable::{Variable, find_nginx_variable};

/// How Weir changes the fields of requests and answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// Changes to requests on their way to endpoints.
    pub request: FieldRules,
    /// Changes to answers on their way to clients, also to those that Weir gives itself.
    pub response: FieldRules,
}

/// Changes to the fields of one message: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldRules {
    /// Names of fields that the message has not afterwards.
    pub remove: Vec<String>,
    /// Fields that the message has with this value only.
    pub set: Vec<FieldRule>,
    /// Fields that the message has besides its own.
    pub add: Vec<FieldRule>,
}

/// A field that Weir writes, unless its value is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRule {
    /// Its name, as the file spells it.
    pub name: String,
    /// Its value.
    pub value: ValueTemplate,
}

impl FieldRules {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

const FOREIGN_DIRECTIONS: &[ForeignName] = &[
    (
        &[
            "req",
            "upstream",
            "customRequestHeaders",
            "request_headers",
            "header_up",
        ],
        "`request`",
    ),
    (
        &[
            "resp",
            "answer",
            "downstream",
            "customResponseHeaders",
            "response_headers",
            "header_down",
        ],
        "`response`",
    ),
    (
        &["set", "add", "remove"],
        "`request = { ... }` or `response = { ... }`",
    ),
];

const FOREIGN_CHANGES: &[ForeignName] = &[
    (&["replace", "override", "overwrite"], "`set`"),
    (&["append", "insert"], "`add`"),
    (&["delete", "del", "hide", "unset", "strip"], "`remove`"),
];

table! {
    /// Fields that Weir removes, sets and adds. Values may have variables in braces; [policies.md](policies.md#headers)
    /// lists them.
    RawHeaders, "headers", "headers of a policy", foreign FOREIGN_DIRECTIONS {
        /// Changes to requests on their way to endpoints.
        optional request: RawFields = "request" as RawFields;
        /// Changes to answers on their way to clients, also to those that Weir gives itself.
        optional response: RawFields = "response" as RawFields;
    }
}

table! {
    /// Changes to the fields of a message: first `remove`, then `set`, then `add`. They cannot change the framing, the
    /// fields for a single connection, and Host.
    RawFields, "headers_fields", "request or response of headers", foreign FOREIGN_CHANGES {
        /// Fields that the message has with this value only.
        optional set: Vec<NamedEntry<Spanned<ValueTemplate>>> =
            "set" as NamedEntries<FieldName, SpannedKind<FieldTemplateText>>;
        /// Fields that the message has besides its own; a list makes several of one name.
        optional add: Vec<NamedEntry<Vec<Spanned<ValueTemplate>>>> =
            "add" as NamedEntries<FieldName, OneOrMany<SpannedKind<FieldTemplateText>>>;
        /// Fields to take away, whether the sender or Weir wrote them.
        optional remove: Vec<Spanned<String>> = "remove" as OneOrMany<SpannedKind<PlainText>>;
    }
}

/// A value that is not empty.
pub(crate) struct FieldTemplateText;

impl TextKind for FieldTemplateText {
    type Value = ValueTemplate;
    const NOUN: &'static str = ValueTemplateText::NOUN;
    const EXAMPLES: &'static [&'static str] = ValueTemplateText::EXAMPLES;

    fn parse(text: &str) -> Result<ValueTemplate, Problem> {
        if text.is_empty() {
            return Err(Problem::new("the value is empty")
                .help("to take the field away, name it in `remove`"));
        }
        ValueTemplateText::parse(text)
    }
}

/// Fields that say how a message is framed, or that only concern one connection (RFC 9110 section 7.6.1). Weir writes
/// them.
const FIXED_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

/// Finds out whether rules may change a field.
fn check_name(name: &str, direction: Direction) -> Result<(), Problem> {
    if !is_token(name) {
        return Err(not_a_field_name(name));
    }
    let lower = name.to_ascii_lowercase();
    if lower == "host" {
        return Err(Problem::new("`headers` cannot change Host")
            .help("write host = \"app.internal\" in the route or upstream"));
    }
    //= rfc9110#7.6.3: a gateway sends Via with each request.
    if lower == "via" && direction == Direction::Request {
        return Err(Problem::new("`headers` cannot change Via of requests")
            .help("Weir needs it to find requests that run in a circle"));
    }
    if FIXED_FIELDS.contains(&lower.as_str()) {
        return Err(Problem::new(format!("`headers` cannot change `{name}`"))
            .help("Weir writes it, because it is about one connection or about the framing"));
    }
    // Servers that follow CGI take both spellings for one name (RFC 3875 section 4.1.18).
    let folded = lower.replace('_', "-");
    if FIXED_FIELDS.contains(&folded.as_str()) {
        return Err(
            Problem::new(format!("`headers` cannot change `{name}`")).help(format!(
                "many servers take it for `{folded}`, which is about one connection or about the framing"
            )),
        );
    }
    Ok(())
}

/// The rules of one level.
pub(crate) struct HeadersKind;

/// The rules of one level, each value with its place in the file.
#[derive(Debug, Clone)]
pub(crate) struct LevelRules {
    request: LevelFields,
    response: LevelFields,
}

/// The rules of one level and direction.
#[derive(Debug, Clone, Default)]
struct LevelFields {
    /// The place of the table; `None` if the level has none.
    span: Option<Span>,
    remove: Vec<String>,
    set: Vec<(String, Spanned<ValueTemplate>)>,
    add: Vec<(String, Spanned<ValueTemplate>)>,
}

impl ValueKind for HeadersKind {
    type Value = LevelRules;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<LevelRules> {
        if reports_no_table(value, cx) {
            return None;
        }
        let table = RawHeaders::decode(value, cx)?;
        let is_suggested = |key: &&str| cx.has_suggested(&table.span, key);
        let has_neither = table.request.is_none() && table.response.is_none();
        if has_neither && !["request", "response"].iter().any(is_suggested) {
            cx.error(
                Code::MissingKey,
                table.span.clone(),
                "`headers` changes nothing",
            )
            .help("write { response = { set = { X-Served-By = \"weir\" } } }, or request = ...");
        }
        let mut read = |fields, direction| LevelFields::read(fields, direction, cx);
        let request = table.request.map(|fields| read(fields, Direction::Request));
        let response = table
            .response
            .map(|fields| read(fields, Direction::Response));
        Some(LevelRules {
            request: request.unwrap_or_default(),
            response: response.unwrap_or_default(),
        })
    }

    fn shape() -> Shape {
        RawHeaders::shape()
    }
}

/// Reports a value that is not a table, or whose `request` or `response` is none, and shows how to write it.
fn reports_no_table(value: &Value<'_>, cx: &mut Decoder<'_>) -> bool {
    let Some(table) = value.get_ref().as_table() else {
        let field = written_field(value).unwrap_or_else(|| "X-Served-By = \"weir\"".to_owned());
        cx.wrong_type(value, "a table { request, response }")
            .help(format!(
                "write headers = {{ response = {{ set = {{ {field} }} }} }}"
            ));
        return true;
    };
    let mut is_reported = false;
    for key in ["request", "response"] {
        let Some(direction) = table.get(key).filter(|value| !value.get_ref().is_table()) else {
            continue;
        };
        let field = written_field(direction).unwrap_or_else(|| "X-Served-By = \"weir\"".to_owned());
        cx.wrong_type(direction, "a table { set, add, remove }")
            .help(format!("write {key} = {{ set = {{ {field} }} }}"));
        is_reported = true;
    }
    is_reported
}

impl LevelFields {
    fn read(table: RawFields, direction: Direction, cx: &mut Decoder<'_>) -> Self {
        let mut remove: Vec<String> = Vec::new();
        let removed = table.remove.unwrap_or_default();
        let set = table.set.as_deref().unwrap_or_default();
        for Spanned { value: name, span } in removed.iter() {
            let is_same = |entry: &&NamedEntry<_>| entry.name.value.eq_ignore_ascii_case(name);
            if set.iter().any(|entry| is_same(&entry)) {
                let message =
                    format!("`{name}` in `remove` has no effect: `set` replaces the field");
                cx.warning(Code::NoEffect, span.clone(), message)
                    .help("leave it out of `remove`; to have the sender's value too, use `add`");
            }
        }
        for Spanned { value: name, span } in removed {
            if let Err(problem) = check_name(&name, direction) {
                cx.problem(span, &name, problem);
                continue;
            }
            if remove.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                let message = format!("`remove` names `{name}` twice");
                cx.error(Code::Duplicate, span, message)
                    .help("leave one out");
                continue;
            }
            remove.push(name);
        }
        let set = read_entries(table.set.unwrap_or_default(), direction, cx);
        let add = read_entries(table.add.unwrap_or_default(), direction, cx).into_iter();
        let add = add
            .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)));
        let fields = Self {
            span: Some(table.span),
            remove,
            set,
            add: add.collect(),
        };
        for Spanned { value, span } in fields.values() {
            warn_of_nginx_variables(value, span, cx);
        }
        fields
    }

    fn values(&self) -> impl Iterator<Item = &Spanned<ValueTemplate>> {
        self.set.iter().chain(&self.add).map(|(_, value)| value)
    }
}

/// Warns of variables written as in nginx, which are text here.
fn warn_of_nginx_variables(value: &ValueTemplate, span: &Span, cx: &mut Decoder<'_>) {
    let found = value.0.iter().find_map(|piece| match piece {
        ValuePiece::Text(text) => find_nginx_variable(text),
        ValuePiece::Variable(_) | ValuePiece::Env { .. } => None,
    });
    if let Some((theirs, ours)) = found {
        let message = format!("`{theirs}` is text here: variables stand in braces");
        cx.warning(Code::NoEffect, span.clone(), message)
            .help(format!("write {ours}"));
    }
}

/// Reports and leaves out names that rules may not change, and names that occur twice.
fn read_entries<T>(
    entries: Vec<NamedEntry<T>>,
    direction: Direction,
    cx: &mut Decoder<'_>,
) -> Vec<(String, T)> {
    let mut fields: Vec<(String, T)> = Vec::with_capacity(entries.len());
    for NamedEntry { name, value } in entries {
        if let Err(problem) = check_name(&name.value, direction) {
            cx.problem(name.span, &name.value, problem);
            continue;
        }
        let is_same = |(known, _): &(String, T)| known.eq_ignore_ascii_case(&name.value);
        if fields.iter().any(is_same) {
            let message = format!("header field `{}` occurs twice", name.value);
            cx.error(Code::Duplicate, name.span, message)
                .help("case does not matter in names of header fields");
            continue;
        }
        fields.extend(value.map(|value| (name.value, value)));
    }
    fields
}

impl Policy for HeadersKind {
    type Combined = Option<HeaderRules>;

    fn combine(
        settings: &[Setting<'_, LevelRules>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Option<HeaderRules> {
        let (mut request, mut response) = (LevelFields::default(), LevelFields::default());
        for Setting { value, origin, .. } in settings {
            for fields in [&value.request, &value.response] {
                fields
                    .values()
                    .for_each(|value| check_parameters(value, place, cx));
            }
            let sends_nothing = place
                .target
                .is_some_and(|target| target != TargetKind::Upstream);
            if *origin == place.origin
                && sends_nothing
                && let Some(span) = &value.request.span
            {
                let message = "`request` has no effect: this route sends nothing to endpoints";
                cx.error(Code::Conflict, span.clone(), message)
                    .help("leave it out: it is for a route with `to`");
            }
            request.overlay(&value.request);
            response.overlay(&value.response);
        }
        let is_sent = place
            .target
            .is_none_or(|target| target == TargetKind::Upstream);
        // Nobody sees what a route without endpoints would send.
        let sent = is_sent.then_some(&request);
        for fields in sent.into_iter().chain([&response]) {
            fields
                .values()
                .for_each(|value| check_claims(value, place, cx));
        }
        let rules = HeaderRules {
            request: request.into_rules(),
            response: response.into_rules(),
        };
        let is_empty = rules.request.is_empty() && rules.response.is_empty();
        (!is_empty).then_some(rules)
    }
}

impl LevelFields {
    /// Adds the rules of a higher level. What it removes or sets, it decides alone; what it adds replaces what lower
    /// levels add to the same field.
    fn overlay(&mut self, higher: &Self) {
        let is_in = |names: &[(String, Spanned<ValueTemplate>)], name: &str| {
            names
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let removes = |name: &str| {
            let mut removed = higher.remove.iter();
            removed.any(|known| known.eq_ignore_ascii_case(name)) || is_in(&higher.set, name)
        };
        self.set.retain(|(name, _)| !removes(name));
        self.add
            .retain(|(name, _)| !removes(name) && !is_in(&higher.add, name));
        for name in &higher.remove {
            let is_same = |known: &String| known.eq_ignore_ascii_case(name);
            if !self.remove.iter().any(is_same) {
                self.remove.push(name.clone());
            }
        }
        self.set.extend_from_slice(&higher.set);
        self.add.extend_from_slice(&higher.add);
    }

    /// The rules without their places in the file.
    fn into_rules(self) -> FieldRules {
        let rules = |fields: Vec<(String, Spanned<ValueTemplate>)>| {
            let rule = |(name, value): (_, Spanned<_>)| FieldRule {
                name,
                value: value.value,
            };
            fields.into_iter().map(rule).collect()
        };
        FieldRules {
            remove: self.remove,
            set: rules(self.set),
            add: rules(self.add),
        }
    }
}

/// Reports claims of a token that no `jwt` of the route verifies.
fn check_claims(value: &Spanned<ValueTemplate>, place: &Place<'_>, cx: &mut Decoder<'_>) {
    for variable in value.value.variables() {
        if let Variable::Claim(name) = variable {
            let remedy = "take the field away in these routes, by `remove` of `headers`";
            place.check_claim(name, &value.span, remedy, cx);
        }
    }
}

/// Reports parameters that the route's match does not have.
fn check_parameters(value: &Spanned<ValueTemplate>, place: &Place<'_>, cx: &mut Decoder<'_>) {
    let names = value
        .value
        .variables()
        .filter_map(|variable| match variable {
            Variable::Param(name) => Some(name),
            _ => None,
        });
    for name in names {
        // Answers without a route have no parameters, so the top level is checked with each route.
        let Some(known) = place.parameters else {
            continue;
        };
        if known.contains(&name.as_str()) {
            continue;
        }
        let message = format!(
            "the match of {} has no parameter `{{{name}}}`",
            place.origin
        );
        let near = nearest(name, known.iter().copied());
        let diagnostic = cx.error(Code::UnknownName, value.span.clone(), message);
        match near {
            Some(near) => diagnostic.label(format!("did you mean `{{param:{near}}}`?")),
            None => {
                diagnostic.help("match a template such as \"/users/{id}\", with a name in braces")
            }
        };
    }
}

#[cfg(test)]
mod tests;
