//! Parts of a request that have a name: `header:X-Api-Key`. And what to write for words that name no part.

use crate::text::problem::Problem;
use crate::text::suggest::nearest;
use crate::value::field::is_token;
use crate::value::placeholder::is_parameter_name;

/// A part of a request that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedPart {
    /// `header:NAME`, in lower case.
    Header(String),
    /// `cookie:NAME`.
    Cookie(String),
    /// `query:NAME`.
    Query(String),
    /// `param:NAME`: a parameter of the match.
    Param(String),
    /// `claim:NAME`: a claim of the client's token.
    Claim(String),
}

impl NamedPart {
    /// The part `name` of a family; `None` if there is no such family.
    pub(crate) fn parse(family: &str, name: &str) -> Option<Result<Self, Problem>> {
        let (is_name, noun) = match family {
            "header" => (is_token(name), "header field"),
            "cookie" => (is_token(name), "cookie"),
            "query" => (!name.is_empty(), "query parameter"),
            "param" => (is_parameter_name(name), "parameter"),
            "claim" => (!name.is_empty(), "claim"),
            _ => return None,
        };
        if !is_name {
            let message = format!("`{name}` is not the name of a {noun}");
            return Some(Err(Problem::new(message)));
        }
        let name = name.to_owned();
        Some(Ok(match family {
            "header" => Self::Header(name.to_ascii_lowercase()),
            "cookie" => Self::Cookie(name),
            "query" => Self::Query(name),
            "param" => Self::Param(name),
            _ => Self::Claim(name),
        }))
    }
}

/// The words for parts of a request in one place of the file.
pub(crate) struct PartWords<T: 'static> {
    /// Words without a name behind a colon, and what they mean.
    pub(crate) plain: &'static [(&'static str, T)],
    /// What stands before the colon, and an example.
    pub(crate) families: &'static [(&'static str, &'static str)],
    /// What other proxies call a word, and what to write.
    pub(crate) foreign: &'static [(&'static [&'static str], &'static str)],
    /// Writes a word as the file has it.
    pub(crate) write: fn(&str) -> String,
}

impl<T> PartWords<T> {
    /// What to write in place of `text`, which is none of the words.
    pub(crate) fn advise(&self, text: &str) -> String {
        let (family, name) = match text.split_once(':') {
            Some((family, name)) => (family, Some(name)),
            None => (text, None),
        };
        let write = self.write;
        if let Some((_, example)) = self.families.iter().find(|(known, _)| *known == text) {
            let example = write(example);
            return format!("it has a name behind a colon, such as {example}");
        }
        let mut foreign = self.foreign.iter();
        if let Some((_, ours)) = foreign.find(|(theirs, _)| theirs.contains(&family)) {
            return format!("write {}", write(ours));
        }
        let families = self.families.iter().map(|(known, _)| *known);
        if let Some((family, name)) = text.split_once('.')
            && families.clone().any(|known| known == family)
        {
            return format!("write {}", write(&format!("{family}:{name}")));
        }
        let near = match name {
            Some(name) => nearest(family, families).map(|near| format!("{near}:{name}")),
            None => nearest(text, self.plain.iter().map(|(word, _)| *word)).map(str::to_owned),
        };
        match near {
            Some(near) => format!("did you mean {}?", write(&near)),
            None => format!("there are: {}", self.list()),
        }
    }

    /// All words.
    fn list(&self) -> String {
        let families = self.families.iter().map(|(family, example)| match *family {
            // It has one name only.
            "client_cert" => (*example).to_owned(),
            family => format!("{family}:NAME"),
        });
        let plain = self.plain.iter().map(|(word, _)| (*word).to_owned());
        let words = plain.chain(families).map(|word| (self.write)(&word));
        words.collect::<Vec<_>>().join(", ")
    }
}
