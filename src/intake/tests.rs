//! The webhook as a sender sees it, on a real journal and gap book.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::body::Body;
use futures_util::future::join_all;
use http::{HeaderMap, Request, StatusCode};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::webhook::{Webhook, WebhookIntake, router};
use super::*;
use crate::config::settings::{DeletePolicy, Durability};
use crate::dirty::DirtyKey;
use crate::event::{Channel, parse};
use crate::journal::{Cursor, JournalOptions};
use crate::metrics::Snapshot;
use crate::serve::{self, BearerToken};

const MAX_BODY: usize = 64 << 10;
/// A wait for room that no test has to sit out.
const SOON: Duration = Duration::from_millis(30);

/// An inlet over a real journal; `plain` is replicated but for `plain/skip/`, `versioned` whole.
struct Bench {
    dir: TempDir,
    journal: Journal,
    cursor: Cursor,
    gaps: Arc<GapBook>,
    metrics: Metrics,
    inlet: Arc<Inlet>,
}

impl Bench {
    fn new(max_size: u64, wait: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            dir: dir.path().join("journal"),
            segment_size: 1 << 20,
            max_size,
            durability: Durability::Write,
        };
        let (journal, cursor, _) = Journal::open(options).unwrap();
        let gaps = Arc::new(GapBook::open(dir.path().join("gaps")).unwrap());
        let metrics = Metrics::new();
        let bucket = |source: &str, exclude: &[&str]| BucketSettings {
            source: source.to_owned(),
            target: None,
            include: Vec::new(),
            exclude: exclude.iter().map(|&prefix| prefix.to_owned()).collect(),
            deletes: DeletePolicy::Mirror,
            delete_delay: Duration::ZERO,
            may_be_empty: false,
        };
        let buckets = [bucket("plain", &["skip/"]), bucket("versioned", &[])];
        let inlet = Inlet::new(&buckets, journal.clone(), Arc::clone(&gaps), metrics.clone(), wait);
        Self { dir, journal, cursor, gaps, metrics, inlet: Arc::new(inlet) }
    }

    fn roomy() -> Self {
        // With room, a wait is only ever for a busy disk.
        Self::new(64 << 20, Duration::from_mins(1))
    }

    fn webhook(&self) -> Webhook {
        Webhook {
            path: "/events".to_owned(),
            token: Some(BearerToken::new(&SecretString::from("t0ken"))),
            max_body: MAX_BODY,
            inlet: Arc::clone(&self.inlet),
            metrics: self.metrics.clone(),
        }
    }

    /// The webhook on a real port, for this many connections.
    async fn serve(
        &self,
        connections: usize,
    ) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = serve::bind(any, "intake.webhook.listen").await.unwrap();
        let address = listener.local_addr().unwrap();
        let intake = WebhookIntake::new(listener, None, self.webhook(), connections).unwrap();
        let stop = CancellationToken::new();
        (address, stop.clone(), tokio::spawn(Box::new(intake).run(stop)))
    }

    async fn post_with(&self, body: impl Into<Body>, token: &str) -> (StatusCode, HeaderMap) {
        let request = Request::post("/events").header("authorization", token);
        let answer = router(self.webhook(), Arc::new(IntakeHealth::new("webhook", String::new())))
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        (answer.status(), answer.headers().clone())
    }

    async fn post(&self, body: impl Into<Body>) -> StatusCode {
        self.post_with(body, "Bearer t0ken").await.0
    }

    fn counter(&self, line: &str) -> u64 {
        let text = self.metrics.encode(&Snapshot::default()).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix("evermirror_")?.strip_prefix(line));
        value.map_or(0, |v| v.trim().parse().unwrap())
    }

    fn gaps(&self) -> BTreeMap<String, GapReason> {
        self.gaps.list().into_iter().map(|gap| (gap.bucket, gap.reason)).collect()
    }

    async fn journaled(&mut self, count: usize) -> Vec<DirtyKey> {
        let mut keys = Vec::new();
        while keys.len() < count {
            let records = self.cursor.next(count - keys.len()).await.unwrap();
            keys.extend(records.iter().map(|record| DirtyKey::decode(&record.payload).unwrap()));
        }
        keys
    }

    /// Leaves no room for even the smallest record.
    async fn fill(&self) {
        for size in [32 << 10, 1 << 10, 16] {
            loop {
                match self.journal.append(vec![vec![0; size]]).await {
                    Ok(_) => {}
                    Err(AppendError::Full(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/notifications");
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "json" => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

fn event(bucket: &str, key: &str, name: &str) -> String {
    serde_json::json!({"Records": [{"eventSource": "minio:s3", "eventName": name,
        "responseElements": {"x-amz-request-id": "R"},
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "sequencer": "1"}}}]})
    .to_string()
}

const PUT: &str = "s3:ObjectCreated:Put";

#[tokio::test]
async fn every_fixture_is_acknowledged_and_its_keys_are_in_the_journal() {
    let mut bench = Bench::roomy();
    let mut expected = BTreeSet::new();
    for path in fixtures() {
        let body = std::fs::read(&path).unwrap();
        let events = parse(&body, Channel::Push).events.into_iter().map(|event| event.key);
        expected.extend(events.filter(|key| ["plain", "versioned"].contains(&&*key.bucket)));
        assert_eq!(bench.post(body).await, StatusCode::OK, "{}", path.display());
    }
    let accepted = bench.counter("intake_events_total{outcome=\"accepted\"}");
    let keys = bench.journaled(usize::try_from(accepted).unwrap()).await;
    assert_eq!(keys.into_iter().map(|key| key.key).collect::<BTreeSet<_>>(), expected);
    let requests = bench.counter("intake_requests_total{outcome=\"ok\"}");
    assert_eq!(requests, u64::try_from(fixtures().len()).unwrap());
    assert_eq!(bench.counter("intake_ack_seconds_count"), requests);
}

#[tokio::test]
async fn without_the_token_nothing_is_taken() {
    let bench = Bench::roomy();
    for wrong in ["", "Bearer wrong", "t0ken"] {
        let (status, headers) = bench.post_with(event("plain", "k", PUT), wrong).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(headers.contains_key("www-authenticate"));
    }
    assert_eq!(bench.counter("intake_requests_total{outcome=\"unauthorized\"}"), 3);
    assert_eq!(bench.counter("intake_events_total{outcome=\"accepted\"}"), 0);
    assert_eq!(bench.journal.stats().next_lsn, 1);
}

#[tokio::test]
async fn a_probe_needs_no_token_and_strangers_find_nothing() {
    let bench = Bench::roomy();
    let ask = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router(bench.webhook(), Arc::new(IntakeHealth::new("webhook", String::new())))
            .oneshot(request)
            .await
            .unwrap()
            .status()
    };
    for path in ["/", "/healthz", "/events"] {
        assert_eq!(ask("GET", path).await, StatusCode::OK);
        assert_eq!(ask("HEAD", path).await, StatusCode::OK);
    }
    assert_eq!(ask("GET", "/elsewhere").await, StatusCode::NOT_FOUND);
    assert_eq!(ask("POST", "/").await, StatusCode::NOT_FOUND);
    assert_eq!(ask("DELETE", "/events").await, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_leaves_every_bucket_in_doubt() {
    let announced = Body::from(vec![b' '; MAX_BODY + 1]);
    let unannounced = Body::new(Chunks(65));
    for body in [announced, unannounced] {
        let bench = Bench::roomy();
        assert_eq!(bench.post(body).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(bench.counter("intake_requests_total{outcome=\"too_large\"}"), 1);
        assert_eq!(bench.gaps().len(), 2);
        assert_eq!(bench.inlet.dead_letters().list()[0].reason, "too_large");
    }
    let bench = Bench::roomy();
    let mut fits = event("plain", "k", PUT);
    fits.extend(std::iter::repeat_n(' ', MAX_BODY - fits.len()));
    assert_eq!(bench.post(fits).await, StatusCode::OK);
}

/// So many chunks of 1 KiB, of no announced length.
struct Chunks(usize);

impl http_body::Body for Chunks {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        let chunk = bytes::Bytes::from_static(&[b' '; 1024]);
        std::task::Poll::Ready(left.map(|_| Ok(http_body::Frame::data(chunk))))
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_acknowledged_kept_counted_and_leaves_its_bucket_in_doubt() {
    let all = [("plain", GapReason::DeadLetter), ("versioned", GapReason::DeadLetter)];
    let one = [("plain", GapReason::UnusableEvent)];
    for (body, letter, gaps, keys) in [
        ("this is not JSON".to_owned(), "not_json", &all[..], 0),
        (event("plain", "", PUT), "no_key", &one, 0),
        (event("plain", "k", "s3:Brand:New"), "unknown_event", &one, 1),
        (event("strange", "k", PUT), "other_bucket", &[], 0),
        (event("strange", "", PUT), "no_key", &[], 0),
    ] {
        let mut bench = Bench::roomy();
        assert_eq!(bench.post(body).await, StatusCode::OK, "{letter}");
        let letters = bench.inlet.dead_letters().list();
        assert_eq!(letters.iter().map(|l| l.reason).collect::<Vec<_>>(), [letter]);
        assert_eq!(bench.counter("intake_events_total{outcome=\"dead_letter\"}"), 1);
        let expected: BTreeMap<_, _> = gaps.iter().map(|(b, r)| ((*b).to_owned(), *r)).collect();
        assert_eq!(bench.gaps(), expected, "{letter}");
        assert_eq!(bench.journal.stats().next_lsn, 1 + keys, "{letter}");
        if keys > 0 {
            assert_eq!(&*bench.journaled(1).await[0].key.key, "k");
        }
    }
}

#[tokio::test]
async fn keys_that_are_not_replicated_are_ignored() {
    let bench = Bench::roomy();
    assert_eq!(bench.post(event("plain", "skip/me", PUT)).await, StatusCode::OK);
    assert_eq!(bench.counter("intake_events_total{outcome=\"ignored\"}"), 1);
    assert_eq!(bench.journal.stats().next_lsn, 1);
    assert!(bench.gaps().is_empty() && bench.inlet.dead_letters().is_empty());
}

#[tokio::test]
async fn a_second_delivery_of_a_durable_event_is_dropped() {
    let bench = Bench::roomy();
    for body in [event("plain", "k", PUT), event("plain", "k", PUT), event("plain", "l", PUT)] {
        assert_eq!(bench.post(body).await, StatusCode::OK);
    }
    assert_eq!(bench.counter("intake_events_total{outcome=\"accepted\"}"), 2);
    assert_eq!(bench.counter("intake_events_total{outcome=\"duplicate\"}"), 1);
    assert_eq!(bench.journal.stats().next_lsn, 3);
}

#[tokio::test]
async fn a_full_journal_answers_503_records_the_gap_and_takes_the_event_when_there_is_room() {
    let bench = Bench::new(4 << 20, SOON);
    bench.fill().await;
    let (status, headers) = bench.post_with(event("plain", "k", PUT), "Bearer t0ken").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "5");
    assert_eq!(bench.gaps(), BTreeMap::from([("plain".to_owned(), GapReason::JournalFull)]));
    assert_eq!(bench.counter("intake_requests_total{outcome=\"unavailable\"}"), 1);
    assert_eq!(bench.counter("errors_total{stage=\"journal\",class=\"journal_full\"}"), 1);
    assert_eq!(bench.counter("gaps_total{reason=\"journal_full\"}"), 1);
    let next = bench.journal.stats().next_lsn;
    bench.journal.trim(next);
    // Trimming is done in the background; the sender tries again, as MinIO's queue does.
    while bench.post(event("plain", "k", PUT)).await != StatusCode::OK {}
    assert_eq!(bench.counter("intake_events_total{outcome=\"duplicate\"}"), 0);
    assert!(bench.journal.stats().next_lsn > next);
}

#[tokio::test]
async fn who_is_not_the_active_one_any_more_acknowledges_nothing_although_it_is_durable() {
    let mut bench = Bench::roomy();
    let fence = Arc::new(Fence::until(crate::clock::since_boot() + Duration::from_hours(1)));
    let inlet = Arc::try_unwrap(bench.inlet).unwrap();
    bench.inlet = Arc::new(inlet.fenced(Arc::clone(&fence)));
    assert_eq!(bench.post(event("plain", "before", PUT)).await, StatusCode::OK);
    fence.fall();
    let after = event("plain", "after", PUT);
    assert_eq!(bench.post(after.clone()).await, StatusCode::SERVICE_UNAVAILABLE);
    // Nor when it comes again, as what is known already.
    assert_eq!(bench.post(after).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bench.post(event("plain", "before", PUT)).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bench.gaps(), BTreeMap::from([("plain".to_owned(), GapReason::TakenOver)]));
    assert_eq!(bench.counter("errors_total{stage=\"journal\",class=\"lease_over\"}"), 3);
}

#[tokio::test]
async fn a_sender_is_held_back_until_there_is_room() {
    let bench = Bench::new(4 << 20, Duration::from_mins(1));
    bench.fill().await;
    let next = bench.journal.stats().next_lsn;
    let make_room = async {
        // The journal refuses once more before there is room.
        while bench.journal.append(vec![vec![0; 16]]).await.is_ok() {}
        bench.journal.trim(next);
    };
    let (status, ()) = tokio::join!(bench.post(event("plain", "k", PUT)), make_room);
    assert_eq!(status, StatusCode::OK);
    assert!(bench.gaps().is_empty());
}

#[tokio::test]
async fn a_closed_journal_acknowledges_nothing_and_the_bucket_is_in_doubt() {
    let bench = Bench::roomy();
    bench.journal.close().await;
    assert_eq!(bench.post(event("plain", "k", PUT)).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bench.gaps().len(), 1);
}

#[tokio::test]
async fn more_keys_than_the_journal_takes_at_once_leave_their_bucket_in_doubt() {
    let bench = Bench::new(64 << 10, Duration::from_mins(1));
    let record = |n: usize| {
        serde_json::json!({"eventSource": "minio:s3", "eventName": PUT,
            "responseElements": {"x-amz-request-id": "R"}, "s3": {"bucket": {"name": "plain"},
            "object": {"key": format!("{n:01000}"), "sequencer": "1"}}})
    };
    let body = serde_json::json!({"Records": (0..50).map(record).collect::<Vec<_>>()}).to_string();
    for _ in 0..2 {
        assert_eq!(bench.post(body.clone()).await, StatusCode::OK);
    }
    assert_eq!(bench.gaps(), BTreeMap::from([("plain".to_owned(), GapReason::DeadLetter)]));
    assert_eq!(bench.inlet.dead_letters().list()[0].reason, "too_large");
    assert_eq!(bench.counter("intake_events_total{outcome=\"accepted\"}"), 0);
    assert_eq!(bench.counter("intake_events_total{outcome=\"duplicate\"}"), 0);
}

/// A body that never ends; the receiver hears when the handler asks for it.
struct Endless(Option<tokio::sync::oneshot::Sender<()>>);

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        self.0.take().map(|asked| asked.send(()));
        std::task::Poll::Pending
    }
}

fn not_taken(buckets: &[&str]) -> BTreeMap<String, GapReason> {
    buckets.iter().map(|bucket| ((*bucket).to_owned(), GapReason::NotTaken)).collect()
}

#[tokio::test]
async fn an_event_that_nobody_waits_for_any_more_leaves_a_gap_of_its_bucket_only() {
    let bench = Bench::new(4 << 20, Duration::from_mins(1));
    bench.fill().await;
    let parsed = parse(event("plain", "k", PUT).as_bytes(), Channel::Push);
    let mut accepting = Box::pin(bench.inlet.accept(parsed.clone(), 7));
    assert!(futures_util::poll!(&mut accepting).is_pending());
    assert_eq!(bench.gaps(), BTreeMap::new());
    drop(accepting);
    assert_eq!(bench.gaps(), not_taken(&["plain"]));
    // A message that its queue keeps is not lost.
    let kept = parse(event("versioned", "k", PUT).as_bytes(), Channel::Push);
    let mut accepting = Box::pin(bench.inlet.accept_kept(kept, 7));
    assert!(futures_util::poll!(&mut accepting).is_pending());
    drop(accepting);
    assert_eq!(bench.gaps(), not_taken(&["plain"]));
}

#[tokio::test]
async fn a_gap_of_a_sender_that_hung_up_is_durable_soon() {
    let bench = Bench::new(4 << 20, Duration::from_mins(1));
    bench.fill().await;
    let path = bench.dir.path().join("gaps");
    let parsed = parse(event("plain", "k", PUT).as_bytes(), Channel::Push);
    drop(futures_util::poll!(Box::pin(bench.inlet.accept(parsed, 7))));
    while !String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains("not_taken") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_sender_that_hangs_up_within_its_body_leaves_every_bucket_in_doubt() {
    let bench = Bench::roomy();
    let (asks, asked) = tokio::sync::oneshot::channel();
    let mut posting = Box::pin(bench.post(Body::new(Endless(Some(asks)))));
    tokio::select! {
        status = &mut posting => panic!("{status}"),
        asked = asked => asked.unwrap(),
    }
    drop(posting);
    assert_eq!(bench.gaps(), not_taken(&["plain", "versioned"]));
    // Without the token it is no event of ours.
    let bench = Bench::roomy();
    let (asks, _) = tokio::sync::oneshot::channel();
    let (status, _) = bench.post_with(Body::new(Endless(Some(asks))), "Bearer no").await;
    assert_eq!((status, bench.gaps()), (StatusCode::UNAUTHORIZED, BTreeMap::new()));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_late_or_breaks_off_leaves_every_bucket_in_doubt() {
    let late = Body::new(Endless(None));
    let broken = Body::from_stream(futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"{")),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ]));
    for (body, status) in [(late, StatusCode::REQUEST_TIMEOUT), (broken, StatusCode::BAD_REQUEST)] {
        let bench = Bench::roomy();
        assert_eq!(bench.post(body).await, status);
        assert_eq!(bench.gaps(), not_taken(&["plain", "versioned"]));
        assert_eq!(bench.counter("gaps_total{reason=\"not_taken\"}"), 2);
    }
}

fn request(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t0ken\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_connection_closed_while_the_journal_is_full_leaves_a_gap_of_its_bucket() {
    let bench = Bench::new(4 << 20, Duration::from_mins(1));
    bench.fill().await;
    let (address, stop, server) = bench.serve(8).await;
    let mut sender = TcpStream::connect(address).await.unwrap();
    sender.write_all(request(&event("plain", "k", PUT)).as_bytes()).await.unwrap();
    drop(sender);
    while bench.gaps().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.gaps().get("plain"), Some(&GapReason::NotTaken));
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn connections_that_send_nothing_keep_no_notification_out() {
    let mut bench = Bench::roomy();
    let (address, stop, server) = bench.serve(2).await;
    let strangers = || join_all((0..6).map(|_| TcpStream::connect(address)));
    let mut silent = strangers().await;
    let mut sender = TcpStream::connect(address).await.unwrap();
    for key in ["first", "second"] {
        sender.write_all(request(&event("plain", key, PUT)).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(sender.read_buf(&mut answer).await.unwrap(), 0, "closed too early");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        silent.extend(strangers().await);
    }
    assert_eq!(bench.journaled(2).await.len(), 2);
    drop((silent, sender));
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn all_bodies_together_take_no_more_memory_than_their_budget() {
    let bench = Bench::roomy();
    let router = router(bench.webhook(), Arc::new(IntakeHealth::new("webhook", String::new())));
    let post = |body: Body| {
        let request = Request::post("/events").header("authorization", "Bearer t0ken");
        router.clone().oneshot(request.body(body).unwrap())
    };
    // Each may become as large as the largest.
    let mut endless: Vec<_> =
        (0..(64 << 20) / MAX_BODY).map(|_| Box::pin(post(Body::new(Endless(None))))).collect();
    for posting in &mut endless {
        assert!(futures_util::poll!(posting).is_pending());
    }
    let mut one_more = Box::pin(post(event("plain", "k", PUT).into()));
    assert!(futures_util::poll!(&mut one_more).is_pending());
    assert_eq!(bench.journal.stats().next_lsn, 1);
    drop(endless.pop());
    assert_eq!(one_more.await.unwrap().status(), StatusCode::OK);
}
