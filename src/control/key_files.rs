//! Files with the keys of token issuers. Control reads them at a start and a reload, and again when they change.

use std::path::Path;
use std::sync::Arc;

use weir_config::{Code, Config, Diagnostic, JwtIssuer, NamedFile, Severity};

use super::{Control, limits};
use crate::files;
use crate::obs::process;
use crate::policy::Registry;
use crate::policy::jwt::{KeyBoard, KeySource, ReadKeySet};
use crate::tls::{FileStamp, check_authorities};

use super::issuer_keys::IssuerKeys;

/// The key files that a configuration names, each once.
#[derive(Debug, Default)]
pub struct KeyFiles(Vec<KeyFile>);

/// A file with keys, as it was read.
#[derive(Debug)]
struct KeyFile {
    source: KeySource,
    stamp: Option<FileStamp>,
    /// Its keys, until cores have got them.
    keys: Option<ReadKeySet>,
}

impl KeyFiles {
    /// Reads the files. `name` is the configuration's own name, for diagnostics. With `skips_missing`, files that do
    /// not exist here are no errors.
    ///
    /// # Errors
    /// A file cannot be read, or has no key that can be used; a file with authorities has none.
    pub(super) fn load(
        config: &Config,
        skips_missing: bool,
        name: &str,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut all: Vec<KeyFile> = Vec::new();
        let mut errors: Vec<Diagnostic> = Vec::new();
        let wrong = |file: &NamedFile, message| Diagnostic {
            severity: Severity::Error,
            code: Code::NamedFile,
            message,
            file: name.to_owned(),
            excerpt: file.excerpt.clone(),
            help: Vec::new(),
        };
        let mut checked: Vec<&NamedFile> = Vec::new();
        for ca in issuers(config).filter_map(|issuer| issuer.ca.as_ref()) {
            if checked.contains(&ca) || (skips_missing && !ca.path.exists()) {
                continue;
            }
            checked.push(ca);
            if let Err(message) = check_authorities(&ca.path) {
                errors.push(wrong(ca, message));
            }
        }
        for (source, file) in sources(config) {
            if all.iter().any(|known| known.source.name() == source.name()) {
                continue;
            }
            let stamp = FileStamp::now(&file.path);
            if stamp.is_none() && skips_missing {
                continue;
            }
            let keys = match read(&source, &file.path) {
                Ok(keys) => Some(keys),
                Err(message) => {
                    errors.push(wrong(&file, message));
                    None
                }
            };
            all.push(KeyFile {
                source,
                stamp,
                keys,
            });
        }
        if errors.is_empty() {
            Ok(Self(all))
        } else {
            Err(weir_config::bounded(errors))
        }
    }

    /// The paths of the files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0
            .iter()
            .filter_map(|file| Some(file.source.file()?.path.as_path()))
    }

    /// Posts the keys that were read on the boards of the plan.
    pub(super) fn post(&mut self, registry: &Registry, status: &mut IssuerKeys) {
        for file in &mut self.0 {
            let board = board(registry, &file.source);
            if let (Some(board), Some(keys)) = (board, file.keys.take()) {
                status.note_file(&board, Ok(keys));
            }
        }
    }
}

/// The files that a configuration names for issuers: keys and authorities.
pub fn named_key_files(config: &Config) -> impl Iterator<Item = &NamedFile> {
    use weir_config::JwtKeys;
    issuers(config).flat_map(|issuer| {
        let keys = match &issuer.keys {
            JwtKeys::SetFile(file) | JwtKeys::KeyFile(file) | JwtKeys::SecretFile(file) => {
                Some(file)
            }
            JwtKeys::Discovery(_) | JwtKeys::Url(_) => None,
        };
        keys.into_iter().chain(&issuer.ca)
    })
}

fn sources(config: &Config) -> impl Iterator<Item = (KeySource, NamedFile)> {
    issuers(config).filter_map(|issuer| {
        let source = KeySource::new(issuer);
        let file = source.file()?.clone();
        Some((source, file))
    })
}

fn issuers(config: &Config) -> impl Iterator<Item = &JwtIssuer> {
    let jwts = config
        .routes
        .iter()
        .filter_map(|route| route.policies.jwt.as_ref());
    jwts.flat_map(|jwt| &jwt.issuers)
}

fn read(source: &KeySource, path: &Path) -> Result<ReadKeySet, String> {
    let shown = path.display();
    let content = files::read(path, limits::FETCH_BYTES_MAX as u64);
    let content = content.map_err(|error| format!("cannot read {shown}: {error}"))?;
    source
        .read_file(&content)
        .map_err(|why| format!("cannot use {shown}: {why}"))
}

fn board(registry: &Registry, source: &KeySource) -> Option<Arc<KeyBoard>> {
    let name = source.name();
    let mut boards = registry.keys.iter();
    boards
        .find(|(known, _)| *known == name)
        .map(|(_, board)| board)
}

impl Control {
    /// Reads the key files that have changed. One that cannot be used changes nothing.
    pub(super) async fn refresh_key_files(&self) {
        let known: Vec<_> = {
            let state = self.state.borrow();
            let files = state.key_files.0.iter();
            files
                .map(|file| (file.source.clone(), file.stamp))
                .collect()
        };
        if known.is_empty() {
            return;
        }
        // On a thread of its own: a file system that does not answer delays this watch and nothing else.
        let look = move || {
            let changed = known.into_iter().filter_map(|(source, stamp)| {
                let path = &source.file()?.path;
                let now = FileStamp::now(path);
                let read = (now != stamp).then(|| read(&source, path))?;
                Some((source, now, read))
            });
            changed.collect::<Vec<_>>()
        };
        let Ok(changed) = tokio::task::spawn_blocking(look).await else {
            return process::error("reading key files has panicked, which is a bug of Weir's");
        };
        let state = &mut *self.state.borrow_mut();
        for (source, stamp, read) in changed {
            let name = source.name();
            let mut files = state.key_files.0.iter_mut();
            if let Some(file) = files.find(|file| file.source.name() == name) {
                file.stamp = stamp;
            }
            if let Some(board) = board(&state.policies, &source) {
                state.issuer_keys.note_file(&board, read);
            }
        }
    }
}
