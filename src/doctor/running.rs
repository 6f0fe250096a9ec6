//! The running evermirror: what it says of itself, and what it has counted.

use std::time::Duration;

use serde_json::Value;

use super::check::Check;
use crate::config::settings::WebSettings;
use crate::web::client::{Api, address};

const AREA: &str = "evermirror";
/// How often the process is asked again.
const POLL: Duration = Duration::from_millis(100);

/// A process that answers.
#[derive(Debug)]
pub(super) struct Running {
    api: Api,
}

/// What the process has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Requests with a wrong token, or none.
    pub(super) unauthorized: u64,
    /// Events taken.
    pub(super) accepted: u64,
    /// Events that came a second time.
    pub(super) duplicates: u64,
}

impl Running {
    /// Asks at `url`, else where the configuration says, and gives its status. The error says why there
    /// is none.
    pub(super) async fn find(
        web: &WebSettings,
        url: Option<&str>,
    ) -> anyhow::Result<(Self, Value)> {
        let api = match url {
            Some(url) => Api::at(url)?,
            None => Api::at(&address(web.listen))?,
        };
        let status = api.get("/api/v1/status").await?;
        Ok((Self { api }, status))
    }

    /// Now.
    pub(super) async fn counters(&self) -> anyhow::Result<Counters> {
        Ok(counters(&self.api.text("/metrics").await?))
    }

    /// Why a key waits, if it failed.
    pub(super) async fn parked(&self, bucket: &str, key: &str) -> Option<String> {
        self.reason("parked", &[("bucket", bucket), ("key", key)]).await
    }

    /// Why deletes in this bucket are held, if they are.
    pub(super) async fn held(&self, bucket: &str) -> Option<String> {
        self.reason("held", &[("bucket", bucket)]).await
    }

    /// Waits until no pass walks this bucket, or `patience` is over: a pass that meets a canary which
    /// was just deleted from an empty bucket would take the bucket for wiped, and pull the brake.
    pub(super) async fn quiet(&self, bucket: &str, patience: Duration) {
        let quiet = async {
            while self.is_walked(bucket).await {
                tokio::time::sleep(POLL).await;
            }
        };
        drop(tokio::time::timeout(patience, quiet).await);
    }

    async fn is_walked(&self, bucket: &str) -> bool {
        let Ok(status) = self.api.get("/api/v1/status").await else { return false };
        let Some(entry) = entry(&status, "reconcile", &[("bucket", bucket)]) else { return false };
        let is_null = |name| entry.get(name).is_none_or(Value::is_null);
        let never = is_null("last_complete_ms") && is_null("last_error");
        never || entry.get("running").and_then(Value::as_bool) == Some(true)
    }

    async fn reason(&self, list: &str, wanted: &[(&str, &str)]) -> Option<String> {
        let status = self.api.get("/api/v1/status").await.ok()?;
        entry(&status, list, wanted)?.get("reason")?.as_str().map(str::to_owned)
    }
}

/// The entry of a list in the status whose fields are these.
fn entry<'a>(status: &'a Value, list: &str, wanted: &[(&str, &str)]) -> Option<&'a Value> {
    let fits = |entry: &&Value| {
        wanted.iter().all(|(name, text)| entry.get(*name).and_then(Value::as_str) == Some(*text))
    };
    status.get(list)?.as_array()?.iter().find(fits)
}

fn counters(metrics: &str) -> Counters {
    let sum = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<f64>().ok()).map_or(0, rounded)
    };
    Counters {
        unauthorized: sum("evermirror_intake_requests_total{outcome=\"unauthorized\"}"),
        accepted: sum("evermirror_intake_events_total{outcome=\"accepted\"}"),
        duplicates: sum("evermirror_intake_events_total{outcome=\"duplicate\"}"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count, written as a float"
)]
fn rounded(count: f64) -> u64 {
    count as u64
}

/// What its status says of its health.
pub(super) fn judge(status: &Value) -> Vec<Check> {
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let count = |table: &str, name: &str| {
        status.get(table).and_then(|table| table.get(name)).and_then(Value::as_u64).unwrap_or(0)
    };
    let mut checks = Vec::new();
    for intake in status.get("intakes").and_then(Value::as_array).into_iter().flatten() {
        let name = format!("{} ({})", text(intake, "name"), text(intake, "address"));
        match intake.get("trouble").and_then(Value::as_str) {
            None => checks.push(Check::ok(AREA, format!("its intake {name} works"))),
            Some(trouble) => checks.push(Check::problem(
                AREA,
                format!("nothing arrives through its intake {name}: {trouble}"),
                "mend what it names; evermirror tries again by itself",
            )),
        }
    }
    for store in ["source", "target"] {
        let up = status.get(store).and_then(|store| store.get("up")).and_then(Value::as_bool);
        if up == Some(false) {
            let error =
                status.get(store).map(|store| text(store, "last_error")).unwrap_or_default();
            let says = format!("it does not get through to the {store}: {error}");
            checks.push(Check::problem(AREA, says, "compare with what doctor finds from here"));
        }
    }
    if status.get("journal").and_then(|j| j.get("full")).and_then(Value::as_bool) == Some(true) {
        checks.push(Check::problem(
            AREA,
            "its journal is full, and it refuses notifications",
            "give data_dir more room, or raise journal.max_size",
        ));
    }
    for (what, number, advice) in [
        (
            "keys fail and wait for their next try",
            count("keys", "parked"),
            "see `parked` in /api/v1/status",
        ),
        ("deletes are held", count("keys", "held"), "see `evermirror deletes list`"),
        (
            "buckets have yet to be reconciled after a gap",
            count("at_risk", "buckets_in_doubt"),
            "evermirror does that by itself; see `gaps` in /api/v1/status",
        ),
    ] {
        if number > 0 {
            checks.push(Check::warning(AREA, format!("{number} {what}"), advice));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::check::Level;

    #[test]
    fn counters_are_read_from_the_metrics() {
        let text = "# HELP x\nevermirror_intake_requests_total{outcome=\"ok\"} 7\n\
                    evermirror_intake_requests_total{outcome=\"unauthorized\"} 3\n\
                    evermirror_intake_events_total{outcome=\"accepted\"} 5.0\n";
        assert_eq!(counters(text), Counters { unauthorized: 3, accepted: 5, duplicates: 0 });
    }

    #[test]
    fn an_intake_in_trouble_and_a_store_that_is_down_are_problems() {
        let level = |status: &Value| judge(status).iter().map(|check| check.level).max();
        let mut status = json!({
            "intakes": [{"name": "webhook", "address": "a:1", "trouble": null}],
            "source": {"up": true}, "target": {"up": true, "last_error": null},
            "keys": {"parked": 0, "held": 0}, "journal": {"full": false},
        });
        assert_eq!(level(&status), Some(Level::Ok));
        status["keys"]["held"] = json!(3);
        assert_eq!(level(&status), Some(Level::Warning));
        for (place, value) in [
            ("/target/up", json!(false)),
            ("/intakes/0/trouble", json!("no queue")),
            ("/journal/full", json!(true)),
        ] {
            let mut worse = status.clone();
            *worse.pointer_mut(place).unwrap() = value;
            assert_eq!(level(&worse), Some(Level::Problem), "{place}");
        }
    }
}
