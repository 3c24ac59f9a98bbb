//! Files that the configuration names.

use std::path::PathBuf;

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::TextKind;
use crate::decode::shape::Shape;
use crate::text::diagnostic::Excerpt;
use crate::text::problem::Problem;

/// A file that the configuration names, and where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path; one that is written relatively begins with the folder of the file of configuration.
    pub path: PathBuf,
    /// Where it is named; nowhere when there is no file of configuration.
    pub excerpt: Option<Excerpt>,
}

/// The path of a file.
pub(crate) struct NamedFileKind;

impl ValueKind for NamedFileKind {
    type Value = NamedFile;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<NamedFile> {
        let path = FilePathText::decode(value, cx)?;
        Some(NamedFile {
            path: cx.beside(path),
            excerpt: Some(cx.excerpt(&value.span())),
        })
    }

    fn shape() -> Shape {
        FilePathText::shape()
    }
}

struct FilePathText;

impl TextKind for FilePathText {
    type Value = PathBuf;
    const NOUN: &'static str = "a file";
    const PATTERN: Option<&'static str> = Some("[^/]$");
    const EXAMPLES: &'static [&'static str] = &["/etc/weir/site.pem"];

    fn parse(text: &str) -> Result<PathBuf, Problem> {
        if text.starts_with("-----BEGIN") {
            return Err(Problem::new(
                "expected the path of a file, found what should be in it",
            ));
        }
        if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            let problem = Problem::new(format!("`{text}` is no path of a file"));
            return Err(problem
                .help("for example \"/etc/weir/site.pem\", or \"site.pem\" beside this file"));
        }
        Ok(PathBuf::from(text))
    }
}

/// The absolute path of a file, with its place.
pub(crate) struct AbsoluteFileKind;

impl ValueKind for AbsoluteFileKind {
    type Value = NamedFile;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<NamedFile> {
        Some(NamedFile {
            path: AbsolutePathText::decode(value, cx)?,
            excerpt: Some(cx.excerpt(&value.span())),
        })
    }

    fn shape() -> Shape {
        AbsolutePathText::shape()
    }
}

struct AbsolutePathText;

impl TextKind for AbsolutePathText {
    type Value = PathBuf;
    const NOUN: &'static str = "an absolute path";
    const PATTERN: Option<&'static str> = Some("^/.*[^/]$");
    const EXAMPLES: &'static [&'static str] = &["/run/weir/weir.pid"];

    fn parse(text: &str) -> Result<PathBuf, Problem> {
        if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
            let problem = Problem::new(format!("`{text}` is no absolute path of a file"));
            return Err(problem.help("for example \"/run/weir/weir.pid\""));
        }
        Ok(PathBuf::from(text))
    }
}
