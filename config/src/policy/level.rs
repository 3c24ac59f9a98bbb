//! The levels at which a file may set a policy, and how Weir combines what they say.

use std::fmt;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kind::ValueKind;
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::address::Address;
use crate::value::upstream_names::UpstreamNames;

/// The place of the file that a setting stands in. With the number of the entry there, it names the state that the
/// setting has: a limit of a set has one state for all routes that use the set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The top level.
    Top,
    /// The set `[policy.NAME]`.
    Set(String),
    /// The route of this name.
    Route(String),
    /// The listener at this address.
    Listener(Address),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("the top level"),
            Self::Set(name) => write!(f, "policy `{name}`"),
            Self::Route(name) => write!(f, "route `{name}`"),
            Self::Listener(address) => write!(f, "listener `{address}`"),
        }
    }
}

/// The target of a route, for policies that need one of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Upstream,
    Redirect,
    Respond,
}

/// The route, listener or top level for which Weir combines policies.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "no policy needs all of it")]
pub(crate) struct Place<'a> {
    /// The place itself, which is also the origin of its own settings.
    pub(crate) origin: &'a Origin,
    /// What a diagnostic marks that is about several settings.
    pub(crate) span: &'a Span,
    /// The target of the route; `None` for a listener, for the top level and for a route whose target is an error.
    pub(crate) target: Option<TargetKind>,
    /// Whether this is a route without `jwt`, so that its requests have no claims.
    pub(crate) lacks_claims: bool,
    /// The parameters that every path of the route's match has; `None` without a route, or if its match is an error.
    pub(crate) parameters: Option<&'a [&'a str]>,
    /// The names of the file's upstreams.
    pub(crate) upstreams: &'a UpstreamNames,
}

impl Place<'_> {
    /// Reports the claim `name`, which the file uses at `span`, if requests have no claims here. Settings of sets and of
    /// the top level are reported once, with all routes that lack a `jwt`.
    pub(crate) fn check_claim(&self, name: &str, span: &Span, remedy: &str, cx: &mut Decoder<'_>) {
        if !self.lacks_claims {
            return;
        }
        let problem = format!("no `jwt` verifies the claim `{name}` in");
        let diagnostic = cx.error_of(span.clone(), &problem, &self.origin.to_string());
        diagnostic.help(format!(
            "add jwt = \"https://ISSUER/ for AUDIENCE\" there, to a set or at the top level; or {remedy}"
        ));
    }
}

/// What one level says, with the level.
pub(crate) struct Level<'a, R> {
    pub(crate) origin: &'a Origin,
    pub(crate) policies: &'a R,
}

/// What one level says of one policy.
#[allow(dead_code, reason = "not every policy needs all of it")]
pub(crate) struct Setting<'a, T> {
    pub(crate) value: &'a T,
    pub(crate) span: &'a Span,
    pub(crate) origin: &'a Origin,
}

/// A policy: a kind of value, and what becomes of the values of several levels.
pub(crate) trait Policy: ValueKind {
    /// What a route has of it. The default is to have none.
    type Combined: Default;

    /// Combines the settings of all levels, the lowest first, at least one. Those below an `"off"` are not among them.
    ///
    /// A setting of the top level is combined once for each route. The decoder drops a diagnostic that it has already.
    fn combine(
        settings: &[Setting<'_, Self::Value>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Self::Combined;

    /// The reason why `value`, in a route with this target, has no effect; `None` if it has one. Settings of sets and of
    /// the top level may be for other routes, so Weir asks for a route's own keys only.
    fn no_effect(_value: &Self::Value, _target: TargetKind) -> Option<&'static str> {
        None
    }
}

/// Combines what `levels`, the lowest first, say of the policy `K`, whose key is `key`. Reports settings without effect.
pub(crate) fn combine<'a, R, K: Policy>(
    key: &str,
    levels: &[Level<'a, R>],
    setting_of: impl Fn(&'a R) -> Option<&'a Spanned<Option<K::Value>>>,
    place: &Place<'_>,
    cx: &mut Decoder<'_>,
) -> K::Combined
where
    K::Value: 'a,
{
    let mut settings = Vec::new();
    for level in levels {
        let Some(Spanned { value, span }) = setting_of(level.policies) else {
            continue;
        };
        let is_own = level.origin == place.origin;
        let Some(value) = value else {
            if is_own && settings.is_empty() {
                report_needless_off(key, span, place.origin, cx);
            }
            settings.clear();
            continue;
        };
        let reason = place.target.and_then(|target| K::no_effect(value, target));
        if let Some(reason) = reason.filter(|_| is_own) {
            let message = format!("`{key}` has no effect: {reason}");
            cx.error(Code::Conflict, span.clone(), message)
                .help("leave it out");
        }
        settings.push(Setting {
            value,
            span,
            origin: level.origin,
        });
    }
    if settings.is_empty() {
        return K::Combined::default();
    }
    K::combine(&settings, place, cx)
}

/// Warns of an `"off"` that takes nothing away.
fn report_needless_off(key: &str, span: &Span, origin: &Origin, cx: &mut Decoder<'_>) {
    let label = match origin {
        Origin::Top => "no level is below the top level; a route may take it away",
        Origin::Listener(_) => "a listener takes nothing over from other levels",
        Origin::Set(_) | Origin::Route(_) => {
            "neither the top level nor a set of this route has one"
        }
    };
    let message = format!("`{key} = \"off\"` has no effect here");
    cx.warning(Code::NoEffect, span.clone(), message)
        .label(label);
}
