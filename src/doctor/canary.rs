//! A canary: one small object, put at the source, followed to the target, and deleted on both sides.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::check::{Check, Level};
use super::ear::{Ear, Heard};
use super::notifications::no_queue;
use super::running::{Counters, Running};
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::object::{ETag, ObjectKey};
use crate::policy::CANARY;
use crate::store::{ErrorKind, PutBody, StoreError, StoreKind};
use crate::stores::Stores;

const AREA: &str = "canary";
/// How often the target is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Above this an event has waited in a queue.
const AT_ONCE: Duration = Duration::from_millis(500);
/// A queue tries again within this: MinIO after 3 s, RustFS after 5 s.
const REDELIVERY: Duration = Duration::from_secs(10);

/// The canary's key in `bucket`; `None` if no key that begins like it is replicated.
pub(super) fn key(bucket: &BucketSettings) -> Option<String> {
    let whole = [String::new()];
    let prefixes = if bucket.include.is_empty() { &whole[..] } else { &bucket.include };
    prefixes.iter().map(|prefix| format!("{prefix}{CANARY}")).find(|key| bucket.wants(key))
}

/// One canary's flight.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    pub(super) stores: &'a Stores,
    pub(super) kind: StoreKind,
    pub(super) bucket: &'a BucketSettings,
    pub(super) key: &'a str,
    /// How long each step may take.
    pub(super) patience: Duration,
}

impl Flight<'_> {
    /// From the source to the target and back to nothing, through the running process.
    pub(super) async fn through(&self, running: &Running) -> Vec<Check> {
        running.quiet(&self.bucket.source, self.patience).await;
        let before = running.counters().await.unwrap_or_default();
        let began = Instant::now();
        let tag = match self.put().await {
            Ok(tag) => tag,
            Err(check) => return vec![check],
        };
        let arrived =
            self.until(began, |head| head.as_ref().is_ok_and(|there| *there == tag)).await;
        let after = running.counters().await.unwrap_or_default();
        let mut checks = Vec::new();
        match arrived {
            Ok(lag) => checks.push(self.arrived(lag, before, after)),
            Err(last) => {
                let parked = running.parked(&self.bucket.source, self.key).await;
                let why = parked.or_else(|| last.map(|error| error.to_string()));
                checks.push(diagnose(self.kind, before, after, why, self.patience));
            }
        }
        let flew = checks.iter().all(|check| check.level == Level::Ok);
        checks.extend(self.land(flew, running).await);
        checks.into_iter().map(|check| check.of(&self.bucket.source)).collect()
    }

    /// From the source to the webhook's port, on which doctor listens. With `refuse` set to the number
    /// of targets, each one's first delivery is refused, to see whether one of them tries again.
    pub(super) async fn heard_by(&self, ear: &Ear, refuse: usize) -> Vec<Check> {
        ear.expect(ObjectKey::new(&*self.bucket.source, self.key), refuse);
        let began = Instant::now();
        let mut checks = Vec::new();
        // With sync events the answer to the PUT comes after the event was delivered.
        let (put, heard) = tokio::join!(self.put(), async {
            let heard = ear.deliveries(1, self.patience).await;
            (heard, began.elapsed())
        });
        let (heard, lag) = heard;
        if let Err(check) = put {
            return vec![check];
        }
        if heard.deliveries == 0 {
            checks.push(unheard(self.kind, &heard, self.patience));
        } else {
            let says = format!("the event of a canary arrived after {}", shown(lag));
            checks.push(Check::ok(AREA, says));
            if refuse > 0 {
                let heard = ear.deliveries(refuse + 1, REDELIVERY).await;
                checks.push(if heard.deliveries > refuse {
                    let says = "an event that was refused came again: the source's queue keeps what \
                                cannot be delivered";
                    Check::ok(AREA, says)
                } else {
                    no_queue("a queue directory (…_QUEUE_DIR_…)")
                });
            }
        }
        if let Err(error) = self.stores.source.delete(&self.bucket.source, self.key).await {
            checks.push(left_behind("source", self.key, &error));
        }
        checks.into_iter().map(|check| check.of(&self.bucket.source)).collect()
    }

    async fn put(&self) -> Result<ETag, Check> {
        let bytes = Bytes::from(format!("evermirror canary {}", rand::random::<u64>()));
        let (bucket, body) = (&self.bucket.source, PutBody::Bytes(bytes));
        let put = self.stores.source.put(bucket, self.key, &HeaderMap::new(), None, body).await;
        match put {
            Ok(outcome) => Ok(outcome.etag.unwrap_or_else(|| ETag::new(""))),
            Err(error) if error.kind == ErrorKind::Denied => Err(Check::warning(
                AREA,
                format!("the way of an event cannot be tried: {error}"),
                "run needs no such permission; `evermirror policy source --for doctor` prints what a \
                 canary needs, under one key only",
            )
            .of(bucket)),
            Err(error) => Err(super::access::failed("source", bucket, &error)),
        }
    }

    /// Looks at the target until `done`; the error is the last one of the target, if it had one.
    async fn until(
        &self,
        began: Instant,
        done: impl Fn(&Result<ETag, StoreError>) -> bool,
    ) -> Result<Duration, Option<StoreError>> {
        loop {
            let head = self.stores.target.head(self.bucket.target_name(), self.key).await;
            let tag = head.map(|head| head.etag.unwrap_or_else(|| ETag::new("")));
            if done(&tag) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > self.patience {
                return Err(tag.err().filter(|error| error.kind != ErrorKind::NotFound));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn arrived(&self, lag: Duration, before: Counters, after: Counters) -> Check {
        let told = after.accepted > before.accepted || after.duplicates > before.duplicates;
        if !told {
            return Check::problem(
                AREA,
                format!("a canary was on the target after {}, but no event told of it", shown(lag)),
                advice(self.kind),
            );
        }
        let mut says = format!("a canary was on the target {} after it was put", shown(lag));
        if lag > AT_ONCE {
            says += match self.kind {
                StoreKind::Minio => {
                    "; MinIO's queue delays events by up to 3 s (a target EMFAST beside it does not)"
                }
                StoreKind::Rustfs => {
                    "; RustFS's queue delays events by up to 5 s (a target EMFAST beside it does not)"
                }
                StoreKind::Aws | StoreKind::Other => "",
            };
        }
        Check::ok(AREA, says)
    }

    /// Deletes the canary, and follows that, if its coming was seen and deletes are mirrored at once.
    async fn land(&self, follow: bool, running: &Running) -> Vec<Check> {
        let held = running.held(&self.bucket.source).await;
        let follow = follow && held.is_none() && self.bucket.deletes == DeletePolicy::Mirror;
        let began = Instant::now();
        let (source, target) = (&self.stores.source, &self.stores.target);
        if let Err(error) = source.delete(&self.bucket.source, self.key).await {
            return vec![left_behind("source", self.key, &error)];
        }
        if follow {
            let gone = |head: &Result<ETag, StoreError>| {
                head.as_ref().is_err_and(|error| error.kind == ErrorKind::NotFound)
            };
            if let Ok(lag) = self.until(began, gone).await {
                let says = format!("its deletion was on the target after {}", shown(lag));
                return vec![Check::ok(AREA, says)];
            }
            drop(target.delete(self.bucket.target_name(), self.key).await);
            let held = running.held(&self.bucket.source).await;
            let why =
                held.map(|reason| format!(": deletes are held, {reason}")).unwrap_or_default();
            let late = shown(self.patience);
            let says = format!("its deletion was not on the target after {late}{why}");
            let advice = "`evermirror deletes list` shows what is held, `parked` in /api/v1/status what fails";
            return vec![Check::problem(AREA, says, advice)];
        }
        // An archive, or a delete that waits or is held: the canary is no object that anybody wants to keep.
        match target.delete(self.bucket.target_name(), self.key).await {
            Ok(()) => Vec::new(),
            Err(error) => vec![left_behind("target", self.key, &error)],
        }
    }
}

fn left_behind(side: &str, key: &str, error: &StoreError) -> Check {
    let says = format!("the canary {key} stays at the {side}: {}", error.message);
    Check::warning(AREA, says, "delete it by hand, or leave it: it is a few bytes")
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} s", time.as_secs())
    }
}

/// Why a canary did not arrive, as far as the process can tell.
fn diagnose(
    kind: StoreKind,
    before: Counters,
    after: Counters,
    why: Option<String>,
    patience: Duration,
) -> Check {
    let late = format!("a canary was not on the target after {}", shown(patience));
    if after.unauthorized > before.unauthorized {
        return wrong_token(&late);
    }
    if after.accepted > before.accepted || after.duplicates > before.duplicates {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return Check::problem(
            AREA,
            format!("{late}, though events arrive{why}"),
            "see `parked` and `target` in /api/v1/status of the running evermirror",
        );
    }
    Check::problem(AREA, format!("{late}, and no notification has arrived"), advice(kind))
}

/// Why doctor heard nothing on the webhook's port.
fn unheard(kind: StoreKind, heard: &Heard, patience: Duration) -> Check {
    let late = format!("no event of a canary arrived in {}", shown(patience));
    if heard.unauthorized > 0 {
        return wrong_token(&late);
    }
    if heard.others > 0 {
        return Check::warning(
            AREA,
            format!(
                "{late}, but {} others did, which wait in the source's queue before it",
                heard.others
            ),
            "start evermirror run, which takes them; doctor has refused them all, so none is lost",
        );
    }
    Check::problem(AREA, late, advice(kind))
}

fn wrong_token(what: &str) -> Check {
    Check::problem(
        AREA,
        format!("{what}: the source's notifications carry a wrong token, or none (401)"),
        "give the source's target the token of intake.webhook.auth_token (…_AUTH_TOKEN_…)",
    )
}

/// What usually keeps notifications away.
fn advice(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Minio => {
            "does MINIO_NOTIFY_WEBHOOK_ENDPOINT_… name this evermirror as the source's machine sees it, and \
             may it connect? A queue may also be stuck behind an older event that another receiver refuses"
        }
        StoreKind::Rustfs => {
            "is RUSTFS_NOTIFY_ENABLE=true, is the ARN in lower case, and does \
             RUSTFS_OUTBOUND_ALLOW_ORIGINS list the webhook's http://HOST:PORT? Without that RustFS \
             refuses private addresses"
        }
        StoreKind::Aws | StoreKind::Other => {
            "may the bucket send to the queue (the queue's access policy), and does evermirror read that queue?"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(more: &str) -> BucketSettings {
        toml::from_str(&format!("source = 'b'\n{more}")).unwrap()
    }

    #[test]
    fn the_canary_flies_where_keys_are_replicated() {
        assert_eq!(key(&bucket("")).unwrap(), ".evermirror/doctor");
        let bucket_of_two = bucket("include = ['a/', 'b/']\nexclude = ['a/.']");
        assert_eq!(key(&bucket_of_two).unwrap(), "b/.evermirror/doctor");
        assert_eq!(key(&bucket("exclude = ['.']")), None);
    }

    #[test]
    fn why_a_canary_did_not_arrive_is_told_by_what_was_counted() {
        let none = Counters::default();
        let says = |after: Counters, why: Option<&str>| {
            let why = why.map(str::to_owned);
            diagnose(StoreKind::Rustfs, none, after, why, Duration::from_secs(15))
        };
        assert!(says(Counters { unauthorized: 1, ..none }, None).says.contains("401"));
        let parked = says(Counters { accepted: 1, ..none }, Some("the target is full"));
        assert!(parked.says.contains("the target is full"), "{parked:?}");
        let nothing = says(none, None);
        assert!(nothing.says.contains("no notification"), "{nothing:?}");
        assert!(nothing.advice.unwrap().contains("RUSTFS_OUTBOUND_ALLOW_ORIGINS"));
    }
}
