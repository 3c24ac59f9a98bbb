//! JSON that a third party sent, read strictly.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value (RFC 8259).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, in the shortest decimal form: `3`, `-1`, `0.5`. A value that the form would round is refused.
    Number(Box<str>),
    /// A string.
    Text(Box<str>),
    /// An array.
    List(Box<[Self]>),
    /// An object.
    Object(Object),
}

/// A JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object(Box<[(Box<str>, Json)]>);

/// From here on, not every whole number has a floating-point value of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Json {
    /// Reads a text that is one value.
    ///
    /// # Errors
    /// The text is not valid JSON, nests deeper than 128 levels, repeats a name in an object, or has a number that
    /// would be rounded.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The value of a string.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a number.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The members of a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A string, number or truth value as text.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The memory that the value uses beyond its own size, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Number(text) | Self::Text(text) => text.len(),
            Self::List(list) => {
                size_of_val(&**list) + list.iter().map(Self::heap_bytes).sum::<usize>()
            }
            Self::Object(object) => object.heap_bytes(),
        }
    }
}

impl Object {
    /// Reads a text that is one object.
    ///
    /// # Errors
    /// The same as those of [`Json::parse`]; the text is another kind of value.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        match Json::parse(text)? {
            Json::Object(object) => Ok(object),
            _ => Err(serde_json::Error::custom("it is not an object")),
        }
    }

    /// The member `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json> {
        let index = self.0.binary_search_by(|(known, _)| (**known).cmp(name));
        index
            .ok()
            .and_then(|index| self.0.get(index))
            .map(|(_, value)| value)
    }

    /// The members in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// The memory that the object uses beyond its own size, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let of_members = self
            .0
            .iter()
            .map(|(name, value)| name.len() + value.heap_bytes());
        size_of_val(&*self.0) + of_members.sum::<usize>()
    }

    /// The object with these members, or a name that is repeated.
    fn from_members(mut members: Vec<(Box<str>, Json)>) -> Result<Self, Box<str>> {
        // A search for each name would take quadratic time, and a third party chooses how many there are.
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut pairs = members.iter().zip(members.iter().skip(1));
        match pairs.find(|(one, next)| one.0 == next.0) {
            Some(((name, _), _)) => Err(name.clone()),
            None => Ok(Self(members.into_boxed_slice())),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string().into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string().into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        // Two account numbers may not become one.
        if value.abs() >= EXACT_MAX {
            return Err(E::custom("a number is too large to be exact"));
        }
        Ok(Json::Number(value.to_string().into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            list.push(member);
        }
        Ok(Json::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut list: Vec<(Box<str>, Json)> = Vec::new();
        while let Some(member) = members.next_entry()? {
            list.push(member);
        }
        let object = Object::from_members(list);
        let object = object
            .map_err(|name| A::Error::custom(format_args!("the name {name:?} is repeated")))?;
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, String> {
        Json::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_read() {
        let all = parse(r#" {"b":[1,-2,0.5,"x",true,null],"a":{"c":"\u00e9"}} "#).unwrap();
        let object = all.as_object().unwrap();
        let list = object.get("b").unwrap().as_list().unwrap();
        let scalars: Vec<_> = list.iter().map(Json::scalar).collect();
        assert_eq!(
            scalars,
            [
                Some("1"),
                Some("-2"),
                Some("0.5"),
                Some("x"),
                Some("true"),
                None
            ]
        );
        assert_eq!(list[2].as_number(), Some(0.5));
        let inner = object.get("a").unwrap().as_object().unwrap();
        assert_eq!(inner.get("c").unwrap().as_text(), Some("é"));
        assert_eq!(object.get("c"), None);
    }

    #[test]
    fn a_repeated_name_is_refused_at_every_level() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"[{"x":{"a":1,"a":2}}]"#,
            r#"{"x":[{"a":null,"a":null}]}"#,
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(r#"the name "a" is repeated"#),
                "{text}: {error}"
            );
        }
        parse(r#"{"a":{"a":1},"b":{"a":1}}"#).unwrap();
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "{",
            "{}{}",
            "{} x",
            "{\"a\":}",
            "{a:1}",
            "{'a':1}",
            "[1,]",
            "{\"a\":1,}",
            "NaN",
            "Infinity",
            "01",
            "+1",
            ".5",
            "1.",
            "0x10",
            "1e400",
            "\"\u{1}\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\u{feff}{}",
            "nul",
            "tru",
            "// c\n{}",
        ] {
            parse(text).unwrap_err();
        }
        Json::parse(b"\"\xff\"").unwrap_err();
        Json::parse(b"{\"\xc0\xaf\":1}").unwrap_err();
        parse(&"[".repeat(100_000)).unwrap_err();
        parse(&format!("{}1{}", "[".repeat(129), "]".repeat(129))).unwrap_err();
        Object::parse(b"[]").unwrap_err();
    }

    #[test]
    fn no_number_is_rounded() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.0", "-0"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9007199254740991.0", "9007199254740991"),
        ] {
            assert_eq!(parse(text).unwrap().scalar(), Some(shown));
        }
        for text in [
            "18446744073709551616",
            "9007199254740993.0",
            "-1e16",
            "1e300",
        ] {
            parse(text).unwrap_err();
        }
    }

    #[test]
    fn many_names_take_no_quadratic_time() {
        let members: Vec<_> = (0..200_000).map(|index| format!("\"{index}\":0")).collect();
        let object = Object::parse(format!("{{{}}}", members.join(",")).as_bytes()).unwrap();
        assert_eq!(object.get("199999").unwrap().scalar(), Some("0"));
        assert!(object.heap_bytes() > 200_000 * size_of::<(Box<str>, Json)>());
    }
}
