//! `doctor`: is all well between the two stores, shown by real requests, and what to do if not.
//!
//! **Promise.** What it writes is one small object for each bucket, under [`CANARY`], on either side, and
//! an upload that it gives up; it deletes both, and says so where it may not. Events that are not its own
//! are never acknowledged. Nothing is guessed: what these credentials do not show is called unseen.
//!
//! **On an error** of one check the others go on. **On cancellation or a crash** a canary may stay behind
//! in a bucket; the next run writes over it and deletes it.

mod access;
mod canary;
mod check;
mod ear;
mod notifications;
mod reach;
mod running;

use std::time::Duration;

use serde_json::Value;

use crate::config::Settings;
use crate::config::settings::WebhookSettings;
use crate::policy::CANARY;
use crate::setup::dialect::{needs_no_rules, usual_arns};
use crate::setup::known_arns;
use crate::store::StoreKind;
use crate::stores;
use crate::stores::Stores;
use canary::Flight;
pub use check::{Check, Level};
use ear::Ear;
use running::Running;

/// How doctor looks.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// The ARNs that lead here, where they are not the usual ones.
    pub arns: Vec<String>,
    /// Put nothing at the source.
    pub no_canary: bool,
    /// How long a canary may take for each step.
    pub patience: Duration,
    /// Where the running process answers, if not at `web.listen`.
    pub url: Option<String>,
}

/// Does every check, and hands each to `tell` as soon as it is done.
pub async fn run(
    settings: &Settings,
    options: &DoctorOptions,
    mut tell: impl FnMut(Check),
) -> anyhow::Result<()> {
    let target = settings.target.store();
    let (source, target) =
        tokio::join!(reach::reach("source", &settings.source), reach::reach("target", &target));
    let source_is_there = source.level == Level::Ok;
    let target_is_there = target.level == Level::Ok;
    tell(source);
    tell(target);
    let stores = stores::connect(settings).await?;
    let doctor = Doctor { settings, options, stores: &stores };
    if source_is_there {
        doctor.source(&mut tell).await;
    }
    if target_is_there {
        doctor.target(&mut tell).await;
    }
    let process = doctor.process(&mut tell).await;
    if source_is_there {
        let kind = stores.source.kind().await;
        let targets = doctor.notifications(kind, &process, &mut tell).await;
        if !options.no_canary {
            doctor.canaries(kind, &process, targets, &mut tell).await;
        }
    }
    Ok(())
}

/// Who takes notifications while doctor looks.
#[derive(Debug)]
enum Process {
    /// A running evermirror.
    Runs(Running),
    /// None, so doctor itself listens.
    Listens(Ear),
    /// Nobody that doctor could ask.
    Nobody,
}

struct Doctor<'a> {
    settings: &'a Settings,
    options: &'a DoctorOptions,
    stores: &'a Stores,
}

impl Doctor<'_> {
    async fn source(&self, tell: &mut impl FnMut(Check)) {
        let tags = self.settings.replicate.tags;
        for bucket in &self.settings.buckets {
            let key = canary::key(bucket).unwrap_or_else(|| CANARY.to_owned());
            access::source(&self.stores.source, bucket, &key, tags)
                .await
                .into_iter()
                .for_each(&mut *tell);
        }
        tell(access::clock("source", &self.stores.source));
    }

    async fn target(&self, tell: &mut impl FnMut(Check)) {
        let (tags, create) = (self.settings.replicate.tags, self.settings.target.create_buckets);
        let Stores { source, target } = self.stores;
        for bucket in &self.settings.buckets {
            let key = canary::key(bucket).unwrap_or_else(|| CANARY.to_owned());
            let checks = access::target(source, target, bucket, &key, tags, create).await;
            let usable = checks.iter().any(|check| check.level == Level::Ok);
            checks.into_iter().for_each(&mut *tell);
            if usable {
                access::keeps(target, bucket).await.into_iter().for_each(&mut *tell);
            }
        }
        tell(access::clock("target", target));
    }

    /// Finds the running process, or takes its place at the webhook's port.
    async fn process(&self, tell: &mut impl FnMut(Check)) -> Process {
        let web = &self.settings.web;
        let found = Running::find(web, self.options.url.as_deref()).await;
        let error = match found {
            Ok((running, status)) => {
                let version = status.get("version").and_then(Value::as_str).unwrap_or("?");
                tell(Check::ok("evermirror", format!("version {version} is running")));
                running::judge(&status).into_iter().for_each(&mut *tell);
                return Process::Runs(running);
            }
            Err(error) => error,
        };
        if let Some(webhook) = &self.settings.intake.webhook {
            webhook_checks(webhook, &self.settings.source.endpoint)
                .into_iter()
                .for_each(&mut *tell);
        }
        let start = "start `evermirror run` and ask doctor again, to see a canary replicated";
        let here = self.options.url.is_none() && !self.options.no_canary;
        let Some(webhook) = self.settings.intake.webhook.as_ref().filter(|_| here) else {
            tell(Check::warning("evermirror", error.to_string(), start));
            return Process::Nobody;
        };
        match Ear::open(webhook).await {
            Ok(ear) => {
                let says = "no evermirror is running; doctor listens on the webhook's port in its \
                            place, and takes no event but its own";
                tell(Check::warning("evermirror", says, start));
                Process::Listens(ear)
            }
            Err(taken) => {
                let (web, port) = (self.settings.web.listen, webhook.listen);
                let says = format!(
                    "no evermirror answers at {web}, and doctor cannot take its place at {port}: {}",
                    taken.root_cause()
                );
                let advice = "run doctor where evermirror runs, or name its web.listen by --url";
                tell(Check::problem("evermirror", says, advice));
                Process::Nobody
            }
        }
    }

    /// Every bucket's rules, and the targets that they name; gives the number of those.
    async fn notifications(
        &self,
        kind: StoreKind,
        process: &Process,
        tell: &mut impl FnMut(Check),
    ) -> usize {
        let intake = &self.settings.intake;
        if self.options.arns.is_empty() && needs_no_rules(intake) {
            tell(Check::ok("notifications", "the listen stream needs none at the source"));
            return 0;
        }
        let usual = usual_arns(intake, kind);
        let known = known_arns(kind, &self.stores.source).await;
        let mut arns: Vec<String> = Vec::new();
        for bucket in &self.settings.buckets {
            let config = match self.stores.source.notification(&bucket.source).await {
                Ok(config) => config,
                Err(error) => {
                    let says =
                        format!("what the source tells of cannot be seen: {}", error.message);
                    let advice = "run does not need it; `evermirror policy source --for doctor` prints \
                                  what doctor does";
                    tell(Check::warning("notifications", says, advice).of(&bucket.source));
                    continue;
                }
            };
            let ours = notifications::ours(&self.options.arns, &usual, &config);
            let interval = self.settings.reconcile.interval;
            let checks = notifications::rules(kind, bucket, &ours, &known, interval);
            checks.into_iter().for_each(&mut *tell);
            arns.extend(ours.iter().map(|rule| rule.arn.clone()));
        }
        arns.sort_unstable();
        arns.dedup();
        if !arns.is_empty() {
            let listening = !matches!(process, Process::Nobody);
            let source = &self.stores.source;
            let asked = notifications::ask(kind, source, self.settings, &arns, listening).await;
            // A canary that doctor hears itself will show whether there is a queue.
            let superfluous = |check: &Check| {
                matches!(process, Process::Listens(_))
                    && notifications::is_about_unseen_queue(check)
            };
            asked.into_iter().filter(|check| !superfluous(check)).for_each(tell);
        }
        arns.len()
    }

    async fn canaries(
        &self,
        kind: StoreKind,
        process: &Process,
        targets: usize,
        tell: &mut impl FnMut(Check),
    ) {
        // Whether there is a queue is the same for all buckets.
        let mut refuse = targets;
        for bucket in &self.settings.buckets {
            let Some(key) = canary::key(bucket) else {
                let says = "no canary can fly: `exclude` leaves out its key";
                let advice =
                    "exclude less, or put an object yourself and look for it at the target";
                tell(Check::warning("canary", says, advice).of(&bucket.source));
                continue;
            };
            let flight = Flight {
                stores: self.stores,
                kind,
                bucket,
                key: &key,
                patience: self.options.patience,
            };
            let checks = match process {
                Process::Runs(running) => flight.through(running).await,
                Process::Listens(ear) => flight.heard_by(ear, std::mem::take(&mut refuse)).await,
                Process::Nobody => Vec::new(),
            };
            checks.into_iter().for_each(&mut *tell);
        }
    }
}

/// What the configuration alone says of the webhook.
fn webhook_checks(webhook: &WebhookSettings, source: &str) -> Vec<Check> {
    let here = webhook.listen.ip().is_loopback();
    let host = source.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let near = host.is_some_and(|host| matches!(&*host, "localhost" | "127.0.0.1" | "[::1]"));
    let mut checks = Vec::new();
    if here && !near {
        checks.push(Check::warning(
            "evermirror",
            format!("the webhook listens on {}, which the source cannot reach unless it is on this machine", webhook.listen),
            "set intake.webhook.listen to 0.0.0.0:8080 or the like, and a token",
        ));
    }
    if !here && webhook.auth_token.is_none() {
        checks.push(Check::warning(
            "evermirror",
            "the webhook asks for no token, so whoever reaches it can make work",
            "set intake.webhook.auth_token_file, and the same token at the source",
        ));
    }
    checks
}
