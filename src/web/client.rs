//! The running evermirror, asked over its web interface.
//!
//! Where it listens and which token it wants stand in the configuration that `run` uses; both can be
//! given instead, for a process elsewhere. Every wait ends; on cancellation what was asked may be
//! done all the same.

use std::error::Error;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::config;
use crate::config::settings::WebSettings;
use crate::errors::UsageError;
use crate::store::tls_config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// To approve moves every held delete on disk first; millions take minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// Larger than any answer there is.
const MAX_ANSWER: usize = 16 << 20;
const MAX_TOKEN: u64 = 64 << 10;

/// Which process to ask.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// The configuration of the running process, which tells its address (`web.listen`) and its token
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    config: Option<PathBuf>,
    /// Ask the process at this address instead, such as `http://evermirror:8081`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Use the token in this file instead of `web.auth_token`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The interface of one process.
#[derive(Debug)]
pub(crate) struct Api {
    base: String,
    token: Option<HeaderValue>,
}

impl Api {
    /// For reading, which needs no token.
    pub(crate) fn reader(args: &ApiArgs) -> anyhow::Result<Self> {
        let base = match &args.url {
            Some(url) => given(url)?,
            None => address(configured(args)?.listen),
        };
        Ok(Self { base, token: None })
    }

    /// For acting: without a token this is an error that says how to come by one.
    pub(crate) fn actor(args: &ApiArgs) -> anyhow::Result<Self> {
        let settings = if args.url.is_none() || args.token_file.is_none() {
            Some(configured(args)?)
        } else {
            None
        };
        let base = match (&args.url, &settings) {
            (Some(url), _) => given(url)?,
            (None, settings) => address(settings.as_ref().map_or(NOWHERE, |web| web.listen)),
        };
        let token = match &args.token_file {
            Some(path) => Some(read_token(path)?),
            None => settings.and_then(|web| web.auth_token),
        };
        let Some(token) = token else {
            return Err(UsageError(
                "no token is configured, and without one nobody may act: set web.auth_token or \
                 web.auth_token_file in the configuration of the running evermirror and restart \
                 it; --token-file gives the token of a process that is configured elsewhere"
                    .to_owned(),
            )
            .into());
        };
        Ok(Self { base, token: Some(authorization(&token)?) })
    }

    /// For reading, at this address.
    pub(crate) fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { base: given(url)?, token: None })
    }

    /// The text that `path` shows.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.base);
        let request = Request::builder().uri(&url).body(Full::default())?;
        let exchange = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request));
        let (status, bytes) = exchange.await.with_context(|| format!("no answer from {url}"))??;
        anyhow::ensure!(status.is_success(), "{url} answered {}", status.as_u16());
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What `path` shows.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// Has `path` done.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let exchange = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request));
        let (status, bytes) = exchange.await.with_context(|| {
            format!("no answer from {} for {} s", self.base, ANSWER_TIMEOUT.as_secs())
        })??;
        let answer = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        self.judge(status, path, answer)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(None, self.base.starts_with("https:"))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.request(request).await.map_err(|error| {
            let (base, cause) = (&self.base, root(&error));
            if error.is_connect() {
                anyhow::anyhow!(
                    "no evermirror can be reached at {base} ({cause}): is `evermirror run` \
                     running, and is that its web.listen? --url asks another address"
                )
            } else {
                anyhow::anyhow!("the connection to {base} broke: {cause}")
            }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| {
            anyhow::anyhow!("the answer of {} did not arrive whole: {error}", self.base)
        })?;
        Ok((status, body.to_bytes()))
    }

    fn judge(&self, status: StatusCode, path: &str, answer: Value) -> anyhow::Result<Value> {
        let (base, code) = (&self.base, status.as_u16());
        if status.is_success() && answer.is_object() {
            return Ok(answer);
        }
        if status == StatusCode::UNAUTHORIZED {
            anyhow::bail!(
                "evermirror at {base} refused the token: it wants the one that was its \
                 web.auth_token when it started"
            );
        }
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => anyhow::bail!("evermirror at {base} answered {code}: {error}"),
            None => anyhow::bail!(
                "{base} answered {code} to {path}, which is no answer of this version of evermirror"
            ),
        }
    }
}

/// One segment of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn configured(args: &ApiArgs) -> anyhow::Result<WebSettings> {
    Ok(config::load(args.config.as_deref(), config::environment())?.web)
}

/// Who listens on all addresses listens on the loopback's too.
pub(crate) fn address(mut listen: SocketAddr) -> String {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    format!("http://{listen}")
}

fn given(url: &str) -> Result<String, UsageError> {
    let uri: Option<Uri> = url.parse().ok();
    let known = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
    });
    if !known {
        return Err(UsageError(format!(
            "--url must be like http://host:port, not \"{}\"",
            url.escape_debug()
        )));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn read_token(path: &Path) -> Result<SecretString, UsageError> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text)).map_err(|error| {
        UsageError(format!("the token in {} cannot be read: {error}", path.display()))
    })?;
    Ok(text.into())
}

/// As [`crate::serve::BearerToken`] expects it: a token of two words is the whole header.
fn authorization(token: &SecretString) -> Result<HeaderValue, UsageError> {
    let token = token.expose_secret().trim();
    let text = if token.contains(' ') { token.to_owned() } else { format!("Bearer {token}") };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| UsageError("the token holds characters that HTTP cannot carry".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What was wrong in the end, such as "Connection refused".
fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_listens_everywhere_is_asked_on_the_loopback() {
        assert_eq!(address("0.0.0.0:8081".parse().unwrap()), "http://127.0.0.1:8081");
        assert_eq!(address("[::]:8081".parse().unwrap()), "http://[::1]:8081");
        assert_eq!(address("10.0.0.7:80".parse().unwrap()), "http://10.0.0.7:80");
    }

    #[test]
    fn only_a_web_address_is_taken_as_one() {
        assert_eq!(given("https://host:1/").unwrap(), "https://host:1");
        for wrong in ["", "host:8081", "ftp://host", "http://host/?x", "/path"] {
            assert!(given(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_sent_as_the_server_expects_it_and_never_shown() {
        let header = |token: &str| authorization(&token.into()).unwrap();
        assert_eq!(header("t0ken\n"), "Bearer t0ken");
        assert_eq!(header("Basic dXNl"), "Basic dXNl");
        assert!(!format!("{:?}", header("t0ken")).contains("t0ken"));
    }
}
