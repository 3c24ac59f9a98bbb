//! Paths of files that the configuration names.

use std::path::PathBuf;

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::TextKind;
use crate::decode::shape::Shape;
use crate::text::diagnostic::Excerpt;
use crate::text::problem::Problem;

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path. A relative path of the file begins at the configuration file's folder.
    pub path: PathBuf,
    /// The line that names it; `None` without a configuration file.
    pub excerpt: Option<Excerpt>,
}

/// The path of a file, which may be relative.
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

/// The path of a file, without its key and position.
pub(crate) struct FilePathText;

impl TextKind for FilePathText {
    type Value = PathBuf;
    const NOUN: &'static str = "a file";
    const PATTERN: Option<&'static str> = Some("[^/]$");
    const EXAMPLES: &'static [&'static str] = &["/etc/weir/site.pem"];

    fn parse(text: &str) -> Result<PathBuf, Problem> {
        if text.starts_with("-----BEGIN") {
            let problem = Problem::new("expected the path of a file, found its content");
            return Err(problem.help("put the content into a file, and write its path"));
        }
        if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            let problem = Problem::new(format!("`{text}` is not the path of a file"));
            return Err(problem
                .help("write one such as \"/etc/weir/site.pem\", or \"site.pem\" in the folder of this file"));
        }
        Ok(PathBuf::from(text))
    }
}

/// The absolute path of a file.
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
            let problem = Problem::new(format!("`{text}` is not the absolute path of a file"));
            return Err(problem.help("write one such as \"/run/weir/weir.pid\""));
        }
        Ok(PathBuf::from(text))
    }
}
