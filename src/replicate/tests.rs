//! The stage as a whole, against a server that answers what each test wants.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Uri};

use super::*;
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::object::ObjectKey;
use crate::store::Store;

/// A server that answers each request with what `answer` makes of it; gives its endpoint.
async fn server(
    answer: impl Fn(&Method, &Uri) -> Response + Clone + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router =
        axum::Router::new().fallback(async move |method: Method, uri: Uri| answer(&method, &uri));
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

/// A replicator on the way back between two endpoints; bucket `b` goes to `c`.
async fn replicator(dir: &Path, source: &str, target: &str) -> Replicator {
    let settings: Settings = toml::from_str(&format!(
        "data_dir = '{}'\n[source]\nendpoint = '{source}'\naccess_key = 'a'\nsecret_key = 'bbbbbbbb'\n\
         [target]\nendpoint = '{target}'\naccess_key = 'a'\nsecret_key = 'bbbbbbbb'\n\
         [[buckets]]\nsource = 'b'\ntarget = 'c'",
        dir.display()
    ))
    .unwrap();
    let second = Duration::from_secs(1);
    let stores = Stores {
        source: Store::connect(Side::Source, &settings.source, second).await.unwrap(),
        target: Store::connect(Side::Target, &settings.target.store(), second).await.unwrap(),
    };
    let queue = Arc::new(WorkQueue::new(10, Duration::ZERO));
    Replicator::start(&settings, stores, queue, Direction::Back, Metrics::new()).await.unwrap()
}

fn dirty(key: &str) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new("b", key),
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
    replicator.dispatcher.queue.mark(&dirty("k"), 1);
    let take = || replicator.dispatcher.take_now(Size::Small, &replicator.stop);
    assert!(take().is_none());
    // The lanes had no turn to take it since.
    drop(paused);
    assert!(take().is_some());
}

#[tokio::test]
async fn a_targets_failure_is_booked_on_the_target_though_both_share_an_endpoint() {
    let one = server(|method, _| match *method {
        Method::PUT => answered(500, "<Error><Code>InternalError</Code></Error>"),
        _ => answered(200, "an object"),
    });
    let (one, dir) = (one.await, tempfile::tempdir().unwrap());
    let replicator = replicator(dir.path(), &one, &one).await;
    let _paused = replicator.pause();
    replicator.dispatcher.queue.mark(&dirty("k"), 1);
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
