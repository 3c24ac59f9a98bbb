//! `[policy.NAME]`, `use` of a route, and the policies of the top level.

use std::collections::HashMap;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{KeyPlaceholder, NamedEntry, quoted_if_needed};
use crate::decode::table::{frame, table};
use crate::policy::level::{Level, Origin, Place};
use crate::policy::{Policies, RawPolicies};
use crate::text::diagnostic::Code;
use crate::value::plain_name::is_plain_name;

table! {
    /// A set of policies. A route takes sets by `use`; later ones go before earlier ones, and the route's own keys
    /// before all of them. [policies.md](policies.md) says how the levels combine.
    RawPolicySet, "policy", "[policy.NAME]" {
        with policies: RawPolicies;
    }
}

/// Keys of `[policy]`.
pub(crate) struct PolicySetName;

impl KeyPlaceholder for PolicySetName {
    const NAME: &'static str = "NAME";
}

/// The levels above all routes: the top level and the sets.
pub(crate) struct PolicySets {
    top: RawPolicies,
    sets: Vec<PolicySet>,
    index: HashMap<String, usize>,
}

/// A set of policies.
struct PolicySet {
    name: Spanned<String>,
    origin: Origin,
    /// `None` if the table could not be read.
    policies: Option<RawPolicies>,
    is_used: bool,
}

impl PolicySets {
    /// The levels that a file has; reports names that no set can have.
    pub(crate) fn new(
        top: RawPolicies,
        entries: Vec<NamedEntry<RawPolicySet>>,
        cx: &mut Decoder<'_>,
    ) -> Self {
        let mut sets = Vec::with_capacity(entries.len());
        for NamedEntry { name, value } in entries {
            if !is_plain_name(&name.value) {
                let message = format!("`{}` is not a name for a set of policies", name.value);
                cx.error(Code::BadValue, name.span.clone(), message)
                    .help("use letters, digits, hyphens, underscores and dots");
            }
            sets.push(PolicySet {
                origin: Origin::Set(name.value.clone()),
                name,
                policies: value.map(|set| set.policies),
                is_used: false,
            });
        }
        let index = sets.iter().enumerate();
        let index = index.map(|(i, set)| (set.name.value.clone(), i)).collect();
        Self { top, sets, index }
    }

    /// The policies of the top level alone, for requests without a route.
    pub(crate) fn of_top(&self, place: &Place<'_>, cx: &mut Decoder<'_>) -> Policies {
        let top = Level {
            origin: &Origin::Top,
            policies: &self.top,
        };
        Policies::combine(&[top], place, cx)
    }

    /// The policies of the route `place`, which uses the sets `used` and has the keys `own`. Reports sets that the file
    /// does not have, and those that the route uses twice.
    pub(crate) fn of_route(
        &mut self,
        used: &[Spanned<String>],
        own: &RawPolicies,
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Policies {
        let indices = self.resolve(used, cx);
        for index in &indices {
            if let Some(set) = self.sets.get_mut(*index) {
                set.is_used = true;
            }
        }
        let mut levels = vec![Level {
            origin: &Origin::Top,
            policies: &self.top,
        }];
        for set in indices.iter().filter_map(|index| self.sets.get(*index)) {
            levels.extend(set.policies.as_ref().map(|policies| Level {
                origin: &set.origin,
                policies,
            }));
        }
        levels.push(Level {
            origin: place.origin,
            policies: own,
        });
        let has_jwt = levels.iter().fold(false, |below, level| {
            let own = level.policies.jwt.as_ref();
            own.map_or(below, |setting| setting.value.is_some())
        });
        // A route whose match is an error has no name to report.
        let place = Place {
            lacks_claims: !has_jwt && place.parameters.is_some(),
            ..*place
        };
        Policies::combine(&levels, &place, cx)
    }

    /// Warns of sets that no route uses.
    pub(crate) fn warn_of_unused(&self, cx: &mut Decoder<'_>) {
        for set in self.sets.iter().filter(|set| !set.is_used) {
            let message = format!("no route uses the policies `{}`", set.name.value);
            cx.warning(Code::Unused, set.name.span.clone(), message)
                .help(format!(
                    "remove them, or add use = \"{}\" to a route",
                    set.name.value
                ));
        }
    }

    /// The indices of the sets `used`, each once.
    fn resolve(&self, used: &[Spanned<String>], cx: &mut Decoder<'_>) -> Vec<usize> {
        let mut found = Vec::with_capacity(used.len());
        for name in used {
            let Some(index) = self.index.get(&name.value) else {
                let known = self.sets.iter().map(|set| set.name.value.as_str());
                cx.unknown_name(name, "set of policies", known)
                    .help(format!(
                        "define it:\n[policy.{}]",
                        quoted_if_needed(&name.value)
                    ));
                continue;
            };
            if found.contains(index) {
                let message = format!("this route uses the policies `{}` twice", name.value);
                cx.error(Code::Duplicate, name.span.clone(), message)
                    .help("leave one of them out: the last one decides");
                continue;
            }
            found.push(*index);
        }
        found
    }
}
