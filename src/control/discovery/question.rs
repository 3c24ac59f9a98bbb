//! Asks a source of endpoints once.

use std::path::Path;
use std::time::Duration;

use weir_config::{Endpoint, SourceKind};

use super::dns::DnsClient;
use super::{consul, server_list, srv};
use crate::control::fetch::FetchRequest;
use crate::control::limits;
use crate::files;
use crate::tls::FileStamp;

/// The state of a source at the last answer, so that the next question can ask for changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The state of the file that was read.
    stamp: Option<FileStamp>,
    /// The index of Consul's answer; 0 for none.
    index: u64,
}

/// What a source answered.
pub(super) struct SourceAnswer {
    pub(super) outcome: Result<Found, String>,
    pub(super) cursor: Cursor,
    /// When to ask again. After a failure `None` stands for the usual wait, which grows.
    pub(super) age: Option<Duration>,
}

/// A good answer, or none.
pub(super) enum Found {
    /// These endpoints, at least one.
    Endpoints(Vec<Endpoint>),
    /// Nothing has changed since the last question, whether its answer was good or not.
    Unchanged,
}

/// Asks a source.
pub(super) async fn ask(source: &SourceKind, cursor: Cursor, dns: &DnsClient) -> SourceAnswer {
    let answer = |outcome: Result<Vec<Endpoint>, String>, age| SourceAnswer {
        outcome: outcome.map(Found::Endpoints),
        cursor,
        age,
    };
    match source {
        SourceKind::File(file) => ask_file(&file.path, cursor).await,
        SourceKind::Srv { name, scheme } => match dns.services(name).await {
            Ok(found) => answer(srv::endpoints(found.records, *scheme), Some(found.ttl)),
            Err(why) => answer(Err(why), None),
        },
        SourceKind::List { url, every } => {
            let request = FetchRequest {
                url,
                accept: "application/json",
                ca: None,
                field: None,
                patience: limits::FETCH_PATIENCE,
                bytes_max: limits::SERVER_LIST_BYTES_MAX,
                index: None,
            };
            let fetched = request.send().await;
            let read = fetched.and_then(|document| server_list::parse_json(&document.body));
            answer(read, Some(*every))
        }
        SourceKind::Consul(service) => match consul::ask(service, cursor.index).await {
            Ok(found) => SourceAnswer {
                outcome: Ok(Found::Endpoints(found.endpoints)),
                cursor: Cursor {
                    index: found.index,
                    ..cursor
                },
                age: Some(limits::CONSUL_PAUSE),
            },
            // The next question must not wait for a change to what this one did not get.
            Err(why) => SourceAnswer {
                outcome: Err(why),
                cursor: Cursor::default(),
                age: None,
            },
        },
    }
}

/// Reads a file if it has changed. A new stamp is taken before the file is read, so that no change is missed.
async fn ask_file(path: &Path, cursor: Cursor) -> SourceAnswer {
    let path = path.to_owned();
    let read = move || {
        let stamp = FileStamp::now(&path);
        if stamp.is_some() && stamp == cursor.stamp {
            return (Ok(Found::Unchanged), stamp);
        }
        let bytes = files::read(&path, limits::SERVER_LIST_BYTES_MAX as u64);
        let bytes = bytes.map_err(|error| format!("it cannot be read: {error}"));
        let read = bytes.and_then(|bytes| server_list::parse(&bytes));
        (read.map(Found::Endpoints), stamp)
    };
    let panicked = (Err("reading it has panicked".to_owned()), None);
    let (outcome, stamp) = tokio::task::spawn_blocking(read).await.unwrap_or(panicked);
    SourceAnswer {
        outcome,
        cursor: Cursor { stamp, ..cursor },
        age: Some(limits::SERVER_FILES_WATCH),
    }
}
