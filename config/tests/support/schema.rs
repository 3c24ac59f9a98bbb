//! A validator for the part of JSON Schema (draft 2020-12) that Weir's schema uses. An unknown keyword is an error, so
//! that none is ever ignored.

use regex_lite::Regex;
use serde_json::Value;

pub(crate) struct Schema {
    root: Value,
}

impl Schema {
    pub(crate) fn new(text: &str) -> Self {
        let root: Value = serde_json::from_str(text).expect("the schema is JSON");
        Self { root }
    }

    /// Each key with a default, and what is wrong with that default.
    pub(crate) fn defaults(&self) -> Vec<(String, Vec<String>)> {
        let tables = self.root.get("$defs").and_then(Value::as_object);
        let tables = tables.into_iter().flatten().map(|(_, table)| table);
        let mut defaults = Vec::new();
        for table in tables.chain([&self.root]) {
            let properties = table.get("properties").and_then(Value::as_object);
            for (key, property) in properties.into_iter().flatten() {
                if let Some(default) = property.get("default") {
                    let mut problems = Vec::new();
                    self.check(property, default, key, &mut problems);
                    defaults.push((key.clone(), problems));
                }
            }
        }
        defaults
    }

    /// What is wrong with `value`; empty if it fits.
    pub(crate) fn problems(&self, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.check(&self.root, value, "$", &mut problems);
        problems
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
        let keywords = schema.as_object().expect("a schema is an object");
        for (keyword, rule) in keywords {
            let fits = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "examples" => true,
                "type" => has_type(value, rule.as_str().expect("a type")),
                "enum" => rule.as_array().expect("a list").contains(value),
                "minimum" => value
                    .as_i64()
                    .is_none_or(|n| n >= rule.as_i64().expect("a number")),
                "maximum" => value
                    .as_i64()
                    .is_none_or(|n| n <= rule.as_i64().expect("a number")),
                "pattern" => {
                    let pattern = Regex::new(rule.as_str().expect("a pattern")).expect("a pattern");
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                "required" => value.as_object().is_none_or(|object| {
                    let mut keys = rule.as_array().expect("a list").iter();
                    keys.all(|key| object.contains_key(key.as_str().expect("a key")))
                }),
                "$ref" => {
                    let name = rule.as_str().and_then(|rule| rule.strip_prefix("#/$defs/"));
                    let target = name.and_then(|name| self.root.get("$defs")?.get(name));
                    self.check(target.expect("a definition"), value, at, problems);
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}[{index}]"), problems);
                    }
                    true
                }
                "anyOf" => rule.as_array().expect("a list").iter().any(|each| {
                    let mut inner = Vec::new();
                    self.check(each, value, at, &mut inner);
                    inner.is_empty()
                }),
                "properties" | "additionalProperties" => {
                    self.check_members(keywords, keyword, rule, value, at, problems)
                }
                other => panic!("unknown keyword `{other}`"),
            };
            if !fits {
                problems.push(format!("{at}: {keyword} {rule}: {value}"));
            }
        }
    }

    fn check_members(
        &self,
        keywords: &serde_json::Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
        problems: &mut Vec<String>,
    ) -> bool {
        let known = keywords.get("properties").and_then(Value::as_object);
        for (key, member) in value.as_object().into_iter().flatten() {
            let property = known.and_then(|known| known.get(key));
            let rule = match (keyword, property) {
                ("properties", Some(property)) => property,
                ("additionalProperties", None) => rule,
                _ => continue,
            };
            if rule == &Value::Bool(false) {
                return false;
            }
            self.check(rule, member, &format!("{at}.{key}"), problems);
        }
        true
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        other => panic!("unknown type `{other}`"),
    }
}
