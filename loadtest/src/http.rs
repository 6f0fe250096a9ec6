//! One keep-alive connection: the only HTTP client here besides evermirror's own S3 client.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection to a port of 127.0.0.1, with at most one request under way.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its error is also the error of the request that is under way.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, host: HeaderValue::try_from(format!("127.0.0.1:{port}"))? })
    }

    /// Sends a GET and reads the answer, whatever its status.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends a POST that must be answered with 2xx.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        authorization: &HeaderValue,
        body: Bytes,
    ) -> anyhow::Result<()> {
        let json = HeaderValue::from_static("application/json");
        let headers =
            [(header::AUTHORIZATION, authorization.clone()), (header::CONTENT_TYPE, json)];
        let (status, body) = self.send(Method::POST, path, &headers, body).await?;
        if !status.is_success() {
            bail!("{path} answers {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }

    /// Calls an operation of an SQS that asks for no signature; it must succeed.
    pub(crate) async fn call_sqs(&mut self, operation: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let headers = [
            ("content-type", "application/x-amz-json-1.0".to_owned()),
            ("x-amz-target", format!("AmazonSQS.{operation}")),
        ];
        let headers = headers.map(|(name, value)| {
            anyhow::Ok((header::HeaderName::from_static(name), HeaderValue::try_from(value)?))
        });
        let headers = headers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let (status, body) = self.send(Method::POST, "/", &headers, body).await?;
        if !status.is_success() {
            bail!("{operation} is answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, HeaderValue)],
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        self.sender.ready().await.context("the connection is closed")?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        request.headers_mut().insert(header::HOST, self.host.clone());
        request.headers_mut().extend(headers.iter().cloned());
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

/// One GET on a connection of its own.
pub(crate) async fn get(port: u16, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    Connection::open(port).await?.get(path).await
}
