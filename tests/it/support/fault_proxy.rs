//! A test double: an HTTP proxy in this process that misbehaves on demand, in front of a real store.
//!
//! No real server answers 503 or flips a bit when a test asks it to. Whatever no rule touches goes
//! through unchanged, so the store behind it still judges every signature and every checksum.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::SignedDuration;
use jiff::fmt::rfc2822;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::eventually::{LATER, eventually};

type Body = BoxBody<Bytes, hyper::Error>;
type Rule = Box<dyn Fn(&Request<Incoming>) -> Option<Fault> + Send>;

/// What a rule may do to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Answer with this status and S3 error code; the store never sees the request.
    Answer(u16, &'static str),
    /// Hold the request back for this long, then let it through.
    Wait(Duration),
    /// Hold the request back until the rule is replaced, then let it through.
    Hold,
    /// Change one byte of the request's body on its way to the store.
    SpoilRequest,
    /// Change one byte of the store's answer.
    SpoilAnswer,
    /// Answer what this makes of the store's answer.
    EditAnswer(fn(&str) -> String),
    /// Answer as a store would whose clock is this far ahead.
    MoveClock(SignedDuration),
}

#[derive(Default)]
struct State {
    rule: Option<Rule>,
    /// Ends with the rule.
    replaced: CancellationToken,
    /// How many requests it has held back.
    held: usize,
    seen: Vec<String>,
    faults: usize,
    open: HashMap<String, usize>,
    most_open: HashMap<String, usize>,
}

/// The proxy. Dropping it stops it.
pub(crate) struct FaultProxy {
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FaultProxy {
    /// Starts a proxy in front of `upstream` (`127.0.0.1:PORT`) that lets everything through.
    pub(crate) async fn in_front_of(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, upstream) = (Arc::clone(&state), upstream.to_owned());
        let accepting = tokio::spawn(accept(listener, upstream, shared));
        Self { port, state, accepting }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks `rule` about every request from now on.
    pub(crate) fn misbehave(&self, rule: impl Fn(&Method, &Uri) -> Option<Fault> + Send + 'static) {
        self.replace(Some(Box::new(move |request| rule(request.method(), request.uri()))));
    }

    /// Of the requests that `which` picks, lets the first `passing` through, and holds all later ones back
    /// until the rule is replaced.
    pub(crate) fn hold_after(
        &self,
        passing: usize,
        which: impl Fn(&Method, &Uri) -> bool + Send + 'static,
    ) {
        let picked = AtomicUsize::new(0);
        self.misbehave(move |method, uri| {
            let late = which(method, uri) && picked.fetch_add(1, Ordering::Relaxed) >= passing;
            late.then_some(Fault::Hold)
        });
    }

    /// Waits until the rule holds a request back: whoever sent it is in the middle of its work, and stays
    /// there.
    pub(crate) async fn holds_one(&self) {
        eventually("it is in the middle", LATER, async || {
            (self.state.lock().unwrap().held > 0).then_some(()).ok_or("nothing is held".to_owned())
        })
        .await;
    }

    /// The same for services whose operations are in a header: asks `rule` about each operation by its
    /// name (`ReceiveMessage`).
    pub(crate) fn misbehave_on(&self, rule: impl Fn(&str) -> Option<Fault> + Send + 'static) {
        self.replace(Some(Box::new(move |request| rule(operation(request)))));
    }

    /// Lets everything through again.
    pub(crate) fn behave(&self) {
        self.replace(None);
    }

    fn replace(&self, rule: Option<Rule>) {
        let mut state = self.state.lock().unwrap();
        state.rule = rule;
        state.held = 0;
        std::mem::take(&mut state.replaced).cancel();
    }

    /// How many requests a rule touched.
    pub(crate) fn faults(&self) -> usize {
        self.state.lock().unwrap().faults
    }

    /// Every request so far, as `PUT /bucket/key?query`, or `POST / ReceiveMessage`.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The most PUTs of one path that were under way at once, over all paths.
    pub(crate) fn most_parallel_puts(&self) -> usize {
        self.state.lock().unwrap().most_open.values().copied().max().unwrap_or(0)
    }
}

async fn accept(listener: TcpListener, upstream: String, state: Arc<Mutex<State>>) {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, upstream, state) = (client.clone(), upstream.clone(), Arc::clone(&state));
        let service = hyper::service::service_fn(move |request| {
            let (client, upstream, state) = (client.clone(), upstream.clone(), Arc::clone(&state));
            async move { Ok::<_, Infallible>(pass(&client, &upstream, &state, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        // A connection that fails is the client's to notice.
        tokio::spawn(async move { connection.await.ok() });
    }
}

/// Counts a PUT as under way until it is dropped, even if its connection goes away.
struct UnderWay<'a>(&'a Mutex<State>, String);

impl<'a> UnderWay<'a> {
    fn new(state: &'a Mutex<State>, request: &Request<Incoming>) -> Option<Self> {
        if request.method() != Method::PUT {
            return None;
        }
        let uri = request.uri().to_string();
        let mut guard = state.lock().unwrap();
        let open = guard.open.entry(uri.clone()).or_default();
        *open += 1;
        let open = *open;
        let most = guard.most_open.entry(uri.clone()).or_default();
        *most = open.max(*most);
        Some(Self(state, uri))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.0.lock().unwrap().open.get_mut(&self.1) {
            *open -= 1;
        }
    }
}

/// The operation that the header `X-Amz-Target: SERVICE.OPERATION` names; empty without one.
fn operation(request: &Request<Incoming>) -> &str {
    let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok());
    target.and_then(|target| target.rsplit('.').next()).unwrap_or_default()
}

/// What is to be done to a request, and what ends with the rule that says so.
fn judge(state: &Mutex<State>, request: &Request<Incoming>) -> (Option<Fault>, CancellationToken) {
    let mut state = state.lock().unwrap();
    let operation = operation(request);
    let space = if operation.is_empty() { "" } else { " " };
    state.seen.push(format!("{} {}{space}{operation}", request.method(), request.uri()));
    let fault = state.rule.as_ref().and_then(|rule| rule(request));
    state.faults += usize::from(fault.is_some());
    state.held += usize::from(matches!(fault, Some(Fault::Hold)));
    (fault, state.replaced.clone())
}

async fn pass(
    client: &Client<HttpConnector, Body>,
    upstream: &str,
    state: &Mutex<State>,
    request: Request<Incoming>,
) -> Response<Body> {
    let _under_way = UnderWay::new(state, &request);
    let (fault, replaced) = judge(state, &request);
    match fault {
        Some(Fault::Answer(status, code)) => return error(status, code),
        Some(Fault::Wait(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hold) => replaced.cancelled().await,
        Some(
            Fault::SpoilRequest | Fault::SpoilAnswer | Fault::EditAnswer(_) | Fault::MoveClock(_),
        )
        | None => {}
    }
    let (mut head, body) = request.into_parts();
    // The Host header stays as the client signed it.
    head.uri = format!("http://{upstream}{}", head.uri).parse().expect("a URI with an authority");
    let body = if matches!(fault, Some(Fault::SpoilRequest)) {
        spoilt(body, 2).await
    } else {
        Ok(body.boxed())
    };
    let Ok(body) = body else { return error(400, "IncompleteBody") };
    match client.request(Request::from_parts(head, body)).await {
        Ok(answer) if let Some(Fault::EditAnswer(edit)) = fault => {
            let (mut head, body) = answer.into_parts();
            let bytes = body.collect().await.map(http_body_util::Collected::to_bytes);
            let text = String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("XML");
            head.headers.remove("content-length");
            Response::from_parts(head, full(edit(&text).into()))
        }
        Ok(mut answer) if let Some(Fault::MoveClock(by)) = fault => {
            let date = answer.headers_mut().get_mut("date").expect("a date");
            *date = moved(date.to_str().expect("text"), by).parse().expect("a value");
            answer.map(BodyExt::boxed)
        }
        Ok(answer) if matches!(fault, Some(Fault::SpoilAnswer)) => {
            let (head, body) = answer.into_parts();
            let body = spoilt(body, 1).await.unwrap_or_else(|_| full(Bytes::new()));
            Response::from_parts(head, body)
        }
        Ok(answer) => answer.map(BodyExt::boxed),
        Err(_) => error(502, "UpstreamUnreachable"),
    }
}

fn moved(date: &str, by: SignedDuration) -> String {
    let date = rfc2822::parse(date).expect("a date").timestamp() + by;
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).expect("a date")
}

/// The body with one bit of its last byte changed; its length stays. Each way changes a bit of its own,
/// lest one fault mends the other.
async fn spoilt(body: Incoming, bit: u8) -> Result<Body, hyper::Error> {
    let mut bytes = body.collect().await?.to_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= bit;
    }
    Ok(full(bytes.into()))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn error(status: u16, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>A test's fault.</Message></Error>");
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(full(body.into()))
        .expect("a valid answer")
}
