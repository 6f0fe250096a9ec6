//! The stage as a whole, against a server that answers what each test wants.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Uri};
use tokio::sync::Notify;

use super::delete::Then;
use super::*;
use crate::deletes::{Admission, Confirmed};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::object::ObjectKey;
use crate::store::Store;

/// A server that answers each request with what `answer` makes of it; gives its endpoint.
async fn server<F: Future<Output = Response> + Send + 'static>(
    answer: impl Fn(Method, Uri) -> F + Clone + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new()
        .fallback(async move |method: Method, uri: Uri| answer(method, uri).await);
    tokio::spawn(async { axum::serve(listener, router).await });
    endpoint
}

fn answered(status: u16, document: &'static str) -> Response {
    let etag = format!("\"{}\"", hex::encode(<md5::Md5 as md5::Digest>::digest(document)));
    Response::builder()
        .status(status)
        .header("server", "MinIO")
        .header("etag", etag)
        .body(Body::from(document))
        .unwrap()
}

/// A client of the store at this endpoint.
async fn client(side: Side, endpoint: &str) -> Store {
    let settings = format!("endpoint = '{endpoint}'\naccess_key = 'a'\nsecret_key = 'bbbbbbbb'");
    Store::connect(side, &toml::from_str(&settings).unwrap(), Duration::from_secs(1)).await.unwrap()
}

/// A replicator on the way back between two endpoints; bucket `b` goes to `c`, and some to themselves.
async fn replicator(dir: &Path, source: &str, target: &str) -> Replicator {
    let settings: Settings = toml::from_str(&format!(
        "data_dir = '{}'\n[source]\nendpoint = '{source}'\naccess_key = 'a'\nsecret_key = 'bbbbbbbb'\n\
         [target]\nendpoint = '{target}'\naccess_key = 'a'\nsecret_key = 'bbbbbbbb'\n\
         [[buckets]]\nsource = 'b'\ntarget = 'c'\n\
         [[buckets]]\nsource = 'full'\n[[buckets]]\nsource = 'works'",
        dir.display()
    ))
    .unwrap();
    let stores = Stores {
        source: client(Side::Source, source).await,
        target: client(Side::Target, target).await,
    };
    let queue = Arc::new(WorkQueue::new(1_000, Duration::ZERO));
    Replicator::start(&settings, stores, queue, Direction::Back, Metrics::new()).await.unwrap()
}

fn dirty(bucket: &str, key: &str) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new(bucket, key),
        aspects: Aspects::CONTENT,
        origin: Origin::Live,
        since_ms: 0,
        size: None,
    }
}

#[tokio::test]
async fn a_task_that_panics_is_told_of_and_one_that_ends_is_not() {
    let panicked = CancellationToken::new();
    guarded(async {}, panicked.clone()).await;
    assert!(!panicked.is_cancelled());
    guarded(async { panic!("on purpose") }, panicked.clone()).await;
    assert!(panicked.is_cancelled());
}

#[tokio::test]
async fn while_it_is_paused_no_worker_takes_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let replicator = replicator(dir.path(), "http://127.0.0.1:1", "http://127.0.0.1:2").await;
    let paused = replicator.pause();
    replicator.dispatcher.queue.mark(&dirty("b", "k"), 1);
    let take = || replicator.dispatcher.take_now(Size::Small, &replicator.stop);
    assert!(take().is_none());
    // The lanes had no turn to take it since.
    drop(paused);
    assert!(take().is_some());
}

#[tokio::test]
async fn a_targets_failure_is_booked_on_the_target_though_both_share_an_endpoint() {
    let one = server(async |method, _| match method {
        Method::PUT => answered(500, "<Error><Code>InternalError</Code></Error>"),
        _ => answered(200, "an object"),
    });
    let (one, dir) = (one.await, tempfile::tempdir().unwrap());
    let replicator = replicator(dir.path(), &one, &one).await;
    let _paused = replicator.pause();
    replicator.dispatcher.queue.mark(&dirty("b", "k"), 1);
    let work = replicator.dispatcher.queue.next_small().await;
    replicator.dispatcher.try_once(&work, Size::Small).await;
    let (source, target) = replicator.stores();
    assert_eq!(source.last_error, None);
    let error = target.last_error.unwrap();
    assert!(error.contains("PutObject c/k"), "{error}");
    let metrics =
        replicator.dispatcher.metrics.encode(&crate::metrics::Snapshot::default()).unwrap();
    assert!(metrics.contains(r#"evermirror_errors_total{stage="target",class="transient"} 1"#));
}

/// Works on `keys` of a bucket, one after the other.
async fn try_keys(replicator: &Replicator, bucket: &str, keys: u64) {
    let dispatcher = &replicator.dispatcher;
    for number in 0..keys {
        dispatcher.queue.mark(&dirty(bucket, &format!("k{number}")), number + 1);
        let work = dispatcher.queue.next_small().await;
        dispatcher.try_once(&work, Size::Small).await;
    }
}

#[tokio::test]
async fn a_bucket_over_its_quota_backs_off_and_the_store_stays_up() {
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    let one = server(move |method, uri| {
        let told = Arc::clone(&told);
        async move {
            match (method, uri.path()) {
                (Method::PUT, path) if path.starts_with("/full/") => {
                    answered(400, "<Error><Code>XMinioAdminBucketQuotaExceeded</Code></Error>")
                }
                (Method::HEAD, "/full/" | "/works/" | "/c/") => {
                    told.notify_one();
                    answered(200, "")
                }
                _ => answered(200, "an object"),
            }
        }
    });
    let (one, dir) = (one.await, tempfile::tempdir().unwrap());
    let replicator = replicator(dir.path(), &one, &one).await;
    let _paused = replicator.pause();
    let window = replicator.concurrency();
    try_keys(&replicator, "full", 30).await;
    // The store was asked, and said that it is well.
    asked.notified().await;
    assert!(replicator.stores().1.up);
    let reason = replicator.unhealthy("full").unwrap().reason;
    assert!(reason.contains("QuotaExceeded"), "{reason}");
    assert!(replicator.concurrency() > window / 2, "the others have their permits");
    try_keys(&replicator, "works", 1).await;
    assert!(replicator.unhealthy("works").is_none());
    assert!(replicator.unhealthy("full").is_some(), "another bucket's success says nothing of it");
}

#[tokio::test]
async fn a_store_that_answers_for_no_bucket_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let source = server(async |_, _| answered(200, "an object")).await;
    let replicator = replicator(dir.path(), &source, "http://127.0.0.1:1").await;
    let _paused = replicator.pause();
    try_keys(&replicator, "works", 8).await;
    replicator.dispatcher.target.wait_down().await;
    let (source, target) = replicator.stores();
    assert!(source.up && !target.up);
    assert!(target.last_error.unwrap().contains("HeadBucket"));
}

#[tokio::test]
async fn while_a_store_is_down_no_bucket_fails_by_itself_and_no_waiting_key_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let source = server(async |_, _| answered(200, "an object")).await;
    let replicator = replicator(dir.path(), &source, "http://127.0.0.1:1").await;
    let (_paused, dispatcher) = (replicator.pause(), &replicator.dispatcher);
    let mut late = Vec::new();
    for number in 1..=20 {
        dispatcher.queue.mark(&dirty("works", &format!("late{number}")), number);
        late.push(dispatcher.queue.next_small().await);
    }
    try_keys(&replicator, "works", 8).await;
    dispatcher.target.wait_down().await;
    for work in &late {
        dispatcher.try_once(work, Size::Small).await;
    }
    for number in 100..600 {
        dispatcher.queue.mark(&dirty("works", &format!("waits{number}")), number);
    }
    assert!(replicator.unhealthy("works").is_none());
    let stuck = dispatcher.queue.stuck();
    assert!(stuck.iter().all(|(_, keys)| *keys <= late.len()), "{stuck:?}");
}

#[tokio::test]
async fn the_deletes_of_a_bucket_wait_for_no_other_bucket() {
    let hangs = Arc::new(Notify::new());
    let told = Arc::clone(&hangs);
    let one = server(move |_, uri| {
        let told = Arc::clone(&told);
        async move {
            if uri.path().starts_with("/hangs") {
                told.notify_one();
                std::future::pending::<()>().await;
            }
            answered(200, "<DeleteResult/>")
        }
    });
    let one = one.await;
    let dir = tempfile::tempdir().unwrap();
    let bucket =
        |name: &str| toml::from_str(&format!("source = '{name}'\nmay_be_empty = true")).unwrap();
    let buckets = [bucket("hangs"), bucket("works")];
    let gate =
        Gate::new(client(Side::Source, &one).await, Hold::for_tests(dir.path()).await, &buckets);
    let (deleter, run) = Deleter::new(gate, client(Side::Target, &one).await);
    let _run = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(run));
    let other = deleter.clone();
    let delete = async |deleter: Deleter, bucket: &str| {
        let key = ObjectKey::new(bucket, "k");
        let confirmed = Confirmed {
            key,
            approved: false,
            counted: false,
            lsn: 1,
            aspects: Aspects::REMOVED,
            own: false,
        };
        deleter.delete(confirmed, Then::Delete(bucket.into())).await
    };
    let hanging = tokio::spawn(async move { delete(other, "hangs").await.map(|_| ()) });
    hangs.notified().await;
    assert_eq!(delete(deleter, "works").await.unwrap(), Admission::Allow);
    assert!(!hanging.is_finished());
}
