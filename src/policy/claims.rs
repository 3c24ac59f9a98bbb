//! Claims: what a verified token says about its holder.

use super::json::{Json, Object};

/// The claims of a verified token (RFC 7519, section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(Object);

/// A claim that can be the value of a field.
#[derive(Clone, Copy, Debug)]
pub struct ClaimValue<'c>(&'c Json);

impl Claims {
    /// The claims that an object has.
    #[must_use]
    pub fn new(object: Object) -> Self {
        Self(object)
    }

    /// Reads claims from JSON.
    ///
    /// # Errors
    /// The same as those of [`Object::parse`].
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        Object::parse(text).map(Self)
    }

    /// The claim `name`. If no claim has the whole name, a dot leads into an object: `realm_access.roles`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json> {
        find(&self.0, name)
    }

    /// The claim of exactly this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    /// The claim `name` as text, if it is a string, a number, `true` or `false`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.scalar()
    }

    /// Whether the claim `name` has this text, or is a list with a member that has it.
    #[must_use]
    pub fn has(&self, name: &str, text: &str) -> bool {
        let is_it = |value: &Json| value.scalar() == Some(text);
        match self.get(name) {
            Some(Json::List(list)) => list.iter().any(is_it),
            Some(value) => is_it(value),
            None => false,
        }
    }

    /// Whether the token grants `scope`: `scope` lists it between spaces (RFC 8693, section 4.2), or `scp` does, or is
    /// a list that has it.
    #[must_use]
    pub fn grants(&self, scope: &str) -> bool {
        ["scope", "scp"].iter().any(|name| match self.0.get(name) {
            Some(Json::Text(text)) => text.split(' ').any(|granted| granted == scope),
            Some(Json::List(list)) => list.iter().any(|granted| granted.as_text() == Some(scope)),
            _ => false,
        })
    }

    /// The claim `name` as the value of a field: text as [`Claims::text`] gives it, the members of a list with commas
    /// between them. `None` without such a claim, and if the value could be taken for another one: with a control
    /// character in it, with a comma in a member of a list, or with a member that has no text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<ClaimValue<'_>> {
        let value = self.get(name)?;
        let is_safe = match value {
            Json::List(list) => list.iter().all(|member| {
                let text = member.scalar();
                text.is_some_and(|text| is_visible(text) && !text.contains(','))
            }),
            value => value.scalar().is_some_and(is_visible),
        };
        is_safe.then_some(ClaimValue(value))
    }

    /// The memory that the claims use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.heap_bytes()
    }
}

impl<'c> ClaimValue<'c> {
    /// The pieces of the value, one behind the other.
    pub fn pieces(self) -> impl Iterator<Item = &'c str> {
        let members = match self.0 {
            Json::List(list) => list,
            value => std::slice::from_ref(value),
        };
        members.iter().enumerate().flat_map(|(index, member)| {
            let comma = (index > 0).then_some(",");
            comma.into_iter().chain(member.scalar())
        })
    }
}

/// Whether a field's value may have all characters of `text`.
//= rfc9110#5.5
fn is_visible(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_control())
}

fn find<'o>(object: &'o Object, name: &str) -> Option<&'o Json> {
    object.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(object.get(first)?.as_object()?, rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Claims {
        Claims::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_with_dots_lead_into_objects() {
        let claims = claims(
            r#"{"sub":"ann","a.b":"whole","a":{"b":"part","c":{"d":[1]}},"https://x.example/plan":"gold"}"#,
        );
        assert_eq!(claims.text("sub"), Some("ann"));
        assert_eq!(claims.text("a.b"), Some("whole"));
        assert!(claims.has("a.c.d", "1"));
        assert_eq!(claims.text("https://x.example/plan"), Some("gold"));
        for name in ["", ".", "a", "a.", ".a", "sub.x", "a.c.d.e", "Sub"] {
            assert_eq!(claims.text(name), None, "{name}");
        }
    }

    #[test]
    fn a_predicate_holds_for_a_text_or_a_member() {
        let claims = claims(
            r#"{"plan":"gold","n":3,"on":true,"roles":["a","b",7,["c"]],"null":null,"o":{}}"#,
        );
        for (name, text) in [
            ("plan", "gold"),
            ("n", "3"),
            ("on", "true"),
            ("roles", "b"),
            ("roles", "7"),
        ] {
            assert!(claims.has(name, text), "{name}");
        }
        for (name, text) in [
            ("plan", "Gold"),
            ("plan", "gol"),
            ("n", "3.0"),
            ("on", "1"),
            ("roles", "c"),
            ("roles", "a,b"),
            ("null", "null"),
            ("o", ""),
            ("none", ""),
        ] {
            assert!(!claims.has(name, text), "{name}");
        }
    }

    #[test]
    fn scopes_are_words() {
        let spaced = claims(r#"{"scope":"read write:all"}"#);
        assert!(spaced.grants("read") && spaced.grants("write:all"));
        assert!(!spaced.grants("write") && !spaced.grants("read write:all") && !spaced.grants(" "));
        assert!(claims(r#"{"scp":"read"}"#).grants("read"));
        assert!(claims(r#"{"scp":["read","x"]}"#).grants("x"));
        assert!(claims(r#"{"scope":["read"]}"#).grants("read"));
        assert!(!claims(r#"{"scp":["read x"]}"#).grants("read"));
        assert!(!claims(r#"{"scope":1}"#).grants("1"));
        assert!(!claims("{}").grants("read"));
    }

    #[test]
    fn a_field_never_says_more_than_the_claim() {
        let claims = claims(
            r#"{"sub":"ann","n":3,"roles":["a","b"],"none":[],"crlf":"a\r\nX-Admin: 1","tab":"a\tb","nul":"\u0000",
                "two":["x,admin"],"deep":[["a"]],"cr":["a","b\r"],"o":{"a":1},"null":null,"utf":"zoë"}"#,
        );
        let value = |name| Some(claims.field(name)?.pieces().collect::<String>());
        for (name, wanted) in [
            ("sub", "ann"),
            ("n", "3"),
            ("roles", "a,b"),
            ("none", ""),
            ("o.a", "1"),
            ("utf", "zoë"),
        ] {
            assert_eq!(value(name).as_deref(), Some(wanted), "{name}");
        }
        for name in [
            "crlf", "tab", "nul", "two", "deep", "cr", "o", "null", "absent",
        ] {
            assert_eq!(value(name), None, "{name}");
        }
    }
}
