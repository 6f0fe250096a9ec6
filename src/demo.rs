//! The newcomer's command: a source, a target and the real pipeline between them, from nothing.
//!
//! Two embedded S3 stores (`store`) run in this process; the source sends MinIO-shaped notifications
//! (`notify`) to the real `evermirror run` in a child process (`pipeline`). The demo writes a small
//! workload (`workload`), kills the pipeline in the middle and starts it again, waits until nothing is
//! pending (`ledger`), and compares both sides object by object (`compare`). What it says is decided by
//! the stores alone, never by what the pipeline says of itself.
//!
//! An error, Ctrl-C and SIGTERM all end the child and remove the data directory, unless it was given
//! with `--data-dir`. After a kill of the demo itself, both may be left behind.

mod compare;
mod ledger;
mod notify;
mod pipeline;
mod report;
mod store;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use ledger::{Ledger, Side, Totals};
use notify::Webhook;
use pipeline::Pipeline;
use report::{Outcome, Screen};
use store::{EmbeddedStore, Watcher};
use workload::Step;

/// The bucket on both sides.
const BUCKET: &str = "demo";
/// The time between two rows of the table.
const ROW: Duration = Duration::from_millis(500);
/// The time between two looks at the ledger.
const LOOK: Duration = Duration::from_millis(50);
/// Both sides are compared after the target has been quiet for this long with nothing pending.
const QUIET: Duration = Duration::from_millis(500);
/// Given up when nothing moved for this long while keys are pending.
const STALLED: Duration = Duration::from_mins(1);

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Exit after the comparison instead of staying for the newcomer to try.
    pub once: bool,
    /// How many objects the workload writes.
    pub objects: usize,
    /// Print one JSON object on standard output, and everything else on standard error.
    pub json: bool,
    /// Where all files go, and stay; a fresh directory that is removed at the end if absent.
    pub data_dir: Option<PathBuf>,
}

/// Runs the demo. `true` means that both sides were identical.
///
/// # Errors
/// When a store or the pipeline cannot start, the pipeline dies unasked (its last log lines are in the
/// error), nothing moves for a minute while keys are pending, or the demo is stopped before the
/// comparison.
pub async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    let screen = Screen { json: options.json };
    let home = Home::open(options.data_dir.as_deref())?;
    let mut demo = Box::pin(Demo::prepare(&home.path, screen)).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut identical = None;
    let result = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
        result = Box::pin(demo.play(&options, &home.path, &mut identical)) => result,
    };
    demo.pipeline.finish(result.is_ok() && !options.once).await?;
    result?;
    if !options.once {
        let dir = options.data_dir.map(|dir| format!(" --data-dir {}", dir.display()));
        let dir = dir.unwrap_or_default();
        screen.say(&format!("\nStopped. Run it again: cargo run --release -- demo{dir}"));
    }
    identical.context("the demo was stopped before both sides were compared")
}

/// The data directory; removed when dropped, unless it was given.
struct Home {
    path: PathBuf,
    keep: bool,
}

impl Home {
    fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let fresh =
            || std::env::temp_dir().join(format!("evermirror-demo-{:08x}", rand::random::<u32>()));
        let path = given.map_or_else(fresh, Path::to_path_buf);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("failed to create the data directory {}", path.display()))?;
        Ok(Self { path, keep: given.is_some() })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            let dir = self.path.display();
            tracing::warn!(%error, %dir, "The demo's data directory could not be removed.");
        }
    }
}

/// Everything that runs.
struct Demo {
    screen: Screen,
    ledger: Arc<Ledger>,
    source: EmbeddedStore,
    target: EmbeddedStore,
    pipeline: Pipeline,
    queue: mpsc::Sender<notify::Change>,
    started: Instant,
    /// The last row of the table.
    shown: Option<Totals>,
    _deliver: JoinSet<()>,
}

impl Demo {
    async fn prepare(dir: &Path, screen: Screen) -> anyhow::Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let (queue, waiting) = mpsc::channel(notify::QUEUE);
        let watcher = |side, notifier| Watcher { side, ledger: Arc::clone(&ledger), notifier };
        let seen = watcher(Side::Source, Some(queue.clone()));
        let source = EmbeddedStore::start(&dir.join("source"), "demo-source", seen).await?;
        let seen = watcher(Side::Target, None);
        let target = EmbeddedStore::start(&dir.join("target"), "demo-target", seen).await?;
        create_bucket(&source).await?;
        let pipeline = Pipeline::prepare(dir, &source, &target, BUCKET)?;
        let webhook = Webhook {
            url: pipeline.webhook.clone(),
            token: pipeline.token.clone(),
            origin: source.endpoint.clone(),
        };
        let mut deliver = JoinSet::new();
        deliver.spawn(notify::deliver(webhook, waiting));
        Ok(Self {
            screen,
            ledger,
            source,
            target,
            pipeline,
            queue,
            started: Instant::now(),
            shown: None,
            _deliver: deliver,
        })
    }

    /// The whole story; `identical` is set once both sides have been compared.
    async fn play(
        &mut self,
        options: &DemoOptions,
        dir: &Path,
        identical: &mut Option<bool>,
    ) -> anyhow::Result<()> {
        let screen = self.screen;
        screen.welcome(dir, &self.source, &self.target, BUCKET);
        self.pipeline.start().await?;
        screen.say(&format!("The pipeline is ready: {}/metrics\n", self.pipeline.web));
        screen.say(&format!("Writing {} objects to the source.", options.objects));
        screen.head();
        self.started = Instant::now();
        self.write_through_a_kill(options.objects).await?;
        self.settle().await?;
        let (source, target) = (self.source.client(), self.target.client());
        let comparison = Box::pin(compare::compare(&source, &target, BUCKET)).await?;
        let totals = self.ledger.totals();
        let outcome = Outcome { objects: options.objects, totals, comparison };
        *identical = Some(outcome.identical());
        screen.verdict(&outcome);
        if options.once {
            return Ok(());
        }
        screen.say("\nStill running: write to the source and watch. Ctrl-C ends it.");
        self.ledger.take_arrivals();
        loop {
            tokio::time::sleep(LOOK).await;
            self.pipeline.check()?;
            for arrival in self.ledger.take_arrivals() {
                screen.arrival(&arrival);
            }
        }
    }

    /// Half of the puts, a kill, a quarter while the pipeline is down, a restart, and the rest.
    async fn write_through_a_kill(&mut self, objects: usize) -> anyhow::Result<()> {
        let plan = workload::plan(objects);
        let (first, rest) = plan.puts.split_at(plan.puts.len() / 2);
        let (down, last) = rest.split_at(rest.len() / 2);
        self.write(first).await?;
        self.pipeline.kill()?;
        let pending = self.ledger.totals().pending;
        self.screen.say(&format!(
            "  Killed the pipeline (SIGKILL) with {pending} keys pending; the source is still written to."
        ));
        self.write(down).await?;
        self.screen.say("  Starting the pipeline again.");
        self.pipeline.start().await?;
        self.write(last).await?;
        self.write(&plan.changes).await
    }

    /// Writes while the table goes on.
    async fn write(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        let client = self.source.client();
        let mut writing = Box::pin(workload::write(&client, BUCKET, steps));
        let mut rows = tokio::time::interval_at(tokio::time::Instant::now() + ROW, ROW);
        loop {
            tokio::select! {
                written = &mut writing => {
                    self.row();
                    return written;
                }
                _ = rows.tick() => {
                    self.row();
                    self.pipeline.check()?;
                }
            }
        }
    }

    /// Waits until nothing is pending and the target is quiet.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let (mut moved, mut row) = (Instant::now(), Instant::now());
        let mut before = self.ledger.totals();
        loop {
            tokio::time::sleep(LOOK).await;
            self.pipeline.check()?;
            let totals = self.ledger.totals();
            if (totals.events, totals.target_changes) != (before.events, before.target_changes) {
                moved = Instant::now();
            }
            let delivered = self.queue.capacity() == self.queue.max_capacity();
            if totals.pending == 0 && delivered && moved.elapsed() >= QUIET {
                self.row();
                return Ok(());
            }
            if moved.elapsed() >= STALLED {
                bail!("{}", self.stalled());
            }
            if row.elapsed() >= ROW {
                row = Instant::now();
                self.row();
            }
            before = totals;
        }
    }

    /// A row of the table, unless it would say what the last one said.
    fn row(&mut self) {
        let totals = self.ledger.totals();
        if self.shown != Some(totals) {
            self.screen.row(self.started.elapsed().as_secs_f64(), &totals);
            self.shown = Some(totals);
        }
    }

    fn stalled(&self) -> String {
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        let keys = self.ledger.pending_keys(10);
        let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        format!(
            "nothing moved for {} s: {} keys are pending and {waiting} notifications wait; the first \
             keys are\n  {}\nthe pipeline's log ends:\n{}",
            STALLED.as_secs(),
            self.ledger.totals().pending,
            keys.join("\n  "),
            self.pipeline.log_tail(),
        )
    }
}

/// Creates the source's bucket, which a given data directory may already have.
async fn create_bucket(store: &EmbeddedStore) -> anyhow::Result<()> {
    match store.client().create_bucket().bucket(BUCKET).send().await {
        Ok(_) => Ok(()),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(CreateBucketError::is_bucket_already_owned_by_you) =>
        {
            Ok(())
        }
        Err(error) => Err(error).context("failed to create the source's bucket"),
    }
}
