//! Whether `run` would work against a restore: it would take the restore's writes for the
//! application's, and replicate a half restored source.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::RestoreError;
use crate::config::Settings;
use crate::data_dir::DataDir;

const PATIENCE: Duration = Duration::from_secs(2);

/// Held while a restore writes into the configured source: `run` does not start on this `data_dir`.
#[derive(Debug)]
pub(super) struct KeepsRunAway {
    _lock: Option<File>,
}

/// Fails if `run` is at work with this configuration, and keeps it from starting until dropped.
pub(super) async fn keep_run_away(settings: &Settings) -> Result<KeepsRunAway, RestoreError> {
    let path = DataDir::at(&settings.data_dir).journal_lock();
    let lock = match File::open(&path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => {
                let dir = settings.data_dir.display();
                return Err(conflict(settings, &format!("it holds {dir}")));
            }
            Err(TryLockError::Error(error)) => return Err(RestoreError::io("lock", &path, error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(RestoreError::io("open", &path, error)),
    };
    let address = reachable(settings.web.listen);
    if is_served(address).await {
        return Err(conflict(settings, &format!("http://{address}/healthz answers")));
    }
    Ok(KeepsRunAway { _lock: lock })
}

fn conflict(settings: &Settings, sign: &str) -> RestoreError {
    RestoreError::Refused(format!(
        "`evermirror run` is at work with this configuration ({sign}), and the destination {} is its source: \
         it would replicate the half restored buckets. Stop it first, or restore into another store with --to-endpoint; \
         --force restores all the same",
        settings.source.endpoint
    ))
}

/// A listener on all addresses is asked on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        ip if !ip.is_unspecified() => listen,
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())),
    }
}

/// Whether something answers there as evermirror's web listener does.
async fn is_served(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0_u8; 12];
        stream.read_exact(&mut answer).await?;
        // Ill, it answers 503 and is there all the same.
        Ok::<_, io::Error>(matches!(&answer, b"HTTP/1.1 200" | b"HTTP/1.1 503"))
    };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(data_dir: &std::path::Path, port: u16) -> Settings {
        toml::from_str(&format!(
            "data_dir = '{}'\n[source]\nendpoint = 'http://s:1'\n[target]\nendpoint = 'http://t:2'\n\
             [[buckets]]\nsource = 'a'\n[web]\nlisten = '0.0.0.0:{port}'",
            data_dir.display()
        ))
        .unwrap()
    }

    #[tokio::test]
    async fn a_run_is_seen_by_its_lock_and_by_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let settings = settings(dir.path(), port);
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        let lock = File::create(dir.path().join("journal/lock")).unwrap();
        lock.try_lock().unwrap();
        let refused = keep_run_away(&settings).await.unwrap_err().to_string();
        assert!(refused.contains("it holds"), "{refused}");
        drop(lock);
        let kept = keep_run_away(&settings).await.unwrap();
        assert!(File::open(dir.path().join("journal/lock")).unwrap().try_lock().is_err());
        drop(kept);

        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let router = axum::Router::new().route("/healthz", axum::routing::get(|| async { "ok" }));
        tokio::spawn(async { axum::serve(listener, router).await });
        let refused = keep_run_away(&settings).await.unwrap_err().to_string();
        assert!(refused.contains("/healthz answers"), "{refused}");
    }
}
