//! The least that "durable" can mean: a write and a sync for each event, alone and behind HTTP.

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use evermirror::dirty::{Aspects, DirtyKey, Origin};
use evermirror::object::ObjectKey;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::data;

/// What the journal adds to a record: length, checksum, number, epoch, kind.
const FRAME: usize = 25;

/// Records of the journal's size, one after the other into a file of zeros.
#[derive(Debug)]
pub(super) struct PlainFile {
    file: File,
    record: Vec<u8>,
    end: u64,
}

impl PlainFile {
    /// Makes a file with room for so many records.
    pub(super) fn create(path: &Path, bucket: &str, records: usize) -> anyhow::Result<Self> {
        let dirty = DirtyKey {
            key: ObjectKey::new(bucket, data::key(0)),
            aspects: Aspects::CONTENT,
            origin: Origin::Live,
            since_ms: 0,
            size: Some(0),
        };
        let record = vec![0xa5; dirty.encode().len() + FRAME];
        let file = File::create(path)?;
        file.write_all_at(&vec![0; records * record.len()], 0)?;
        file.sync_all()?;
        Ok(Self { file, record, end: 0 })
    }

    /// One write and one sync.
    pub(super) fn append(&mut self) -> std::io::Result<()> {
        self.file.write_all_at(&self.record, self.end)?;
        self.end += self.record.len() as u64;
        self.file.sync_data()
    }
}

/// Serves one connection: reads each request, appends a record, answers. No parsing, no threads to
/// hand over to, nothing kept. Returns its port.
pub(super) async fn serve(file: PlainFile) -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let file = Arc::new(Mutex::new(file));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| answer(Arc::clone(&file), request));
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
        anyhow::Ok(())
    });
    Ok(port)
}

async fn answer(
    file: Arc<Mutex<PlainFile>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let read = request.into_body().collect().await.is_ok();
    let append = || file.lock().unwrap_or_else(PoisonError::into_inner).append().is_ok();
    let mut answer = Response::new(Full::default());
    if !read || !tokio::task::block_in_place(append) {
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(answer)
}
