//! A real store of either kind, and the pairs of them that a promise is tested with.

use tokio::sync::OnceCell;

use super::hostile;
use super::minio::{Minio, Special, Webhook};
use super::rustfs::Rustfs;
use super::s3::S3;
use super::site::{SHARED_SITES, Servers, Setup, Site};

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Minio,
    Rustfs,
}

impl Kind {
    /// Whether a key can be put without harm. RustFS 1.0.1 answers 400 to keys with line ends; and
    /// listing an object below many folders overflows its stack and ends the process: 511 folders
    /// always, 204 when several list at once.
    fn holds(self, key: &str) -> bool {
        match self {
            Self::Minio => true,
            Self::Rustfs => !key.contains(['\n', '\r']) && key.matches('/').count() <= 102,
        }
    }
}

/// A server that can be stopped and started again with its port and its data.
#[derive(Debug)]
pub(crate) enum Server {
    Minio(Minio),
    Rustfs(Rustfs),
}

impl Server {
    /// A server with these notification targets. Only MinIO can be a special one here.
    pub(crate) async fn start(kind: Kind, webhooks: &[Webhook], special: &Special) -> Self {
        match kind {
            Kind::Minio => Self::Minio(Minio::start(webhooks, special).await),
            Kind::Rustfs => Self::Rustfs(Rustfs::start(webhooks).await),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        match self {
            Self::Minio(server) => server.endpoint(),
            Self::Rustfs(server) => server.endpoint(),
        }
    }

    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Minio(server) => server.authority(),
            Self::Rustfs(server) => server.authority(),
        }
    }

    pub(crate) fn client(&self) -> S3 {
        match self {
            Self::Minio(server) => server.client(),
            Self::Rustfs(server) => server.client(),
        }
    }

    /// What a bucket's notification configuration calls this webhook.
    pub(crate) fn arn(&self, hook: &Webhook) -> String {
        match self {
            Self::Minio(_) => hook.arn(),
            // RustFS makes the names of targets lower-case, and looks ARNs up with their case.
            Self::Rustfs(_) => format!("arn:rustfs:sqs::{}:webhook", hook.id.to_lowercase()),
        }
    }

    pub(crate) fn stop(&mut self) {
        match self {
            Self::Minio(server) => server.stop(),
            Self::Rustfs(server) => server.stop(),
        }
    }

    pub(crate) async fn start_again(&mut self) {
        match self {
            Self::Minio(server) => server.start_again().await,
            Self::Rustfs(server) => server.start_again().await,
        }
    }

    /// After a stop: destroys everything it held, and starts it again.
    pub(crate) async fn start_empty(&mut self) {
        match self {
            Self::Minio(server) => server.start_empty().await,
            Self::Rustfs(server) => server.start_empty().await,
        }
    }

    /// Destroys everything it holds, without warning, and starts it again: empty, on its port.
    pub(crate) async fn lose_everything(&mut self) {
        self.stop();
        self.start_empty().await;
    }
}

/// The stores of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) source: Kind,
    pub(crate) target: Kind,
}

impl Pair {
    pub(crate) const MINIO: Self = Self { source: Kind::Minio, target: Kind::Minio };
    pub(crate) const FROM_RUSTFS: Self = Self { source: Kind::Rustfs, target: Kind::Minio };
    pub(crate) const TO_RUSTFS: Self = Self { source: Kind::Minio, target: Kind::Rustfs };

    /// The servers of this pair that all tests share which stop neither. Every site has buckets of its
    /// own.
    pub(crate) async fn shared(self) -> &'static Servers {
        static SHARED: [OnceCell<Servers>; 3] = [const { OnceCell::const_new() }; 3];
        let place = match (self.source, self.target) {
            (Kind::Minio, Kind::Minio) => 0,
            (Kind::Rustfs, _) => 1,
            (Kind::Minio, Kind::Rustfs) => 2,
        };
        let start = || Servers::start(self, SHARED_SITES, Special::default());
        SHARED[place].get_or_init(start).await
    }

    /// The usual site on the shared servers.
    pub(crate) async fn site(self, bucket: &str) -> Site {
        self.shared().await.site(bucket, Setup::default()).await
    }

    /// A pair for one test.
    pub(crate) async fn own(self) -> Servers {
        Servers::start(self, 1, Special::default()).await
    }

    /// The hostile keys that both stores can hold, and that both or neither lists; what else a store
    /// refuses, it refuses by itself.
    pub(crate) fn hostile_keys(self) -> Vec<String> {
        let listed =
            |key: &str| self.source == self.target || !hostile::UNLISTED_BY_MINIO.contains(&key);
        let fits = |key: &String| self.source.holds(key) && self.target.holds(key) && listed(key);
        hostile::keys().into_iter().filter(fits).collect()
    }

    /// An empty server of the source's kind, which notifies nobody.
    pub(crate) async fn fresh_source(self) -> Server {
        Server::start(self.source, &[], &Special::default()).await
    }
}

/// Makes each of these functions a test of every pair of stores: `minio::NAME`, `rustfs::source::NAME`
/// and `rustfs::target::NAME`. tests/run leaves out what has `rustfs::` in its name where there is no
/// RustFS.
macro_rules! on_every_pair {
    ($($test:ident),+ $(,)?) => {
        mod minio {
            use $crate::support::server::Pair;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    Box::pin(super::$test(Pair::MINIO)).await;
                }
            )+
        }

        mod rustfs {
            mod source {
                use $crate::support::server::Pair;
                $(
                    #[tokio::test(flavor = "multi_thread")]
                    async fn $test() {
                        Box::pin(super::super::$test(Pair::FROM_RUSTFS)).await;
                    }
                )+
            }

            mod target {
                use $crate::support::server::Pair;
                $(
                    #[tokio::test(flavor = "multi_thread")]
                    async fn $test() {
                        Box::pin(super::super::$test(Pair::TO_RUSTFS)).await;
                    }
                )+
            }
        }
    };
}
pub(crate) use on_every_pair;
