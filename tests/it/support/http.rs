//! One HTTP request, for the servers' own APIs and for evermirror's.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::tls;

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request on a connection of its own; an error is the connection's.
pub(crate) async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    request_as(None, method, url, headers, body).await
}

/// The same, with the client certificate `identity` of the fixtures.
pub(crate) async fn request_as(
    identity: Option<&str>,
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls::client(identity))
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| format!("{url}: {error:?}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| format!("{url}: {error}"))?;
    Ok(Answer { status, body: body.to_bytes() })
}

/// A GET.
pub(crate) async fn get(url: &str) -> Result<Answer, String> {
    request(Method::GET, url, &[], Bytes::new()).await
}
