//! Fetches a document over HTTP for the control thread.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CACHE_CONTROL, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use weir_config::FetchUrl;

use super::limits;
use super::phrases::seconds;
use crate::tls::FetchTls;

/// What to fetch, and how.
pub(super) struct FetchRequest<'r> {
    pub(super) url: &'r FetchUrl,
    pub(super) accept: &'static str,
    /// The authorities that its certificate must come from; `None` for the system's.
    pub(super) ca: Option<&'r Path>,
    /// A field of the request: its name and value.
    pub(super) field: Option<(&'static str, &'r str)>,
    /// How long it may take, connection and handshake included.
    pub(super) patience: Duration,
    /// The longest document, in bytes.
    pub(super) bytes_max: usize,
    /// A number that a field of the answer may have.
    pub(super) index: Option<&'static str>,
}

/// A document that was fetched.
pub(super) struct FetchedDocument {
    pub(super) body: Bytes,
    /// The number in the field that the request named.
    pub(super) index: Option<u64>,
    /// How long the server says that it stays as it is (RFC 9111, section 5.2.2.1).
    pub(super) max_age: Option<Duration>,
}

/// Fetches `url` with one request. Over TLS, an authority in the file `ca` must have signed the server's certificate; one
/// of the system's if there is no file. Follows no redirect, because the configuration names whom it trusts.
///
/// # Errors
/// The server cannot be reached, shows no valid certificate, answers with another status than 200 or with a longer
/// document than [`limits::FETCH_BYTES_MAX`], or takes longer than [`limits::FETCH_PATIENCE`].
pub(super) async fn fetch(
    url: &FetchUrl,
    accept: &'static str,
    ca: Option<&Path>,
) -> Result<FetchedDocument, String> {
    let request = FetchRequest {
        url,
        accept,
        ca,
        field: None,
        patience: limits::FETCH_PATIENCE,
        bytes_max: limits::FETCH_BYTES_MAX,
        index: None,
    };
    let fetched = request.send().await;
    fetched.map_err(|why| format!("{url}: {why}"))
}

impl FetchRequest<'_> {
    /// Sends the request once, and follows no redirect.
    ///
    /// # Errors
    /// Those of [`fetch`], without the URL.
    pub(super) async fn send(&self) -> Result<FetchedDocument, String> {
        let fetched = timeout(self.patience, fetch_patiently(self)).await;
        fetched.unwrap_or_else(|_| {
            let patience = seconds(self.patience);
            Err(format!("no answer within {patience}"))
        })
    }
}

async fn fetch_patiently(request: &FetchRequest<'_>) -> Result<FetchedDocument, String> {
    let url = request.url;
    let stream = connect(url).await?;
    if !url.is_https {
        return exchange(request, stream).await;
    }
    let ca = request.ca.map(Path::to_owned);
    let tls = tokio::task::spawn_blocking(move || FetchTls::load(ca.as_deref())).await;
    let tls = tls.map_err(|_| "reading CA certificates has panicked")??;
    let stream = tls.connect(&url.host, stream).await;
    exchange(request, stream.map_err(|error| error.to_string())?).await
}

/// A connection to the first address of the host that takes one.
async fn connect(url: &FetchUrl) -> Result<TcpStream, String> {
    let addresses = lookup_host((url.host.as_str(), url.port)).await;
    let addresses = addresses.map_err(|error| format!("`{}` is not found: {error}", url.host))?;
    let mut why = format!("`{}` has no address", url.host);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("cannot connect to {address}: {error}"),
        }
    }
    Err(why)
}

async fn exchange(
    wanted: &FetchRequest<'_>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<FetchedDocument, String> {
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let connection = tokio::task::spawn_local(connection);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(&wanted.url.target)
        .header(HOST, wanted.url.authority())
        .header(ACCEPT, wanted.accept)
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")));
    if let Some((name, value)) = wanted.field {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let outcome = receive(wanted, sender.send_request(request)).await;
    connection.abort();
    outcome
}

async fn receive(
    wanted: &FetchRequest<'_>,
    answer: impl Future<Output = hyper::Result<hyper::Response<hyper::body::Incoming>>>,
) -> Result<FetchedDocument, String> {
    let answer = answer.await.map_err(|error| error.to_string())?;
    if answer.status().is_redirection() {
        return Err(format!(
            "it answers {}, and Weir follows no redirects",
            answer.status().as_u16()
        ));
    }
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    let fields = answer.headers().get_all(CACHE_CONTROL);
    let max_age = fields
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(max_age);
    let index = wanted.index.and_then(|name| answer.headers().get(name));
    let index = index.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(answer.into_body(), wanted.bytes_max);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(FetchedDocument {
        body: body.to_bytes(),
        index,
        max_age,
    })
}

/// `max-age` of a Cache-Control value; zero if the document may not be kept.
fn max_age(value: &str) -> Option<Duration> {
    value.split(',').find_map(|directive| {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        let seconds = directive.strip_prefix("max-age=")?.trim_matches('"');
        seconds.parse().ok().map(Duration::from_secs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_is_read_among_other_directives() {
        for (value, wanted) in [
            ("max-age=600", Some(600)),
            ("public, Max-Age=\"60\", must-revalidate", Some(60)),
            ("no-cache", Some(0)),
            ("no-store, max-age=5", Some(0)),
            ("s-maxage=5", None),
            ("max-age=x", None),
            ("max-age=-1", None),
            ("", None),
        ] {
            assert_eq!(max_age(value), wanted.map(Duration::from_secs), "{value}");
        }
    }
}
