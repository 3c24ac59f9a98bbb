//! `compress`: which answers Weir compresses, and how.

use crate::decode::amounts::SizeText;
use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{
    BooleanKind, Choice, Count, Keywords, OneOrMany, SpannedKind, TextKind, integer,
};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Place, Policy, Setting};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::source::Span;

/// Which answers Weir compresses, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// The codings, the preferred ones first, each with its level.
    pub algorithms: Vec<(ContentCoding, u8)>,
    /// Patterns for media types: `text/html`, `text/*`, `+json`.
    pub types: Vec<String>,
    /// Answers that are known to be shorter stay as they are.
    pub bytes_min: u64,
}

/// A content coding that Weir offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// `zstd`.
    Zstd,
    /// `br`.
    Br,
    /// `gzip`.
    Gzip,
}

impl Keywords for ContentCoding {
    const ALL: &'static [(&'static str, Self)] =
        &[("zstd", Self::Zstd), ("br", Self::Br), ("gzip", Self::Gzip)];
}

impl ContentCoding {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// A level that pays at the speed of a network.
    fn default_level(self) -> u8 {
        match self {
            Self::Zstd => 3,
            Self::Br => 4,
            Self::Gzip => 5,
        }
    }

    /// The highest level. Those above take tens of megabytes or milliseconds for each answer, which only pays for files
    /// that are compressed once.
    fn max_level(self) -> u8 {
        match self {
            Self::Zstd => ZSTD_LEVEL_MAX as u8,
            Self::Br => BR_LEVEL_MAX as u8,
            Self::Gzip => GZIP_LEVEL_MAX as u8,
        }
    }
}

const ZSTD_LEVEL_MAX: u32 = 12;
const BR_LEVEL_MAX: u32 = 6;
const GZIP_LEVEL_MAX: u32 = 9;

/// Types that shrink well. Images, videos, archives and WOFF fonts are compressed already.
const TYPES: &[&str] = &[
    "text/*",
    "+json",
    "+xml",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/vnd.ms-fontobject",
    "font/collection",
    "font/otf",
    "font/ttf",
];

const BYTES_MIN: u64 = 1024;
const BYTES_MIN_MAX: u64 = 1 << 30;

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &[
            "gzip_types",
            "brotli_types",
            "mime_types",
            "content_types",
            "content_type",
        ],
        "`types`",
    ),
    (
        &[
            "min_length",
            "minimum_length",
            "gzip_min_length",
            "min_size",
            "minResponseBodyBytes",
            "min_content_length",
        ],
        "`min`",
    ),
    (
        &[
            "comp_level",
            "gzip_comp_level",
            "brotli_comp_level",
            "quality",
            "compression_level",
        ],
        "`level`",
    ),
    (
        &["encodings", "encoding", "algo", "codings"],
        "`algorithms`",
    ),
];

table! {
    /// Which answers Weir compresses, and how. `true` stands for an empty table, a list for one with `algorithms`.
    RawCompress, "compress", "compress of a policy", foreign FOREIGN_NAMES {
        /// The codings on offer: "zstd", "br", "gzip". Clients say how much they like each; the order here decides among
        /// those that a client likes equally. Default: ["zstd", "br", "gzip"].
        optional algorithms: Spanned<Vec<Spanned<ContentCoding>>> =
            "algorithms" as SpannedKind<CodingList>;
        /// The media types that are worth it: a type ("application/json"), all of a kind ("text/*") or all with an ending
        /// ("+json"). Replaces the default: text, JSON, JavaScript, XML, SVG, WebAssembly, NDJSON and fonts without a
        /// compression of their own.
        optional types: Vec<String> = "types" as OneOrMany<MediaTypeText>;
        /// The shortest answer that Weir compresses, if its length is known. Answers of unknown length are always
        /// compressed. Default: 1KiB.
        optional min: u64 = "min" as SizeText<0, BYTES_MIN_MAX>;
        /// How hard Weir tries: one number for all algorithms, or a table { zstd, br, gzip }. zstd has levels 1 to 12, br
        /// 1 to 6, gzip 1 to 9. Default: zstd 3, br 4, gzip 5.
        optional level: Spanned<Levels> = "level" as SpannedKind<LevelKind>;
    }
}

table! {
    /// How hard Weir tries, by algorithm.
    RawLevels, "compress level", "level of compress" {
        /// The level of zstd. Default: 3.
        optional zstd: u32 = "zstd" as Count<1, ZSTD_LEVEL_MAX>;
        /// The level of br. Default: 4.
        optional br: u32 = "br" as Count<1, BR_LEVEL_MAX>;
        /// The level of gzip. Default: 5.
        optional gzip: u32 = "gzip" as Count<1, GZIP_LEVEL_MAX>;
    }
}

/// Codings in order of preference, each once.
pub(crate) struct CodingList;

impl ValueKind for CodingList {
    type Value = Vec<Spanned<ContentCoding>>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let list = OneOrMany::<SpannedKind<Choice<ContentCoding>>>::decode(value, cx)?;
        if value
            .get_ref()
            .as_array()
            .is_some_and(|items| items.is_empty())
        {
            cx.error(Code::BadValue, value.span(), "`compress` has no algorithm")
                .help("name one of zstd, br, gzip, or write compress = \"off\"");
            return None;
        }
        for (index, coding) in list.iter().enumerate() {
            let mut before = list.iter().take(index);
            if before.any(|earlier| earlier.value == coding.value) {
                let message = format!("`{}` is in the list twice", coding.value.name());
                cx.error(Code::BadValue, coding.span.clone(), message)
                    .help("the first place counts: leave this one out");
            }
        }
        Some(list)
    }

    fn shape() -> Shape {
        OneOrMany::<Choice<ContentCoding>>::shape()
    }
}

/// A pattern for media types.
pub(crate) struct MediaTypeText;

impl TextKind for MediaTypeText {
    type Value = String;
    const NOUN: &'static str = "a media type";
    const PATTERN: Option<&'static str> = Some("^([^ ;,/+]+/[^ ;,]+|\\+[^ ;,/]+)$");
    const EXAMPLES: &'static [&'static str] = &["application/json", "text/*", "+json"];

    fn parse(text: &str) -> Result<String, Problem> {
        let is_token = |text: &str| {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
            !text.is_empty() && text.bytes().all(is_part)
        };
        if let Some(ending) = text.strip_prefix('+') {
            return match is_token(ending) {
                true => Ok(text.to_owned()),
                false => {
                    Err(Problem::new("not the ending of a media type").help("write one like +json"))
                }
            };
        }
        match text.split_once('/') {
            Some((main, sub)) if is_token(main) && (sub == "*" || is_token(sub)) => {
                Ok(text.to_owned())
            }
            Some((_, sub)) if sub.contains(';') => Err(Problem::new("a type without parameters")
                .help("leave out the `;` and what follows")),
            _ => Err(Problem::new("not a media type")
                .help("write one like application/json, text/* or +json")),
        }
    }
}

/// What `level` says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Levels {
    /// One level for all algorithms.
    All(u32),
    /// A level for some of them.
    Each {
        zstd: Option<u32>,
        br: Option<u32>,
        gzip: Option<u32>,
    },
}

/// A number, or a table of levels.
pub(crate) struct LevelKind;

/// The number for all algorithms; which of them have it is checked when they are known.
type AnyLevel = Count<1, ZSTD_LEVEL_MAX>;

impl ValueKind for LevelKind {
    type Value = Levels;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Levels> {
        if !value.get_ref().is_table() {
            if integer(value).is_none() {
                cx.wrong_type(value, "a number, or a table { zstd, br, gzip }");
                return None;
            }
            return AnyLevel::decode(value, cx).map(Levels::All);
        }
        let RawLevels { zstd, br, gzip, .. } = RawLevels::decode(value, cx)?;
        Some(Levels::Each { zstd, br, gzip })
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![AnyLevel::shape(), RawLevels::shape()])
    }
}

impl Levels {
    fn of(self, coding: ContentCoding) -> Option<u32> {
        match (self, coding) {
            (Self::All(level), _) => Some(level),
            (Self::Each { zstd, .. }, ContentCoding::Zstd) => zstd,
            (Self::Each { br, .. }, ContentCoding::Br) => br,
            (Self::Each { gzip, .. }, ContentCoding::Gzip) => gzip,
        }
    }
}

/// What one level of the file says.
#[derive(Debug, Clone, Default)]
pub(crate) struct CompressSetting {
    algorithms: Option<Vec<ContentCoding>>,
    types: Option<Vec<String>>,
    min: Option<u64>,
    level: Option<Spanned<Levels>>,
}

/// `true`, a list of algorithms, or a table.
pub(crate) struct CompressKind;

impl ValueKind for CompressKind {
    type Value = CompressSetting;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<CompressSetting> {
        let plain =
            |list: Vec<Spanned<ContentCoding>>| list.iter().map(|each| each.value).collect();
        let node = value.get_ref();
        if node.is_table() {
            let table = RawCompress::decode(value, cx)?;
            return Some(CompressSetting {
                algorithms: table.algorithms.map(|list| plain(list.value)),
                types: table.types,
                min: table.min,
                level: table.level,
            });
        }
        if let Some("on" | "yes" | "true") = node.as_str() {
            cx.wrong_type(value, "true, a list of algorithms, or a table")
                .help("write compress = true");
            return None;
        }
        if node.is_array() || node.is_str() {
            return CodingList::decode(value, cx).map(|list| CompressSetting {
                algorithms: Some(plain(list)),
                ..CompressSetting::default()
            });
        }
        match node.as_bool() {
            Some(true) => Some(CompressSetting::default()),
            Some(false) => {
                cx.error(
                    Code::BadValue,
                    value.span(),
                    "`compress` is not switched off like this",
                )
                .help("write compress = \"off\", or leave it out");
                None
            }
            None => {
                cx.wrong_type(value, "true, a list of algorithms, or a table");
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            BooleanKind::shape(),
            CodingList::shape(),
            RawCompress::shape(),
        ])
    }
}

impl Policy for CompressKind {
    type Combined = Option<Compress>;

    fn combine(
        settings: &[Setting<'_, CompressSetting>],
        _place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Option<Compress> {
        let from_top = || settings.iter().rev().map(|setting| setting.value);
        let algorithms = from_top().find_map(|value| value.algorithms.clone());
        let algorithms = algorithms.unwrap_or_else(|| {
            ContentCoding::ALL
                .iter()
                .map(|(_, coding)| *coding)
                .collect()
        });
        let level = from_top().find_map(|value| value.level.clone());
        let level_of = |coding: &ContentCoding| {
            let set = level
                .as_ref()
                .and_then(|level| Some((level.value.of(*coding)?, &level.span)));
            let number = match set {
                Some((number, span)) => check_level(*coding, number, span, cx),
                None => coding.default_level(),
            };
            (*coding, number)
        };
        Some(Compress {
            algorithms: algorithms.iter().map(level_of).collect(),
            types: from_top()
                .find_map(|value| value.types.clone())
                .unwrap_or_else(|| TYPES.iter().map(|&text| text.to_owned()).collect()),
            bytes_min: from_top().find_map(|value| value.min).unwrap_or(BYTES_MIN),
        })
    }
}

/// Reports a level that the algorithm does not have.
fn check_level(coding: ContentCoding, level: u32, span: &Span, cx: &mut Decoder<'_>) -> u8 {
    let max = coding.max_level();
    if level > u32::from(max) {
        let name = coding.name();
        let message = format!("`{name}` has levels 1 to {max} here");
        cx.error(Code::BadValue, span.clone(), message).help(format!(
            "higher ones are for files that are compressed once; write a level for each algorithm, like {{ {name} = {max} }}"
        ));
    }
    level.min(max.into()) as u8
}
