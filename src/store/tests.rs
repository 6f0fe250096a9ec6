//! The client against a server that says exactly what each test wants, and keeps what it was sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{ErrorKind, GetOptions, ListQuery, PutBody, Side, Store};
use crate::fence::Fence;
use crate::object::ETag;

/// Sends one of `answers` to each connection, then closes it; gives what it received, as text.
async fn server<const N: usize>(answers: [String; N]) -> (Store, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let running = tokio::spawn(async move {
        let mut received = Vec::new();
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            received.push(request(&mut connection).await);
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
        received
    });
    (store(&endpoint).await, running)
}

async fn store(endpoint: &str) -> Store {
    let settings = format!("endpoint = '{endpoint}'\naccess_key = 'a'\nsecret_key = 'b'");
    let settings = toml::from_str(&settings).unwrap();
    Store::connect(Side::Source, &settings, Duration::from_millis(300)).await.unwrap()
}

/// Reads a request: up to its announced length, or to the end of the connection if that is sooner.
async fn request(connection: &mut TcpStream) -> String {
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(read) => all.extend_from_slice(&buffer[..read]),
        }
    }
}

fn answer(head: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn error(status: u16, code: &str) -> String {
    answer(&format!("{status} X"), &format!("<Error><Code>{code}</Code></Error>"))
}

#[tokio::test]
async fn a_key_reaches_the_wire_as_it_is() {
    let (store, server) = server([answer("200 OK", "x")]).await;
    let key = "/a//../.\u{1}%2F+ ?#é/";
    store.get("b", key, GetOptions::default()).await.unwrap().bytes().await.unwrap();
    let received = server.await.unwrap().remove(0);
    let line = received.lines().next().unwrap();
    assert_eq!(line, "GET /b//a//../.%01%252F%2B%20%3F%23%C3%A9/ HTTP/1.1");
}

/// An answer with so many headers of metadata.
fn metadata(count: usize) -> String {
    let headers: Vec<_> = (0..count).map(|n| format!("\r\nx-amz-meta-{n}: {n}")).collect();
    answer(&format!("200 OK{}", headers.concat()), "x")
}

#[tokio::test]
async fn an_object_with_more_metadata_than_usual_is_asked_for_once_more_and_then_there_is_room() {
    let answers = [metadata(150), metadata(150), metadata(160), metadata(300)];
    let (store, server) = server(answers).await;
    let body = store.get("b", "k", GetOptions::default()).await.unwrap();
    assert_eq!(body.head.headers["x-amz-meta-149"], "149");
    assert_eq!(body.bytes().await.unwrap(), "x");
    let head = store.head("b", "k").await.unwrap();
    assert_eq!(head.headers["x-amz-meta-159"], "159");
    let error = store.head("b", "k").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.message.contains("too large"), "{error}");
    let asked = server.await.unwrap();
    let methods: Vec<_> = asked.iter().map(|request| request.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["GET", "GET", "HEAD", "HEAD"]);
}

#[tokio::test]
async fn nothing_is_written_once_the_fence_has_fallen() {
    // One answer for the read; a write that was sent would find nobody.
    let (store, server) = server([answer("200 OK", "x")]).await;
    let fence = Arc::new(Fence::alone());
    store.fence(&fence);
    fence.fall();
    let body = || PutBody::Bytes(Bytes::from_static(b"data"));
    let refused = [
        store.put("b", "k", &HeaderMap::new(), None, body()).await.unwrap_err(),
        store.clone().delete("b", "k").await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind, ErrorKind::Transient);
        assert!(error.message.starts_with("not sent: the lease is over"), "{error}");
        assert!(!error.maybe_applied);
    }
    store.get("b", "k", GetOptions::default()).await.unwrap().bytes().await.unwrap();
    assert!(server.await.unwrap().remove(0).starts_with("GET "));
}

#[tokio::test]
async fn metadata_reaches_the_wire_byte_for_byte() {
    let (store, server) = server([answer("200 OK\r\nETag: \"t\"", "")]).await;
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-meta-name", "zażółć".parse().unwrap());
    let body = PutBody::Bytes(Bytes::from_static(b"data"));
    let outcome = store.put("b", "k", &headers, Some([0; 16]), body).await.unwrap();
    assert_eq!(outcome.etag, Some(ETag::new("t")));
    let received = server.await.unwrap().remove(0);
    assert!(received.contains("\r\nx-amz-meta-name: zażółć\r\n"), "{received}");
    assert!(received.contains("\r\ncontent-md5: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), "{received}");
    assert!(received.contains(
        "SignedHeaders=content-md5;host;x-amz-content-sha256;x-amz-date;x-amz-meta-name,"
    ));
    assert!(received.ends_with("\r\n\r\ndata"), "{received}");
}

#[tokio::test]
async fn a_source_that_is_cut_never_makes_a_complete_request() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_owned();
    let (source, _server) = server([cut]).await;
    let (target, received) = server([answer("200 OK", "")]).await;
    let object = source.get("s", "k", GetOptions::default()).await.unwrap();
    let put = target.put("t", "k", &HeaderMap::new(), None, object.into_put()).await;
    let error = put.unwrap_err();
    assert_eq!((error.operation, &*error.bucket), ("GetObject", "s"), "{error}");
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(!error.maybe_applied);
    let received = received.await.unwrap().remove(0);
    assert!(received.contains("content-length: 10\r\n") && !received.ends_with("1234567890"));
}

#[tokio::test]
async fn a_source_that_stalls_is_given_up_and_blamed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = store(&format!("http://{}", listener.local_addr().unwrap())).await;
    let (target, received) = server([answer("200 OK", "")]).await;
    let get = source.get("s", "k", GetOptions::default());
    let serve = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        request(&mut connection).await;
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await.unwrap();
        connection
    };
    let (object, _open) = tokio::join!(get, serve);
    let body = object.unwrap().into_put();
    let error = target.put("t", "k", &HeaderMap::new(), None, body).await.unwrap_err();
    assert_eq!((error.operation, error.kind), ("GetObject", ErrorKind::Transient), "{error}");
    assert!(error.message.starts_with("no data for"), "{error}");
    assert!(received.await.unwrap()[0].ends_with("\r\n\r\n"), "no byte of a body was sent");
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = store(&format!("http://{}", listener.local_addr().unwrap())).await;
    let error = silent.put_tags("t", "k", &super::Tags::new()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.maybe_applied && error.message.starts_with("no answer for"), "{error}");
}

#[tokio::test]
async fn a_write_without_an_answer_may_have_been_applied() {
    let (store, _server) = server([String::new()]).await;
    let body = PutBody::Bytes(Bytes::from_static(b"data"));
    let error = store.put("b", "k", &HeaderMap::new(), None, body).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.maybe_applied, "{error}");

    let nobody = super::tests::store("http://127.0.0.1:1").await;
    let error = nobody.delete("b", "k").await.unwrap_err();
    assert_eq!((error.message.as_str(), error.maybe_applied), ("connection refused", false));
}

#[tokio::test]
async fn a_redirect_names_the_right_region() {
    let redirect = answer("301 X\r\nx-amz-bucket-region: eu-west-3", "");
    let (store, _server) = server([redirect]).await;
    let error = store.head("b", "k").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("region eu-west-3"), "{error}");
}

#[tokio::test]
async fn a_signature_for_another_region_names_the_right_one() {
    let code = "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region>";
    let (store, _server) = server([answer("400 X", &format!("<Error>{code}</Error>"))]).await;
    let error = store.list("b", &ListQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("region eu-west-3"), "{error}");
}

#[tokio::test]
async fn a_session_token_is_sent_and_signed_with_every_request() {
    let (plain, server) = server([answer("200 OK", "")]).await;
    let settings = format!(
        "endpoint = '{}'\naccess_key = 'a'\nsecret_key = 'b'\nsession_token = 'a token'",
        plain.endpoint()
    );
    let settings = toml::from_str(&settings).unwrap();
    let store = Store::connect(Side::Source, &settings, Duration::from_millis(300)).await.unwrap();
    store.delete("b", "k").await.unwrap();
    let received = server.await.unwrap().concat();
    assert!(received.contains("x-amz-security-token: a token\r\n"), "{received}");
    assert!(received.contains("x-amz-date;x-amz-security-token"), "{received}");
}

#[tokio::test]
async fn a_clock_that_is_off_is_learnt_from_an_answer_without_a_body_too() {
    // A HEAD that is refused has no code; the time beside it says why.
    let refused =
        "HTTP/1.1 403 X\r\nConnection: close\r\nDate: Mon, 23 Nov 2020 10:00:00 GMT\r\n\r\n";
    let (store, server) = server([refused.to_owned(), answer("200 OK", "")]).await;
    let error = store.head("b", "k").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    assert!(error.message.contains("clocks differ"), "{error}");
    store.delete("b", "k").await.unwrap();
    let received = server.await.unwrap();
    assert!(received[1].contains("x-amz-date: 20201123T"), "{}", received[1]);
}

#[tokio::test]
async fn a_clock_that_is_off_is_learnt_from_the_store() {
    let skewed = error(403, "RequestTimeTooSkewed")
        .replace("Connection", "Date: Mon, 23 Nov 2020 10:00:00 GMT\r\nConnection");
    let (store, server) = server([skewed, answer("200 OK", "")]).await;
    let error = store.delete("b", "k").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    store.delete("b", "k").await.unwrap();
    let received = server.await.unwrap();
    assert!(!received[0].contains("x-amz-date: 20201123T"), "{}", received[0]);
    assert!(received[1].contains("x-amz-date: 20201123T"), "{}", received[1]);
}

#[tokio::test]
async fn an_upload_that_fails_after_its_200_has_failed() {
    let late = answer("200 OK", "<Error><Code>InternalError</Code><Message>no</Message></Error>");
    let cut = answer("200 OK", "<CompleteMultipartUploadResult>");
    let (store, _server) = server([late, cut]).await;
    for _ in 0..2 {
        let parts = [(1, ETag::new("t"))];
        let error = store.complete_multipart("b", "k", "id", &parts).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Transient, "{error}");
        assert!(error.maybe_applied, "{error}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_never_taken_for_a_missing_object() {
    let bare = || "HTTP/1.1 404 X\r\nx-amz-request-id: 7\r\nConnection: close\r\n\r\n".to_owned();
    let (store, _server) = server([bare(), bare(), bare(), answer("200 OK", "")]).await;
    assert_eq!(store.head("b", "k").await.unwrap_err().kind, ErrorKind::NoSuchBucket);
    assert_eq!(store.head("b", "k").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_404_that_is_no_stores_own_counts_only_if_a_listing_says_the_same() {
    let bare = || "HTTP/1.1 404 X\r\nConnection: close\r\n\r\n".to_owned();
    let listing = |key: &str| {
        let entry = format!(
            "<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag>\
             <LastModified>2026-11-30T00:00:00.000Z</LastModified></Contents>"
        );
        let body =
            format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entry}</ListBucketResult>");
        answer("200 OK", &body)
    };
    let refused = error(403, "AccessDenied");
    let answers =
        [bare(), listing("k"), bare(), listing("k-other"), bare(), refused, bare(), bare()];
    let (store, _server) = server(answers).await;
    let there = store.head("b", "k").await.unwrap_err();
    assert_eq!(there.kind, ErrorKind::Transient, "{there}");
    assert!(there.message.contains("the object is listed"), "{there}");
    assert_eq!(store.head("b", "k").await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.head("b", "k").await.unwrap_err().kind, ErrorKind::Denied, "in doubt not");
    let lost = store.head("b", "k").await.unwrap_err();
    assert_eq!(lost.kind, ErrorKind::Transient, "one 404 confirms no other: {lost}");
}

#[tokio::test]
async fn a_delete_is_done_only_if_the_store_says_so() {
    let proxy = answer("404 X", "<html>nothing here</html>");
    let (store, _server) = server([error(404, "NoSuchKey"), proxy]).await;
    assert!(store.delete("b", "k").await.is_ok());
    assert_eq!(store.delete("b", "k").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_store_without_batch_deletes_gets_single_ones() {
    let none = || answer("204 X", "");
    let denied = error(403, "AccessDenied");
    let (store, server) = server([error(501, "NotImplemented"), none(), denied, none()]).await;
    let outcomes = store.delete_many("b", &["one"]).await;
    assert!(matches!(outcomes.as_slice(), [Ok(())]));
    assert_eq!(
        store.delete_many("b", &["two"]).await[0].as_ref().unwrap_err().kind,
        ErrorKind::Denied
    );
    assert!(store.delete_many("b", &["three"]).await[0].is_ok());
    let lines: Vec<_> =
        server.await.unwrap().iter().map(|r| r.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines[0], "POST /b/?delete= HTTP/1.1");
    assert_eq!(lines[1..], ["one", "two", "three"].map(|k| format!("DELETE /b/{k} HTTP/1.1")));
}

#[tokio::test]
async fn deletes_are_answered_in_the_order_of_their_keys() {
    let result = "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></Error>\
                  <Error><Key>c</Key><Code>NoSuchKey</Code></Error></DeleteResult>";
    let gone = answer("204 X", "");
    let (store, server) = server([answer("200 OK", result), gone]).await;
    let outcomes = store.delete_many("b", &["a", "b", "\u{1}", "c"]).await;
    let kinds = outcomes.iter().map(|o| o.as_ref().err().map(|e| (e.kind, &*e.key)));
    assert_eq!(kinds.collect::<Vec<_>>(), [None, Some((ErrorKind::Denied, "b")), None, None]);
    let received = server.await.unwrap();
    assert!(received[0].contains("<Key>a</Key>") && !received[0].contains('\u{1}'));
    assert!(received[1].starts_with("DELETE /b/%01 "), "{}", received[1]);
}

#[tokio::test]
async fn a_view_reads_the_version_of_its_time_and_honours_deletions() {
    let entry = |kind: &str, id: &str, time: &str| {
        format!(
            "<{kind}><Key>k</Key><VersionId>{id}</VersionId><LastModified>2026-11-23T14:{time}Z</LastModified>\
             <Size>1</Size><ETag>\"x\"</ETag></{kind}>"
        )
    };
    let versions = |inner: &[String]| {
        let inner = inner.concat();
        let end = "<IsTruncated>false</IsTruncated>";
        answer("200 OK", &format!("<ListVersionsResult>{end}{inner}</ListVersionsResult>"))
    };
    let history = [
        entry("DeleteMarker", "v3", "30:00.500"),
        entry("Version", "v2", "20:00"),
        entry("Version", "v1", "10:00"),
    ];
    let at = |time: &str| {
        let time: jiff::Timestamp = format!("2026-11-23T14:{time}Z").parse().unwrap();
        time.as_millisecond()
    };
    let (store, server) = server([
        versions(&history),
        answer("200 OK", "y"),
        versions(&history),
        versions(&[history[2].clone(), history[1].clone()]),
    ])
    .await;
    let then = store.as_of(at("30:00.499"));
    then.get("b", "k", GetOptions::default()).await.unwrap().bytes().await.unwrap();
    let gone = store.as_of(at("30:00.500")).head("b", "k").await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    let disordered = store.as_of(at("30:00")).head("b", "k").await.unwrap_err();
    assert_eq!(disordered.kind, ErrorKind::Invalid);
    let received = server.await.unwrap();
    let query = "?encoding-type=url&max-keys=100&prefix=k&versions= ";
    assert!(received[0].contains(query), "{}", received[0]);
    assert!(received[1].starts_with("GET /b/k?versionId=v2 "), "{}", received[1]);
}
