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

/// A document that was fetched.
pub(super) struct FetchedDocument {
    pub(super) body: Bytes,
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
    let fetched = timeout(limits::FETCH_PATIENCE, fetch_patiently(url, accept, ca));
    let fetched = fetched.await.unwrap_or_else(|_| {
        let patience = seconds(limits::FETCH_PATIENCE);
        Err(format!("no answer within {patience}"))
    });
    fetched.map_err(|why| format!("{url}: {why}"))
}

async fn fetch_patiently(
    url: &FetchUrl,
    accept: &'static str,
    ca: Option<&Path>,
) -> Result<FetchedDocument, String> {
    let stream = connect(url).await?;
    if !url.is_https {
        return exchange(url, accept, stream).await;
    }
    let ca = ca.map(Path::to_owned);
    let tls = tokio::task::spawn_blocking(move || FetchTls::load(ca.as_deref())).await;
    let tls = tls.map_err(|_| "reading CA certificates has panicked")??;
    let stream = tls.connect(&url.host, stream).await;
    exchange(url, accept, stream.map_err(|error| error.to_string())?).await
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
    url: &FetchUrl,
    accept: &'static str,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<FetchedDocument, String> {
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let connection = tokio::task::spawn_local(connection);
    let request = Request::builder()
        .method(Method::GET)
        .uri(&url.target)
        .header(HOST, url.authority())
        .header(ACCEPT, accept)
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let outcome = receive(sender.send_request(request)).await;
    connection.abort();
    outcome
}

async fn receive(
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
    let body = Limited::new(answer.into_body(), limits::FETCH_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(FetchedDocument {
        body: body.to_bytes(),
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
