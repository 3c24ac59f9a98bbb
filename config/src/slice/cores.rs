//! `cores` and `driver`: the CPU cores of the data path, and what drives their io_uring.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::{ValueKind, WritableKind};
use crate::decode::kinds::{Keywords, TextKind, integer};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;

/// Which CPU cores run the data path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// As many as the affinity mask and the cgroup quota allow.
    Auto,
    /// This many of those.
    Count(NonZeroU32),
    /// These, by kernel number, ascending and without repeats.
    Set(Vec<u32>),
}

pub(crate) const CORES: Preset<Cores> = preset(Cores::Auto, "an edge machine runs little else");

/// The most cores that a file may ask for.
pub const CORES_MAX: u32 = 1_024;

/// `"auto"`, a number of cores, or their names.
pub(crate) struct CoresKind;

impl ValueKind for CoresKind {
    type Value = Cores;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Cores> {
        if let Some(number) = integer(value) {
            let count = number
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number <= CORES_MAX)
                .and_then(NonZeroU32::new);
            if count.is_none() {
                cx.error(
                    Code::BadValue,
                    value.span(),
                    format!("expected a number of cores from 1 to {CORES_MAX}"),
                )
                .help("write a string to name cores: \"0\" is the first one");
            }
            return count.map(Cores::Count);
        }
        if !value.get_ref().is_str() {
            cx.wrong_type(
                value,
                "\"auto\", a number of cores, or their names such as \"2-7,10\"",
            );
            return None;
        }
        CoresText::decode(value, cx)
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            Shape::Choice(vec!["auto"]),
            Shape::Integer {
                min: 1,
                max: CORES_MAX.into(),
            },
            CoresText::shape(),
        ])
    }
}

impl WritableKind for CoresKind {
    fn to_json(value: &Cores) -> Json {
        match value {
            Cores::Auto => Json::text("auto"),
            Cores::Count(count) => Json::Number(count.get().into()),
            Cores::Set(set) => {
                Json::Text(set.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

struct CoresText;

impl TextKind for CoresText {
    type Value = Cores;
    const NOUN: &'static str = "a set of cores";
    const PATTERN: Option<&'static str> = Some("^(auto|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$");
    const EXAMPLES: &'static [&'static str] = &["2-7,10", "0"];

    fn parse(text: &str) -> Result<Cores, Problem> {
        if text == "auto" {
            return Ok(Cores::Auto);
        }
        let mut set = BTreeSet::new();
        let mut at = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (core_number(first), core_number(last)) else {
                return Err(Problem::new(format!("`{part}` is not a core"))
                    .at(at, part.len())
                    .help(format!(
                        "write \"auto\", a number, or names below {CORES_MAX} such as \"2-7,10\""
                    )));
            };
            if first > last {
                return Err(Problem::new(format!("`{part}` runs backwards"))
                    .at(at, part.len())
                    .help(format!("write \"{last}-{first}\"")));
            }
            for core in first..=last {
                if !set.insert(core) {
                    return Err(
                        Problem::new(format!("core {core} is named twice")).at(at, part.len())
                    );
                }
            }
            at += part.len() + 1;
        }
        Ok(Cores::Set(set.into_iter().collect()))
    }
}

fn core_number(text: &str) -> Option<u32> {
    let number = text.parse::<u32>().ok()?;
    (number < CORES_MAX && text.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

/// What drives each core's io_uring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Weir's own.
    Auto,
    /// Weir's own driver.
    Ring,
    /// monoio.
    Monoio,
}

pub(crate) const DRIVER: Preset<Driver> = preset(Driver::Auto, "the cheaper one");

impl Keywords for Driver {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("ring", Self::Ring),
        ("monoio", Self::Monoio),
    ];
}

#[cfg(test)]
mod tests;
