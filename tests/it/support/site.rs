//! The whole picture: a source bucket whose notifications reach an evermirror that keeps a target
//! bucket in step.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::compare::{compare, compare_listings};
use super::eventually::{SOON, eventually};
use super::evermirror::{Config, Evermirror};
use super::minio::{Special, Webhook};
use super::ports::free_port;
use super::s3::S3;
use super::server::{Pair, Server};

/// More than there are tests that share the two servers.
pub(crate) const SHARED_SITES: usize = 160;

/// A source and a target server.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) source: Server,
    pub(crate) target: Server,
    webhook_ports: Vec<u16>,
    tls: bool,
    taken: AtomicUsize,
}

/// How a site differs from the usual one.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Notifications go through a queue at the source: late, but not lost while evermirror is down.
    pub(crate) queue: bool,
    pub(crate) versioned: bool,
    /// Where evermirror finds the source, if something stands between.
    pub(crate) source_endpoint: Option<String>,
    /// Where evermirror finds the target.
    pub(crate) target_endpoint: Option<String>,
    /// As in [`Config::settings`].
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Servers {
    /// The pair of MinIO servers that all tests share which stop neither.
    pub(crate) async fn shared() -> &'static Self {
        Pair::MINIO.shared().await
    }

    /// A pair of MinIO servers for one test, both of this kind. With TLS, notifications go by HTTPS, too.
    pub(crate) async fn special(special: Special) -> Self {
        Self::start(Pair::MINIO, 1, special).await
    }

    /// Servers whose source can notify as many sites.
    pub(crate) async fn start(pair: Pair, sites: usize, special: Special) -> Self {
        let tls = special.tls;
        let webhook_ports: Vec<_> = (0..sites).map(|_| free_port()).collect();
        let webhooks: Vec<_> = (0..sites)
            .flat_map(|site| [false, true].map(|queue| (site, queue)))
            .map(|(site, queue)| webhook(site, queue, webhook_ports[site], tls))
            .collect();
        let (source, target) = tokio::join!(
            Server::start(pair.source, &webhooks, &special),
            Server::start(pair.target, &[], &special)
        );
        Self { source, target, webhook_ports, tls, taken: AtomicUsize::new(0) }
    }

    /// Buckets of this name on both servers, and an evermirror between them that is not yet started;
    /// notifications go to it all the same.
    pub(crate) async fn prepare(&self, bucket: &str, setup: Setup) -> Site {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let port = *self.webhook_ports.get(number).expect("a webhook is left for this site");
        let source = self.source.client();
        source.create_bucket(bucket).await;
        if setup.versioned {
            source.enable_versioning(bucket).await;
        }
        let hook = webhook(number, setup.queue, port, self.tls);
        source.notify(bucket, &[self.source.arn(&hook)]).await;
        let target_bucket = format!("{bucket}-copy");
        let evermirror = Evermirror::configure(Config {
            source_endpoint: setup.source_endpoint.unwrap_or_else(|| self.source.endpoint()),
            target_endpoint: setup.target_endpoint.unwrap_or_else(|| self.target.endpoint()),
            bucket: (bucket.to_owned(), target_bucket.clone()),
            webhook_port: port,
            settings: setup.settings.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        });
        let target = self.target.client();
        Site { evermirror, source, target, bucket: bucket.to_owned(), target_bucket }
    }

    /// A source bucket of this name that notifies nobody, for commands that need no notification; the
    /// target's bucket is not there yet.
    pub(crate) async fn silent(&self, bucket: &str, setup: Setup) -> Site {
        let source = self.source.client();
        source.create_bucket(bucket).await;
        let target_bucket = format!("{bucket}-copy");
        let evermirror = Evermirror::configure(Config {
            source_endpoint: setup.source_endpoint.unwrap_or_else(|| self.source.endpoint()),
            target_endpoint: setup.target_endpoint.unwrap_or_else(|| self.target.endpoint()),
            bucket: (bucket.to_owned(), target_bucket.clone()),
            webhook_port: free_port(),
            settings: setup.settings.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        });
        let target = self.target.client();
        Site { evermirror, source, target, bucket: bucket.to_owned(), target_bucket }
    }

    /// The same, with evermirror ready.
    pub(crate) async fn site(&self, bucket: &str, setup: Setup) -> Site {
        let mut site = self.prepare(bucket, setup).await;
        site.evermirror.start().await;
        site
    }
}

fn webhook(site: usize, queue: bool, port: u16, tls: bool) -> Webhook {
    let id = format!("{}{site}", if queue { "Q" } else { "F" });
    Webhook { id, port, queue, tls }
}

/// One replicated bucket.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) evermirror: Evermirror,
    pub(crate) source: S3,
    pub(crate) target: S3,
    /// At the source.
    pub(crate) bucket: String,
    /// At the target: another name, so that a mix-up shows.
    pub(crate) target_bucket: String,
}

impl Site {
    /// The usual site on the shared servers.
    pub(crate) async fn shared(bucket: &str) -> Self {
        Servers::shared().await.site(bucket, Setup::default()).await
    }

    /// Puts at the source.
    pub(crate) async fn put(&self, key: &str, body: impl Into<Vec<u8>>) {
        self.source.put(&self.bucket, key, body).await;
    }

    /// Deletes at the source.
    pub(crate) async fn delete(&self, key: &str) {
        self.source.delete(&self.bucket, key).await;
    }

    /// Waits until the reconcile at the start is over. A pass that lists an empty source rightly holds the
    /// deletes of what the target has.
    pub(crate) async fn walked(&self) {
        eventually("the reconcile at the start is over", SOON, async || {
            let walk = self.evermirror.status().await?["reconcile"][0].take();
            let over = walk["last_complete_ms"].is_i64() && walk["running"] == false;
            over.then_some(()).ok_or(walk.to_string())
        })
        .await;
    }

    /// Every difference between the two sides.
    pub(crate) async fn differences(&self) -> Result<Vec<String>, String> {
        compare((&self.source, &self.bucket), (&self.target, &self.target_bucket)).await
    }

    /// Waits until both sides are the same, field by field and byte by byte, and evermirror has nothing
    /// left to do.
    pub(crate) async fn converges(&self, within: std::time::Duration) {
        eventually("both sides list the same", within, async || {
            let sides = ((&self.source, &*self.bucket), (&self.target, &*self.target_bucket));
            nothing(&compare_listings(sides.0, sides.1).await?)?;
            self.evermirror.idle().await
        })
        .await;
        eventually("both sides are the same", within, async || {
            nothing(&self.differences().await?)?;
            self.evermirror.idle().await
        })
        .await;
    }
}

fn nothing(differences: &[String]) -> Result<(), String> {
    if differences.is_empty() {
        return Ok(());
    }
    let shown = differences.len().min(20);
    Err(format!("{} differences:\n{}", differences.len(), differences[..shown].join("\n")))
}
