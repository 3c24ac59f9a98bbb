//! The keys of token issuers. Control fetches them in the background, and keeps the last good ones while an issuer
//! fails. A token whose key is unknown makes it look earlier.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use weir_config::{FetchUrl, JwtKeys};

use super::fetch::fetch;
use super::phrases::count;
use super::{Control, limits};
use crate::obs::{MetricKind, MetricsPage, process, text};
use crate::policy::json::{Json, Object};
use crate::policy::jwt::{KeyBoard, KeySource, ReadKeySet};

/// How the sources of keys are doing, by [`KeySource::name`].
#[derive(Default)]
pub(super) struct IssuerKeys(HashMap<String, SourceStatus>);

/// How one source is doing.
struct SourceStatus {
    /// What logs and metrics call it.
    shown: String,
    is_fetching: bool,
    /// When the last fetch began.
    began: Option<Instant>,
    due: Instant,
    /// Failures since the last success.
    failures: u32,
    /// When the keys were last read, in milliseconds since the Unix epoch.
    read_ms: Option<u64>,
    keys: usize,
    error: Option<String>,
    /// When the log had the last error.
    logged: Option<Instant>,
    done: u64,
    failed: u64,
}

/// What a fetch gave.
pub(super) struct FetchedKeys {
    read: ReadKeySet,
    max_age: Option<Duration>,
}

type Outcome = Result<FetchedKeys, String>;

/// Fetches the keys of boards that have none, all at once. Waits for a moment, so that a start or a reload with issuers
/// that work refuses no token. What is not there by then follows later.
pub(super) async fn prefetch(boards: Vec<Arc<KeyBoard>>) -> Vec<(Arc<KeyBoard>, Outcome)> {
    let mut fetches = JoinSet::new();
    for board in boards {
        if board.version() == 0 && board.source().url().is_some() {
            fetches.spawn_local(async move {
                let outcome = fetch_keys(board.source()).await;
                (board, outcome)
            });
        }
    }
    let mut outcomes = Vec::new();
    let collect = async {
        while let Some(fetched) = fetches.join_next().await {
            outcomes.extend(fetched.ok());
        }
    };
    // What has arrived by then is kept.
    let _ = timeout(limits::KEYS_PATIENCE, collect).await;
    outcomes
}

/// Fetches the keys of an issuer.
async fn fetch_keys(source: &KeySource) -> Outcome {
    const JWKS: &str = "application/jwk-set+json, application/json";
    let ca = source.ca.as_ref().map(|ca| ca.path.as_path());
    let url = match &source.place {
        JwtKeys::Url(url) => url.clone(),
        JwtKeys::Discovery(url) => {
            let document = fetch(url, "application/json", ca).await?;
            let issuer = source.issuer.as_deref().unwrap_or_default();
            let found = keys_url(&document.body, issuer, url);
            found.map_err(|why| format!("{url}: {why}"))?
        }
        JwtKeys::SetFile(_) | JwtKeys::KeyFile(_) | JwtKeys::SecretFile(_) => {
            return Err("the keys are in a file".to_owned());
        }
    };
    let document = fetch(&url, JWKS, ca).await?;
    let read = source
        .read_fetched(&document.body)
        .map_err(|why| format!("{url}: {why}"))?;
    Ok(FetchedKeys {
        read,
        max_age: document.max_age,
    })
}

/// The URL of the keys in a discovery document (OpenID Connect Discovery 1.0, sections 3 and 4.3), which must name the
/// issuer that the configuration names.
fn keys_url(document: &[u8], issuer: &str, from: &FetchUrl) -> Result<FetchUrl, String> {
    let document = Object::parse(document)
        .map_err(|error| format!("it is not a discovery document: {error}"))?;
    let member = |name| document.get(name).and_then(Json::as_text);
    let named = member("issuer").ok_or("the discovery document names no issuer")?;
    if named != issuer {
        return Err(format!(
            "the document is that of the issuer {named:?}, not of {issuer:?}"
        ));
    }
    let url = member("jwks_uri").ok_or("the discovery document has no `jwks_uri`")?;
    let url = FetchUrl::parse(url)?;
    if from.is_https && !url.is_https {
        return Err(format!("its keys are in the clear: {url}"));
    }
    Ok(url)
}

impl SourceStatus {
    fn new(source: &KeySource) -> Self {
        Self {
            shown: source.to_string(),
            is_fetching: false,
            began: None,
            due: Instant::now(),
            failures: 0,
            read_ms: None,
            keys: 0,
            error: None,
            logged: None,
            done: 0,
            failed: 0,
        }
    }

    /// Whether a token that asks for an unknown key may make control fetch again.
    fn may_grant(&self, now: Instant) -> bool {
        let is_late = |began| now >= began + limits::KEYS_WANTED_INTERVAL;
        !self.is_fetching && self.began.is_none_or(is_late)
    }

    /// Whether it is time to fetch anyway.
    fn is_due(&self, now: Instant) -> bool {
        !self.is_fetching && (self.began.is_none() || now >= self.due)
    }

    /// Takes new keys over.
    fn succeed(&mut self, board: &KeyBoard, read: ReadKeySet) {
        let ReadKeySet { keys, left_out } = read;
        self.keys = keys.iter().count();
        self.read_ms = Some(process::now_ms());
        self.done += 1;
        self.failures = 0;
        let had_error = self.error.take().is_some();
        self.logged = None;
        let is_new = board.post(keys);
        if is_new {
            for key in left_out {
                process::warn(format_args!("keys of {}: left out {key}", self.shown));
            }
        }
        if is_new || had_error {
            let keys = count(self.keys, "key");
            process::info(format_args!("keys of {}: {keys} in use", self.shown));
        }
    }

    /// Notes a failure. Logs the first of a row, and one every few minutes.
    fn fail(&mut self, board: &KeyBoard, why: String) {
        self.failed += 1;
        self.failures += 1;
        let is_time = |logged: Instant| logged.elapsed() >= limits::KEYS_LOG_INTERVAL;
        if self.logged.is_none_or(is_time) {
            self.logged = Some(Instant::now());
            if board.version() == 0 {
                process::error(format_args!(
                    "there are no keys of {}: {why}; requests with its tokens get 503 until there are",
                    self.shown
                ));
            } else {
                process::error(format_args!(
                    "keys of {} cannot be read again: {why}; the former ones stay",
                    self.shown
                ));
            }
        }
        self.error = Some(why);
    }
}

impl IssuerKeys {
    fn status(&mut self, source: &KeySource) -> &mut SourceStatus {
        self.0
            .entry(source.name())
            .or_insert_with(|| SourceStatus::new(source))
    }

    /// Notes what fetches gave.
    pub(super) fn note_all(&mut self, outcomes: Vec<(Arc<KeyBoard>, Outcome)>) {
        for (board, outcome) in outcomes {
            self.note(&board, outcome);
        }
    }

    fn note(&mut self, board: &KeyBoard, outcome: Outcome) {
        let status = self.status(board.source());
        let now = Instant::now();
        status.is_fetching = false;
        status.began.get_or_insert(now);
        match outcome {
            Ok(FetchedKeys { read, max_age }) => {
                let age = max_age.unwrap_or(limits::KEYS_AGE);
                status.due = now + age.clamp(limits::KEYS_AGE_MIN, limits::KEYS_AGE_MAX);
                status.succeed(board, read);
            }
            Err(why) => {
                status.fail(board, why);
                let doubled = limits::KEYS_RETRY.saturating_mul(1 << (status.failures - 1).min(16));
                let wait = doubled.min(limits::KEYS_RETRY_MAX);
                status.due = now + wait.mul_f64(0.75 + 0.5 * fastrand::f64());
            }
        }
    }

    /// Notes what a file with keys had.
    pub(super) fn note_file(&mut self, board: &KeyBoard, read: Result<ReadKeySet, String>) {
        let status = self.status(board.source());
        match read {
            Ok(read) => status.succeed(board, read),
            Err(why) => status.fail(board, why),
        }
    }

    /// The boards whose keys are to be fetched now, out of `boards`; forgets all other sources.
    fn take_due(&mut self, boards: Vec<Arc<KeyBoard>>) -> Vec<Arc<KeyBoard>> {
        let names: Vec<_> = boards.iter().map(|board| board.source().name()).collect();
        self.0.retain(|name, _| names.contains(name));
        let now = Instant::now();
        let is_due = |board: &Arc<KeyBoard>| {
            let status = self.status(board.source());
            // A wish that cannot be granted yet stays on the board.
            let is_wanted = status.may_grant(now) && board.take_wanted();
            if board.source().url().is_none() || !(is_wanted || status.is_due(now)) {
                return false;
            }
            (status.is_fetching, status.began) = (true, Some(now));
            true
        };
        boards.into_iter().filter(is_due).collect()
    }

    /// Adds the samples of each source.
    pub(super) fn metrics(&self, page: &mut MetricsPage) {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by(|one, other| one.shown.cmp(&other.shown));
        let help = "Keys of a token issuer in use; at 0, requests with its tokens get 503.";
        page.family("weir_jwt_keys", MetricKind::Gauge, help);
        for status in &all {
            page.sample(&[("source", &status.shown)], status.keys as u64);
        }
        let help =
            "When the keys of a token issuer were last read, since the Unix epoch; 0 for never.";
        page.family("weir_jwt_keys_read_seconds", MetricKind::Gauge, help);
        for status in &all {
            page.sample(
                &[("source", &status.shown)],
                status.read_ms.unwrap_or_default() / 1000,
            );
        }
        let help = "Times that the keys of a token issuer were read, or could not be.";
        page.family("weir_jwt_key_reads_total", MetricKind::Counter, help);
        for status in &all {
            for (outcome, count) in [("ok", status.done), ("failed", status.failed)] {
                page.sample(&[("source", &status.shown), ("outcome", outcome)], count);
            }
        }
    }

    /// Adds a line for each source that fails.
    pub(super) fn health(&self, out: &mut String) {
        let mut failing: Vec<_> = self
            .0
            .values()
            .filter_map(|status| Some((status, status.error.as_ref()?)))
            .collect();
        failing.sort_by(|(one, _), (other, _)| one.shown.cmp(&other.shown));
        for (status, why) in failing {
            let _ = match status.read_ms {
                None => writeln!(out, "no keys of {}: {why}", status.shown),
                Some(ms) => {
                    let mut when = String::new();
                    text::time(&mut when, ms);
                    writeln!(
                        out,
                        "the keys of {} are those of {when}: {why}",
                        status.shown
                    )
                }
            };
        }
    }
}

impl Control {
    /// Keeps the keys of all issuers up to date, until the process drains.
    pub(super) async fn watch_keys(self: Rc<Self>) {
        while !self.draining.get() {
            let due = {
                let state = &mut *self.state.borrow_mut();
                let boards = state.policies.keys.iter().map(|(_, board)| board).collect();
                state.issuer_keys.take_due(boards)
            };
            for board in due {
                let control = self.clone();
                tokio::task::spawn_local(async move {
                    let outcome = fetch_keys(board.source()).await;
                    control.state.borrow_mut().issuer_keys.note(&board, outcome);
                });
            }
            self.refresh_key_files().await;
            sleep(limits::KEYS_WATCH).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_document_names_its_issuer_and_a_safe_place() {
        let from = FetchUrl::parse("https://a.example/.well-known/openid-configuration").unwrap();
        let local = FetchUrl::parse("http://127.0.0.1:9/.well-known/openid-configuration").unwrap();
        let url = |document: &str, from: &FetchUrl| {
            let found = keys_url(document.as_bytes(), "https://a.example/", from);
            found.map(|url| url.to_string())
        };
        let good = r#"{"issuer":"https://a.example/","jwks_uri":"https://keys.example/a","x":[1]}"#;
        assert_eq!(url(good, &from).unwrap(), "https://keys.example/a");
        for (document, why) in [
            ("<html>", "not a discovery document"),
            ("[]", "not an object"),
            ("{}", "names no issuer"),
            (
                r#"{"issuer":1,"jwks_uri":"https://keys.example/a"}"#,
                "names no issuer",
            ),
            (
                r#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/a"}"#,
                "not of",
            ),
            (
                r#"{"issuer":"https://A.example/","jwks_uri":"https://keys.example/a"}"#,
                "not of",
            ),
            (
                r#"{"issuer":"https://b.example/","jwks_uri":"https://keys.example/a"}"#,
                "not of",
            ),
            (
                r#"{"issuer":"https://a.example/","issuer":"https://b.example/"}"#,
                "is repeated",
            ),
            (r#"{"issuer":"https://a.example/"}"#, "has no `jwks_uri`"),
            (
                r#"{"issuer":"https://a.example/","jwks_uri":"/keys"}"#,
                "is not a URL",
            ),
            (
                r#"{"issuer":"https://a.example/","jwks_uri":"file:///etc/keys"}"#,
                "not the URL of a web resource",
            ),
            (
                r#"{"issuer":"https://a.example/","jwks_uri":"http://keys.example/a"}"#,
                "in the clear",
            ),
            (
                r#"{"issuer":"https://a.example/","jwks_uri":"http://127.0.0.1:1/a"}"#,
                "in the clear",
            ),
        ] {
            let error = url(document, &from).unwrap_err();
            assert!(error.contains(why), "{document}: {error}");
        }
        let document = r#"{"issuer":"https://a.example/","jwks_uri":"http://127.0.0.1:1/a"}"#;
        assert_eq!(url(document, &local).unwrap(), "http://127.0.0.1:1/a");
    }

    fn board(url: &str) -> Arc<KeyBoard> {
        Arc::new(KeyBoard::new(KeySource {
            place: JwtKeys::Url(FetchUrl::parse(url).unwrap()),
            issuer: None,
            ca: None,
            algorithms: Box::default(),
        }))
    }

    #[test]
    fn keys_are_fetched_when_they_are_old_or_wanted() {
        let (mut keys, board) = (IssuerKeys::default(), board("https://a.example/"));
        let due = |keys: &mut IssuerKeys| keys.take_due(vec![board.clone()]).len();
        assert_eq!(due(&mut keys), 1, "at once");
        assert_eq!(due(&mut keys), 0, "one fetch at a time");
        keys.note(&board, Err("down".to_owned()));
        let status = keys.status(board.source());
        assert!(
            status.due > Instant::now() && status.due < Instant::now() + 2 * limits::KEYS_RETRY
        );
        board.want();
        assert_eq!(due(&mut keys), 0, "at most once in ten seconds");
        keys.status(board.source()).began =
            Instant::now().checked_sub(limits::KEYS_WANTED_INTERVAL);
        assert_eq!(due(&mut keys), 1, "the wish is still there");
        keys.note(&board, Err("down".to_owned()));
        // After ten seconds without a fetch, the first token with an unknown key makes control fetch at once.
        keys.status(board.source()).due = Instant::now() + limits::KEYS_AGE;
        keys.status(board.source()).began =
            Instant::now().checked_sub(limits::KEYS_WANTED_INTERVAL);
        assert_eq!(due(&mut keys), 0, "nobody asks");
        board.want();
        assert_eq!(due(&mut keys), 1);
        for _ in 0..40 {
            keys.note(&board, Err("down".to_owned()));
        }
        assert!(keys.status(board.source()).due < Instant::now() + 2 * limits::KEYS_RETRY_MAX);
        assert_eq!(keys.take_due(Vec::new()).len(), 0);
        assert!(keys.0.is_empty(), "no plan has the source any more");
    }
}
