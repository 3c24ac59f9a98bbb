//! What keeps the clients of an upstream at their endpoints.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use weir_config::{HashKey, SameSite, Sticky, StickyCookie};

use super::{CookiePlan, Plan};
use crate::tls::Marker;

/// What keeps the clients of an upstream at their endpoints.
#[derive(Clone, Debug)]
pub struct StickyPlan {
    /// What a client is known by.
    pub kind: StickyKind,
    /// Makes the marks that stand for endpoints in cookies.
    pub marker: Arc<Marker>,
    /// The file with the marker's key.
    key_file: Option<PathBuf>,
}

/// What a client is known by.
#[derive(Clone, Debug)]
pub enum StickyKind {
    /// A cookie that Weir sets. Its value is the mark of the endpoint.
    Cookie {
        /// The cookie.
        cookie: CookiePlan,
        /// Every answer sets it, so that its time begins anew.
        is_renewed: bool,
    },
    /// A cookie of this name that the application sets. The mark stands before its value.
    Learn(Box<str>),
    /// A field of the request, which is hashed.
    Field(HashKey),
}

impl fmt::Display for StickyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie { cookie, .. } => write!(f, "by cookie {cookie}"),
            Self::Learn(name) => write!(f, "by the application's cookie {name}"),
            Self::Field(key) => write!(f, "by {key}"),
        }
    }
}

/// The keys in files that a configuration names, by path.
#[derive(Default)]
pub struct StickyKeys(pub HashMap<PathBuf, Vec<u8>>);

impl fmt::Debug for StickyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl StickyPlan {
    /// Compiles the setting of the upstream of this name.
    pub(super) fn compile(sticky: &Sticky, upstream: &str) -> Self {
        let marker = Marker::new(format!("weir sticky {upstream}").as_bytes());
        let kind = match sticky {
            Sticky::Cookie(cookie) => StickyKind::Cookie {
                is_renewed: cookie.ttl.is_some(),
                cookie: compile_cookie(cookie, &marker),
            },
            Sticky::Learn(cookie) => StickyKind::Learn(cookie.name.as_str().into()),
            Sticky::Header(name) => StickyKind::Field(HashKey::Header(name.clone())),
        };
        Self {
            kind,
            marker: Arc::new(marker),
            key_file: sticky.key_file().map(|file| file.path.clone()),
        }
    }
}

fn compile_cookie(cookie: &StickyCookie, marker: &Marker) -> CookiePlan {
    let mut attributes = String::new();
    if let Some(ttl) = cookie.ttl {
        let _ = write!(attributes, "; Max-Age={}", ttl.as_secs().max(1));
    }
    let _ = write!(attributes, "; Path={}", cookie.path);
    if let Some(domain) = &cookie.domain {
        let _ = write!(attributes, "; Domain={domain}");
    }
    let same_site = match cookie.same_site {
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
        SameSite::None => "None",
    };
    let _ = write!(attributes, "; HttpOnly; SameSite={same_site}");
    let name = cookie.name.as_deref().map(Into::into);
    CookiePlan {
        name: name.unwrap_or_else(|| CookiePlan::name("weir-sticky-", marker)),
        attributes: attributes.into(),
    }
}

impl Plan {
    /// Adds the keys that were read for the same configuration.
    pub fn take_sticky_keys(&mut self, keys: &StickyKeys) {
        let sticky = self
            .upstreams
            .iter_mut()
            .filter_map(|each| each.sticky.as_mut());
        for sticky in sticky {
            let path = sticky.key_file.as_ref();
            if let Some(key) = path.and_then(|path| keys.0.get(path)) {
                sticky.marker = Arc::new(Marker::new(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(sticky: &str) -> StickyPlan {
        let text = format!(
            "[listen.\"127.0.0.1:8080\"]\n[upstream.app]\nservers = [\"127.0.0.1:1\"]\nsticky = {sticky}\n\
             [[route]]\nmatch = \"/*\"\nto = \"app\"\n"
        );
        let (config, _) = weir_config::parse("weir.toml", &text).expect("a valid file");
        let plan = Plan::compile(&config).expect("a plan");
        plan.upstreams[0].sticky.clone().expect("a sticky upstream")
    }

    fn cookie(sticky: &str) -> (CookiePlan, bool) {
        match compile(sticky).kind {
            StickyKind::Cookie { cookie, is_renewed } => (cookie, is_renewed),
            other => panic!("no cookie: {other:?}"),
        }
    }

    #[test]
    fn attributes_follow_from_the_settings() {
        let (plain, is_renewed) = cookie("\"cookie\"");
        assert_eq!(&*plain.attributes, "; Path=/; HttpOnly; SameSite=Lax");
        assert!(plain.name.starts_with("weir-sticky-") && !is_renewed);
        let (full, is_renewed) = cookie(
            "{ cookie = \"route\", ttl = \"1h\", path = \"/shop\", domain = \"example.com\", same_site = \"none\" }",
        );
        assert_eq!(
            &*full.attributes,
            "; Max-Age=3600; Path=/shop; Domain=example.com; HttpOnly; SameSite=None"
        );
        assert!(&*full.name == "route" && is_renewed);
    }

    #[test]
    fn a_key_changes_the_marks_and_not_the_name() {
        let text = "[listen.\"127.0.0.1:8080\"]\n[upstream.app]\nservers = [\"127.0.0.1:1\"]\n\
                    sticky = { key_file = \"/k\" }\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n";
        let (config, _) = weir_config::parse("weir.toml", text).expect("a valid file");
        let mut plan = Plan::compile(&config).expect("a plan");
        let mark = |plan: &Plan| {
            plan.upstreams[0]
                .sticky
                .as_ref()
                .map(|s| s.marker.mark("a"))
        };
        let before = mark(&plan);
        let keys = [(PathBuf::from("/k"), vec![7; 32])].into_iter().collect();
        plan.take_sticky_keys(&StickyKeys(keys));
        assert_ne!(mark(&plan), before);
        assert_eq!(before, Some(compile("\"cookie\"").marker.mark("a")));
    }
}
