//! `errors`: what clients get in place of error answers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_config::{ErrorAnswer, ErrorContent, ErrorKey, Errors};

use crate::fault::Reason;

/// The pages of a route, or those for requests without a route.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages {
    /// The most specific ones first: those for reasons, then for statuses, then for classes.
    pages: Box<[ErrorPage]>,
    /// Whether one of them replaces answers of endpoints.
    replaces_relayed: bool,
}

/// What clients get in place of one kind of error answer.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    key: PageKey,
    replaces_relayed: bool,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum PageKey {
    Reason(Reason),
    Status(u16),
    /// The first digit.
    Class(u8),
}

#[derive(Clone, Debug)]
enum Content {
    Page {
        text: PageText,
        content_type: Box<str>,
    },
    /// The page is empty until control has read the file.
    File {
        path: Arc<Path>,
        content_type: Box<str>,
    },
    Redirect(PageText),
}

/// The texts of the files that a configuration names as pages, by path.
pub type PageFiles = HashMap<PathBuf, Arc<str>>;

/// What an error page may say of its answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerFacts<'a> {
    /// The status that the page has, or would have if it were no redirect.
    pub status: u16,
    /// Weir's reason; `None` for the answer of an endpoint.
    pub reason: Option<Reason>,
    /// The id of the request.
    pub request_id: &'a [u8],
}

impl ErrorPages {
    /// Compiles the pages of one place of the file.
    ///
    /// # Errors
    /// A key is no reason of Weir's: the answer and what is wrong, in one sentence without a full stop.
    pub fn compile(errors: &Errors) -> Result<Self, (&ErrorAnswer, String)> {
        let compile = |answer| ErrorPage::compile(answer).map_err(|problem| (answer, problem));
        let pages: Box<[ErrorPage]> = errors.0.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self {
            replaces_relayed: pages.iter().any(|page| page.replaces_relayed),
            pages,
        })
    }

    /// Takes the pages that are files from `files`.
    pub fn take_files(&mut self, files: &PageFiles) {
        for page in &mut self.pages {
            page.content.take_file(files);
        }
    }

    /// The page for an answer that Weir gives for this reason.
    #[must_use]
    pub fn find(&self, reason: Reason) -> Option<&ErrorPage> {
        let fits = |page: &&ErrorPage| page.key.covers(Some(reason), reason.status());
        self.pages.iter().find(fits)
    }

    /// The page that replaces an endpoint's answer with this status.
    #[inline]
    #[must_use]
    pub fn find_for_relayed(&self, status: u16) -> Option<&ErrorPage> {
        if !self.replaces_relayed || status < 400 {
            return None;
        }
        let fits = |page: &&ErrorPage| page.key.covers(None, status);
        // The most specific page decides, also that the answer stays.
        self.pages
            .iter()
            .find(fits)
            .filter(|page| page.replaces_relayed)
    }

    /// All pages, the most specific first.
    pub fn iter(&self) -> impl Iterator<Item = &ErrorPage> {
        self.pages.iter()
    }
}

impl ErrorPage {
    fn compile(answer: &ErrorAnswer) -> Result<Self, String> {
        Ok(Self {
            key: match &answer.key {
                ErrorKey::Reason(code) => PageKey::Reason(find_reason(code)?),
                ErrorKey::Status(status) => PageKey::Status(*status),
                ErrorKey::Class(digit) => PageKey::Class(*digit),
            },
            replaces_relayed: answer.upstream,
            content: match &answer.content {
                ErrorContent::Body { text, content_type } => Content::Page {
                    text: PageText::new(text.clone()),
                    content_type: content_type.as_str().into(),
                },
                ErrorContent::File { file, content_type } => Content::File {
                    path: file.path.as_path().into(),
                    content_type: content_type.as_str().into(),
                },
                ErrorContent::Redirect(to) => Content::Redirect(PageText::new(to.as_str().into())),
            },
        })
    }

    /// The status of the answer that had `status`.
    #[must_use]
    pub fn status(&self, status: u16) -> u16 {
        match &self.content {
            Content::Redirect(_) => 302,
            Content::Page { .. } | Content::File { .. } => status,
        }
    }

    /// The field that says where the client should go, or what the page is.
    #[must_use]
    pub fn field(&self, facts: AnswerFacts<'_>) -> (&'static str, Cow<'_, [u8]>) {
        match &self.content {
            Content::Redirect(to) => ("Location", to.fill(facts)),
            Content::Page { content_type, .. } | Content::File { content_type, .. } => {
                ("Content-Type", content_type.as_bytes().into())
            }
        }
    }

    /// The body; empty for a redirect.
    #[must_use]
    pub fn body(&self, facts: AnswerFacts<'_>) -> Cow<'_, [u8]> {
        match &self.content {
            Content::Page { text, .. } => text.fill(facts),
            Content::File { .. } | Content::Redirect(_) => Cow::Borrowed(&[]),
        }
    }

    /// The length of the body before its variables are filled in.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.content {
            Content::Page { text, .. } => text.source.len(),
            Content::File { .. } | Content::Redirect(_) => 0,
        }
    }
}

impl fmt::Display for ErrorPage {
    /// Says what clients get, for `weir explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            PageKey::Reason(reason) => f.write_str(reason.code())?,
            PageKey::Status(status) => write!(f, "{status}")?,
            PageKey::Class(digit) => write!(f, "{digit}xx")?,
        }
        match &self.content {
            Content::Page { text, content_type } => {
                write!(f, ": {} bytes, {content_type}", text.source.len())?
            }
            Content::File { path, content_type } => {
                write!(f, ": {}, {content_type}", path.display())?
            }
            Content::Redirect(to) => write!(f, ": 302, location {}", to.source)?,
        }
        match self.replaces_relayed {
            true => f.write_str(", for endpoints' answers too"),
            false => Ok(()),
        }
    }
}

impl PageKey {
    fn covers(self, reason: Option<Reason>, status: u16) -> bool {
        match self {
            Self::Reason(own) => reason == Some(own),
            Self::Status(own) => status == own,
            Self::Class(digit) => status / 100 == u16::from(digit),
        }
    }
}

impl Content {
    fn take_file(&mut self, files: &PageFiles) {
        if let Self::File { path, content_type } = self
            && let Some(text) = files.get(&**path)
        {
            *self = Self::Page {
                text: PageText::new(text.clone()),
                content_type: std::mem::take(content_type),
            };
        }
    }
}

/// A reason by its code.
fn find_reason(code: &str) -> Result<Reason, String> {
    let found = Reason::ALL.iter().find(|reason| reason.code() == code);
    found.copied().ok_or_else(|| {
        let advice =
            match weir_config::nearest(code, Reason::ALL.iter().map(|reason| reason.code())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "src/reasons.md lists all reasons".to_owned(),
            };
        format!("there is no reason `{code}`; {advice}")
    })
}

/// A text with variables. Braces that belong to none stand for themselves, because pages have style sheets.
#[derive(Clone, Debug)]
struct PageText {
    source: Arc<str>,
    /// Where variables stand, in order.
    variables: Box<[(usize, Variable)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Status,
    Reason,
    RequestId,
}

impl Variable {
    const ALL: [Self; 3] = [Self::Status, Self::Reason, Self::RequestId];

    fn text(self) -> &'static str {
        match self {
            Self::Status => "{status}",
            Self::Reason => "{reason}",
            Self::RequestId => "{request_id}",
        }
    }
}

impl PageText {
    fn new(source: Arc<str>) -> Self {
        let braces = source.match_indices('{');
        let variable = |(at, _): (usize, &str)| {
            let rest = source.get(at..)?;
            let mut all = Variable::ALL.into_iter();
            Some((at, all.find(|variable| rest.starts_with(variable.text()))?))
        };
        let variables = braces.filter_map(variable).collect();
        Self { source, variables }
    }

    fn fill(&self, facts: AnswerFacts<'_>) -> Cow<'_, [u8]> {
        let source = self.source.as_bytes();
        if self.variables.is_empty() {
            return Cow::Borrowed(source);
        }
        let mut filled = Vec::with_capacity(source.len() + 64 * self.variables.len());
        let mut done = 0;
        for &(at, variable) in &self.variables {
            filled.extend_from_slice(source.get(done..at).unwrap_or_default());
            match variable {
                Variable::Status => filled.extend_from_slice(facts.status.to_string().as_bytes()),
                Variable::Reason => {
                    filled.extend_from_slice(facts.reason.map_or("", Reason::code).as_bytes())
                }
                Variable::RequestId => filled.extend_from_slice(facts.request_id),
            }
            done = at + variable.text().len();
        }
        filled.extend_from_slice(source.get(done..).unwrap_or_default());
        Cow::Owned(filled)
    }
}

#[cfg(test)]
mod tests;
