//! `ip`: which clients may send requests.

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{OneOrMany, SpannedKind, TextKind};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, Policy, Setting};
use crate::text::diagnostic::{Code, Position};
use crate::value::file_path::{FilePathText, NamedFile};
use crate::value::network::{Cidr, CidrText};

/// Which clients may send requests, as one level says it. The most specific network that holds the client decides, and
/// `deny` if it is in both lists. If no network holds the client, it may pass if `allow` is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpRules {
    /// Clients that may pass; if there are any, all others may not.
    pub allow: Vec<Networks>,
    /// Clients that may not pass.
    pub deny: Vec<Networks>,
    /// The level that says so.
    pub origin: Origin,
    /// The position of the key's value in the file.
    pub position: Position,
}

/// A network, or a list of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// The addresses of this network.
    Network(Cidr),
    /// A file with a network a line, and comments after `#`.
    List(NamedFile),
}

impl Networks {
    /// The file, if this is a list.
    #[must_use]
    pub fn list(&self) -> Option<&NamedFile> {
        match self {
            Self::List(file) => Some(file),
            Self::Network(_) => None,
        }
    }
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &[
            "whitelist",
            "allowlist",
            "allowed",
            "sourceRange",
            "source_range",
        ],
        "`allow`",
    ),
    (&["blacklist", "denylist", "denied", "block"], "`deny`"),
];

table! {
    /// Which clients may send requests. The most specific network that holds the client decides, and `deny` if two are
    /// equal. If no network holds the client, it may pass if there is no `allow`.
    RawIp, "ip", "ip of a policy", foreign FOREIGN_NAMES {
        /// Networks whose clients may send requests; all others may not. `"@FILE"` stands for the networks of a file, one
        /// a line, with comments after `#`; Weir takes up changes of the file without a reload.
        optional allow: Spanned<Vec<Spanned<Networks>>> =
            "allow" as SpannedKind<OneOrMany<SpannedKind<NetworksKind>>>;
        /// Networks whose clients may not send requests, written as in `allow`.
        optional deny: Spanned<Vec<Spanned<Networks>>> =
            "deny" as SpannedKind<OneOrMany<SpannedKind<NetworksKind>>>;
    }
}

/// The rules of one level.
pub(crate) struct IpKind;

impl ValueKind for IpKind {
    type Value = IpLists;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<IpLists> {
        let is_off = value.get_ref().as_bool() == Some(false);
        if !value.get_ref().is_table() && !is_off {
            cx.wrong_type(value, "a table { allow, deny }")
                .help("write { allow = [...] } to let in these networks only, { deny = [...] } to keep them out");
            return None;
        }
        let before = cx.diagnostics_count();
        let table = RawIp::decode(value, cx)?;
        if table.allow.is_none() && table.deny.is_none() {
            if cx.diagnostics_count() == before {
                cx.error(Code::MissingKey, table.span, "`ip` names no network")
                    .help("add allow = [\"10.0.0.0/8\"] or deny = [\"192.0.2.0/24\"]");
            }
            return None;
        }
        let lists = [("allow", &table.allow), ("deny", &table.deny)];
        for (key, list) in lists {
            if let Some(list) = list
                && list.value.is_empty()
            {
                let message = format!("`{key}` names no network");
                cx.error(Code::BadValue, list.span.clone(), message)
                    .help("add one, or leave the key out");
            }
        }
        let lists = IpLists {
            allow: table.allow.map(|list| list.value).unwrap_or_default(),
            deny: table.deny.map(|list| list.value).unwrap_or_default(),
            position: cx.position(&table.span),
        };
        lists.check_ties(cx);
        Some(lists)
    }

    fn shape() -> Shape {
        RawIp::shape()
    }
}

/// What one level says.
#[derive(Debug, Clone)]
pub(crate) struct IpLists {
    allow: Vec<Spanned<Networks>>,
    deny: Vec<Spanned<Networks>>,
    position: Position,
}

impl IpLists {
    /// Warns of networks in both lists.
    fn check_ties(&self, cx: &mut Decoder<'_>) {
        for allowed in &self.allow {
            let is_same = |denied: &&Spanned<Networks>| match (&allowed.value, &denied.value) {
                (Networks::Network(a), Networks::Network(b)) => a == b,
                (Networks::List(a), Networks::List(b)) => a.path == b.path,
                _ => false,
            };
            if let Some(denied) = self.deny.iter().find(is_same) {
                let line = cx.line(&denied.span);
                cx.warning(Code::NoEffect, allowed.span.clone(), "`deny` has it too")
                    .label(format!("has no effect: `deny` in line {line} wins"));
            }
        }
    }
}

impl Policy for IpKind {
    type Combined = Vec<IpRules>;

    fn combine(
        settings: &[Setting<'_, IpLists>],
        _place: &Place<'_>,
        _cx: &mut Decoder<'_>,
    ) -> Vec<IpRules> {
        let values =
            |list: &[Spanned<Networks>]| list.iter().map(|each| each.value.clone()).collect();
        let rules = settings.iter().map(|setting| IpRules {
            allow: values(&setting.value.allow),
            deny: values(&setting.value.deny),
            origin: setting.origin.clone(),
            position: setting.value.position.clone(),
        });
        rules.collect()
    }
}

/// A network, or `@` and the path of a list.
struct NetworksKind;

impl ValueKind for NetworksKind {
    type Value = Networks;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Networks> {
        let Some(path) = value
            .get_ref()
            .as_str()
            .and_then(|text| text.strip_prefix('@'))
        else {
            let network = CidrText::decode(value, cx);
            if network.is_none()
                && let Some(text) = value.get_ref().as_str()
            {
                let is_file = text.ends_with(".txt") || text.starts_with(['/', '.']);
                match text {
                    "all" | "any" | "*" => cx.replace_last_help(
                        "\"0.0.0.0/0\" is all of IPv4, \"::/0\" all of IPv6; beside `allow`, all others are denied anyway"
                            .to_owned(),
                    ),
                    _ if is_file => {
                        cx.replace_last_help(format!("for the networks of a file, write \"@{text}\""));
                    }
                    _ => {}
                }
            }
            return network.map(Networks::Network);
        };
        match FilePathText::parse(path) {
            Ok(path) => Some(Networks::List(NamedFile {
                path: cx.beside(path),
                excerpt: Some(cx.excerpt(&value.span())),
            })),
            Err(problem) => {
                cx.problem(value.span(), path, problem);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text {
            noun: "a network, or `@` and the path of a list",
            pattern: Some("^([0-9a-fA-F.:]+(/[0-9]{1,3})?|@.*[^/])$"),
            examples: &[
                "10.0.0.0/8",
                "2001:db8::/32",
                "192.0.2.7",
                "@/etc/weir/office.txt",
            ],
        }
    }
}
