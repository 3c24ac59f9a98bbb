//! General kinds of values: strings, numbers, choices, lists, tables, short and long forms.

use std::marker::PhantomData;
use toml::de::DeValue;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::{TableKind, ValueKind, WritableKind};
use crate::decode::shape::Shape;
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::suggest::nearest;

/// A value that a file writes as a string.
pub(crate) trait TextKind {
    /// The type of a value that was read.
    type Value;
    /// What it is called, with its article.
    const NOUN: &'static str;
    /// A regular expression (ECMA-262), for editors.
    const PATTERN: Option<&'static str> = None;
    /// Valid values.
    const EXAMPLES: &'static [&'static str];

    /// Reads the string.
    fn parse(text: &str) -> Result<Self::Value, Problem>;

    /// Advice for a file that has this number instead of a string.
    fn from_number(_number: &str) -> Option<String> {
        None
    }
}

impl<T: TextKind> ValueKind for T {
    type Value = T::Value;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let Some(text) = value.get_ref().as_str() else {
            let diagnostic = cx.wrong_type(value, &Self::shape().in_words());
            if let DeValue::Integer(number) = value.get_ref()
                && let Some(help) = T::from_number(number.as_str())
            {
                diagnostic.help(help);
            }
            return None;
        };
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(problem) => {
                cx.problem(value.span(), text, problem);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text {
            noun: T::NOUN,
            pattern: T::PATTERN,
            examples: T::EXAMPLES,
        }
    }
}

/// Any string.
pub(crate) struct PlainText;

impl TextKind for PlainText {
    type Value = String;
    const NOUN: &'static str = "a string";
    const EXAMPLES: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<String, Problem> {
        Ok(text.to_owned())
    }
}

/// A whole number within bounds.
pub(crate) struct Count<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> ValueKind for Count<MIN, MAX> {
    type Value = u32;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<u32> {
        let expected = Self::shape().in_words();
        let Some(number) = integer(value) else {
            let diagnostic = cx.wrong_type(value, &expected);
            if let Some(text) = value.get_ref().as_str()
                && text.parse::<u32>().is_ok()
            {
                diagnostic.help(format!("write {text}, without quotes"));
            }
            return None;
        };
        let found = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (MIN..=MAX).contains(number));
        if found.is_none() {
            cx.error(Code::BadValue, value.span(), format!("expected {expected}"));
        }
        found
    }

    fn shape() -> Shape {
        Shape::Integer {
            min: MIN.into(),
            max: MAX.into(),
        }
    }
}

impl<const MIN: u32, const MAX: u32> WritableKind for Count<MIN, MAX> {
    fn to_json(value: &u32) -> Json {
        Json::Number((*value).into())
    }
}

/// The whole number that `value` is; the inner `None` is a number below 0 or above 64 bits.
pub(crate) fn integer(value: &Value<'_>) -> Option<Option<u64>> {
    let number = value.get_ref().as_integer()?;
    Some(u64::from_str_radix(number.as_str(), number.radix()).ok())
}

/// A type whose values a file writes as words.
pub(crate) trait Keywords: Sized + Copy + 'static {
    /// Each word, and the value that it stands for.
    const ALL: &'static [(&'static str, Self)];

    /// What helps someone who writes a word that is none of these on purpose.
    fn help(_word: &str) -> Option<&'static str> {
        None
    }
}

/// One of the keywords of `W`.
pub(crate) struct Choice<W>(PhantomData<W>);

impl<W: Keywords> ValueKind for Choice<W> {
    type Value = W;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<W> {
        let expected = Self::shape().in_words();
        let Some(word) = value.get_ref().as_str() else {
            cx.wrong_type(value, &expected);
            return None;
        };
        let found = W::ALL.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let near = nearest(word, W::ALL.iter().map(|(known, _)| *known));
            let message = format!("unknown value `{word}`, expected {expected}");
            let diagnostic = cx.error(Code::BadValue, value.span(), message);
            if let Some(help) = W::help(word) {
                diagnostic.help(help);
            } else if let Some(near) = near {
                diagnostic.label(format!("did you mean \"{near}\"?"));
            }
        }
        found.map(|(_, value)| *value)
    }

    fn shape() -> Shape {
        Shape::Choice(W::ALL.iter().map(|(word, _)| *word).collect())
    }
}

impl<W: Keywords + PartialEq> WritableKind for Choice<W> {
    fn to_json(value: &W) -> Json {
        let word = W::ALL.iter().find(|(_, known)| known == value);
        word.map_or(Json::Null, |(word, _)| Json::text(word))
    }
}

/// A `K`, or `"off"` for none.
pub(crate) struct OrOff<K>(PhantomData<K>);

impl<K: ValueKind> ValueKind for OrOff<K> {
    type Value = Option<K::Value>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        match value.get_ref() {
            DeValue::String(text) if text == "off" => Some(None),
            _ => K::decode(value, cx).map(Some),
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![K::shape(), Shape::Choice(vec!["off"])])
    }
}

impl<K: WritableKind> WritableKind for OrOff<K> {
    fn to_json(value: &Self::Value) -> Json {
        value.as_ref().map_or_else(|| Json::text("off"), K::to_json)
    }
}

/// A `K`, or `"auto"` for what the machine has.
pub(crate) struct OrAuto<K>(PhantomData<K>);

impl<K: ValueKind> ValueKind for OrAuto<K> {
    type Value = Option<K::Value>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        match value.get_ref() {
            DeValue::String(text) if text == "auto" => Some(None),
            _ => K::decode(value, cx).map(Some),
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![K::shape(), Shape::Choice(vec!["auto"])])
    }
}

impl<K: WritableKind> WritableKind for OrAuto<K> {
    fn to_json(value: &Self::Value) -> Json {
        value
            .as_ref()
            .map_or_else(|| Json::text("auto"), K::to_json)
    }
}

/// A list of `K`, or a single one. Items that cannot be read are reported and left out.
pub(crate) struct OneOrMany<K>(PhantomData<K>);

impl<K: ValueKind> ValueKind for OneOrMany<K> {
    type Value = Vec<K::Value>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let Some(items) = value.get_ref().as_array() else {
            return K::decode(value, cx).map(|only| vec![only]);
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let number = (index + 1).to_string();
            list.extend(cx.within(&number, |cx| K::decode(item, cx)));
        }
        Some(list)
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![K::shape(), Shape::List(Box::new(K::shape()))])
    }
}

/// An array of tables: `[[route]]`.
pub(crate) struct TableArray<T>(PhantomData<T>);

impl<T: TableKind> ValueKind for TableArray<T> {
    type Value = Vec<T::Value>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if value.get_ref().is_array() {
            return OneOrMany::<T>::decode(value, cx);
        }
        let header = T::info().header;
        cx.wrong_type(value, "a list of tables").help(format!(
            "begin each table with {header}, in double brackets"
        ));
        None
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

/// The word that stands for a key of a [`NamedEntries`] table in messages and in the reference.
pub(crate) trait KeyPlaceholder {
    const NAME: &'static str;

    /// The entries of the table that `value`, which is no table, probably stands for.
    fn written(_value: &Value<'_>) -> Option<String> {
        None
    }
}

/// A table whose keys are names that the file chooses, in file order. The name of a value that cannot be read is kept.
pub(crate) struct NamedEntries<N, K>(PhantomData<(N, K)>);

/// One entry of a [`NamedEntries`] table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedEntry<T> {
    pub(crate) name: Spanned<String>,
    pub(crate) value: Option<T>,
}

impl<N: KeyPlaceholder, K: ValueKind> ValueKind for NamedEntries<N, K> {
    type Value = Vec<NamedEntry<K::Value>>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let Some(table) = value.get_ref().as_table() else {
            let help = match N::written(value).filter(|entries| !entries.is_empty()) {
                Some(entries) => format!("write {} = {{ {entries} }}", cx.key()),
                None => format!("write {}", cx.header_for(value, N::NAME)),
            };
            cx.wrong_type(value, &format!("a table, one {} each", N::NAME))
                .help(help);
            return None;
        };
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let text = key.get_ref().to_string();
            let value = cx.within(&quoted_if_needed(&text), |cx| K::decode(value, cx));
            let name = Spanned {
                value: text,
                span: key.span(),
            };
            entries.push(NamedEntry { name, value });
        }
        entries.sort_by_key(|entry| entry.name.span.start);
        Some(entries)
    }

    fn shape() -> Shape {
        Shape::Named {
            key: N::NAME,
            value: Box::new(K::shape()),
        }
    }
}

/// `key` as a header of a table writes it.
pub(crate) fn quoted_if_needed(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        format!("\"{key}\"")
    }
}

/// A table that describes something which also has a short form.
pub(crate) trait LongForm: TableKind {
    /// What the table describes.
    type Out;

    /// Makes that of the table. `None` means that `cx` has the reason.
    fn build(table: Self::Value, cx: &mut Decoder<'_>) -> Option<Self::Out>;
}

/// The table `L`, or its short form `S`.
pub(crate) struct ShortOrLong<S, L>(PhantomData<(S, L)>);

impl<S: ValueKind, L: LongForm> ValueKind for ShortOrLong<S, L>
where
    S::Value: Into<L::Out>,
{
    type Value = L::Out;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if value.get_ref().is_table() {
            L::build(L::decode(value, cx)?, cx)
        } else {
            S::decode(value, cx).map(Into::into)
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![S::shape(), L::shape()])
    }
}

/// A `K` with its span.
pub(crate) struct SpannedKind<K>(PhantomData<K>);

impl<K: ValueKind> ValueKind for SpannedKind<K> {
    type Value = Spanned<K::Value>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        K::decode(value, cx).map(|inner| Spanned {
            value: inner,
            span: value.span(),
        })
    }

    fn shape() -> Shape {
        K::shape()
    }
}

/// A `K` with its span, which is kept even if the value cannot be read.
pub(crate) struct FallibleKind<K>(PhantomData<K>);

impl<K: ValueKind> ValueKind for FallibleKind<K> {
    type Value = Spanned<Option<K::Value>>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        Some(Spanned {
            value: K::decode(value, cx),
            span: value.span(),
        })
    }

    fn shape() -> Shape {
        K::shape()
    }
}

/// One of the places where a file may have a table that several places share.
pub(crate) trait TableScope {
    /// Keys that have no effect there, each with the reason.
    const NO_EFFECT: &'static [(&'static str, &'static str)];
}

/// The table `T`, at the place `S`; warns of keys without effect there. They are no errors: the file says nothing
/// wrong.
pub(crate) struct InScope<S, T>(PhantomData<(S, T)>);

impl<S: TableScope, T: TableKind> ValueKind for InScope<S, T> {
    type Value = T::Value;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        for (key, _) in value.get_ref().as_table().into_iter().flatten() {
            let name: &str = key.get_ref();
            if let Some((_, reason)) = S::NO_EFFECT.iter().find(|(known, _)| *known == name) {
                cx.warning(
                    Code::NoEffect,
                    key.span(),
                    format!("`{name}` has no effect here"),
                )
                .label(*reason);
            }
        }
        T::decode(value, cx)
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// `true` or `false`.
pub(crate) struct BooleanKind;

impl ValueKind for BooleanKind {
    type Value = bool;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<bool> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            let diagnostic = cx.wrong_type(value, "true or false");
            let text = value.get_ref().as_str().unwrap_or("");
            if ["true", "on", "yes"].contains(&text.to_ascii_lowercase().as_str()) {
                diagnostic.help("write true");
            }
        }
        found
    }

    fn shape() -> Shape {
        Shape::Boolean
    }
}

impl WritableKind for BooleanKind {
    fn to_json(value: &bool) -> Json {
        Json::Bool(*value)
    }
}
