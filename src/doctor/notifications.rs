//! Whether the source tells of every change: each bucket's rules, and what the store's own interface
//! says of the targets that they name. Pure, apart from [`ask`].

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::check::Check;
use crate::config::settings::{BucketSettings, Settings, WebhookSettings};
use crate::setup::ArnList;
use crate::setup::dialect::{CORE_EVENTS, arn_name, missing_events, objection, same_arn};
use crate::store::{Destination, NotificationConfig, NotificationRule, Store, StoreKind};

const AREA: &str = "notifications";

/// Said where only a trial shows it.
const QUEUE_UNSEEN: &str = "whether a target has a queue cannot be seen";

/// Whether a trial makes this check superfluous.
pub(super) fn is_about_unseen_queue(check: &Check) -> bool {
    check.says == QUEUE_UNSEEN
}

/// The rules that lead here, as far as can be told: those to the given ARNs, else to the usual ones,
/// else all that go to a queue.
pub(super) fn ours<'a>(
    given: &[String],
    usual: &[String],
    config: &'a NotificationConfig,
) -> Vec<&'a NotificationRule> {
    let to = |arns: &[String]| -> Vec<&NotificationRule> {
        let named = |rule: &&NotificationRule| arns.iter().any(|arn| same_arn(arn, &rule.arn));
        config.rules.iter().filter(named).collect()
    };
    if !given.is_empty() {
        return to(given);
    }
    let usual = to(usual);
    if !usual.is_empty() {
        return usual;
    }
    let queue = |rule: &&NotificationRule| rule.destination != Destination::Function;
    config.rules.iter().filter(queue).collect()
}

/// One bucket's rules.
pub(super) fn rules(
    kind: StoreKind,
    bucket: &BucketSettings,
    rules: &[&NotificationRule],
    known: &ArnList,
    interval: Duration,
) -> Vec<Check> {
    if rules.is_empty() {
        let when = if interval.is_zero() {
            "at the next start or on demand".to_owned()
        } else {
            format!("every {}", humantime::format_duration(interval))
        };
        let says = format!(
            "no notification is configured, so changes are only found by the reconciler, {when}"
        );
        return vec![Check::problem(AREA, says, "run evermirror setup").of(&bucket.source)];
    }
    let mut checks = Vec::new();
    for rule in rules {
        if let Some(wrong) = objection(kind, &rule.arn) {
            checks.push(Check::problem(AREA, wrong, "run evermirror setup"));
        } else if let ArnList::Listed(arns) = known
            && !arns.iter().any(|arn| same_arn(arn, &rule.arn))
        {
            checks.push(Check::problem(
                AREA,
                format!("the source does not know {}, to which it should send", rule.arn),
                "run evermirror setup, which prints the variables to start the source with",
            ));
        }
    }
    let missing = missing_events(kind, rules);
    let (core, more): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|event| CORE_EVENTS.contains(&event.as_str()));
    if !core.is_empty() {
        let says = format!("no rule tells of {}", core.join(", "));
        checks.push(Check::problem(AREA, says, "run evermirror setup"));
    }
    if !more.is_empty() {
        let says =
            format!("no rule tells of {}; the reconciler finds those changes", more.join(", "));
        checks.push(Check::warning(AREA, says, "run evermirror setup"));
    }
    if let Some(left_out) = left_out(bucket, rules) {
        let says = format!("no rule tells of keys under \"{}\"", left_out.escape_debug());
        checks.push(Check::problem(AREA, says, "widen the rule's filter, or run evermirror setup"));
    }
    if checks.is_empty() {
        let mut arns: Vec<_> = rules.iter().map(|rule| rule.arn.as_str()).collect();
        arns.dedup();
        checks.push(Check::ok(AREA, format!("all changes are told to {}", arns.join(" and "))));
    }
    checks.into_iter().map(|check| check.of(&bucket.source)).collect()
}

/// A prefix that is replicated and that every rule filters out.
fn left_out<'a>(bucket: &'a BucketSettings, rules: &[&NotificationRule]) -> Option<&'a str> {
    let tells = |rule: &&NotificationRule, prefix: &str| {
        rule.filters.iter().all(|(name, value)| {
            value.is_empty()
                || name.eq_ignore_ascii_case("prefix")
                    && prefix.starts_with(value.trim_end_matches('*'))
        })
    };
    if bucket.include.is_empty() {
        return (!rules.iter().any(|rule| tells(rule, ""))).then_some("");
    }
    let left_out = |prefix: &&str| !rules.iter().any(|rule| tells(rule, prefix));
    bucket.include.iter().map(String::as_str).find(left_out)
}

/// Asks the store itself about the webhooks among `arns`. With `listening`, somebody listens on the
/// webhook's port, so that the store must reach it.
pub(super) async fn ask(
    kind: StoreKind,
    source: &Store,
    settings: &Settings,
    arns: &[String],
    listening: bool,
) -> Vec<Check> {
    let Some(webhook) = &settings.intake.webhook else { return Vec::new() };
    let webhooks = arns.iter().filter(|arn| arn.ends_with(":webhook"));
    let names: Vec<&str> = webhooks.map(|arn| arn_name(arn)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    match kind {
        StoreKind::Minio => match source.minio_info().await {
            Ok(info) => {
                let reached = if listening { minio_reaches(&info, &names) } else { Vec::new() };
                [minio(&info, webhook, &names), reached].concat()
            }
            Err(error) => vec![Check::warning(
                AREA,
                format!("how the source's targets are set up cannot be seen ({})", error.message),
                "make sure that one of them has MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_…, and that \
                 MINIO_API_SYNC_EVENTS=on; or allow admin:ServerInfo, so that doctor can see it",
            )],
        },
        StoreKind::Rustfs => match source.rustfs_targets().await {
            Ok(targets) => rustfs(&targets, &names, listening),
            Err(error) => vec![Check::warning(
                AREA,
                format!("how the source's targets are set up cannot be seen ({})", error.message),
                "make sure of RUSTFS_NOTIFY_ENABLE=true, RUSTFS_NOTIFY_WEBHOOK_QUEUE_DIR_… and \
                 RUSTFS_OUTBOUND_ALLOW_ORIGINS, which must list the webhook's http://HOST:PORT if that \
                 is a private address",
            )],
        },
        StoreKind::Aws | StoreKind::Other => Vec::new(),
    }
}

/// What the environment of a MinIO says of its webhooks `names`.
fn minio(info: &Value, webhook: &WebhookSettings, names: &[&str]) -> Vec<Check> {
    let servers = info.get("servers").and_then(Value::as_array);
    let variables = servers.and_then(|all| all.first()).and_then(|one| one.get("minio_env_vars"));
    let variable = |name: &str| variables.and_then(|all| all.get(name)).and_then(Value::as_str);
    let of = |what: &str, id: &str| variable(&format!("MINIO_NOTIFY_WEBHOOK_{what}_{id}"));
    let mut checks = Vec::new();
    let by_environment: Vec<_> =
        names.iter().copied().filter(|id| of("ENDPOINT", id).is_some()).collect();
    for id in &by_environment {
        let endpoint = of("ENDPOINT", id).unwrap_or_default();
        let path = endpoint.parse::<http::Uri>().map(|uri| uri.path().to_owned());
        if path.as_deref().is_ok_and(|path| path != webhook.path) {
            checks.push(Check::problem(
                AREA,
                format!("{id} does not send to the webhook's path, which is {}", webhook.path),
                format!("set MINIO_NOTIFY_WEBHOOK_ENDPOINT_{id} or intake.webhook.path"),
            ));
        }
        let token = webhook.auth_token.as_ref().map(|token| token.expose_secret().trim());
        let sent = of("AUTH_TOKEN", id).map(str::trim).filter(|sent| !sent.starts_with("***"));
        if token.is_some_and(|token| sent != Some(token)) {
            checks.push(Check::problem(
                AREA,
                format!("{id} does not send the token that the webhook wants, so all it sends is refused (401)"),
                format!("set MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{id} to intake.webhook.auth_token"),
            ));
        }
    }
    let has_queue = |id: &&&str| of("QUEUE_DIR", id).is_some_and(|dir| !dir.is_empty());
    let queues = by_environment.iter().filter(has_queue).count();
    if by_environment.len() < names.len() {
        checks.push(Check::warning(
            AREA,
            QUEUE_UNSEEN,
            "`mc admin config get ALIAS notify_webhook` shows it: queue_dir must be set on one target",
        ));
    } else if queues == 0 {
        checks.push(no_queue("MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_…"));
    } else if queues == names.len() {
        checks.push(Check::ok(
            AREA,
            "events are queued at the source: none is lost while evermirror restarts, each comes up \
             to 3 s late (a second target without a queue, EMFAST, makes that milliseconds)",
        ));
    } else {
        checks.push(Check::ok(AREA, "one target is fast, one has a queue: fast and safe"));
    }
    let sync = variable("MINIO_API_SYNC_EVENTS").unwrap_or("off");
    if !matches!(sync, "on" | "true" | "1") {
        checks.push(Check::warning(
            AREA,
            "MINIO_API_SYNC_EVENTS is off: events that MinIO has in memory are lost when it restarts",
            "start MinIO with MINIO_API_SYNC_EVENTS=on, unless `mc admin config get ALIAS api` has it",
        ));
    }
    checks
}

/// The webhooks `names` that a MinIO cannot connect to.
fn minio_reaches(info: &Value, names: &[&str]) -> Vec<Check> {
    let kinds = info.pointer("/services/notifications").and_then(Value::as_array);
    let webhooks = kinds.into_iter().flatten().filter_map(|kind| kind.get("webhook")?.as_array());
    let status = |id: &str| {
        let status = webhooks.clone().flatten().find_map(|target| target.get(id)?.get("status"));
        status.and_then(Value::as_str)
    };
    let offline = names.iter().filter(|id| status(id) == Some("offline"));
    let check = |id: &&str| {
        Check::problem(
            AREA,
            format!("MinIO does not reach the webhook through its target {id}"),
            format!(
                "MINIO_NOTIFY_WEBHOOK_ENDPOINT_{id} must name this evermirror as MinIO's machine sees it, \
                 and no firewall may stand between"
            ),
        )
    };
    offline.map(check).collect()
}

/// None of the targets keeps what it cannot deliver.
pub(super) fn no_queue(variable: &str) -> Check {
    Check::warning(
        AREA,
        "no target has a queue directory: what happens while evermirror restarts is lost until the \
         next reconcile",
        format!("set {variable} on one of them; `evermirror setup` prints all variables"),
    )
}

/// What a RustFS says of its webhooks `names`.
fn rustfs(targets: &Value, names: &[&str], listening: bool) -> Vec<Check> {
    if targets.get("notify_enabled").and_then(Value::as_bool) == Some(false) {
        return vec![Check::problem(
            AREA,
            "RustFS sends no notification at all: the module is off",
            // Run against 1.0.1: it says so, too, when it was turned on and the webhook was away at the start.
            "start RustFS with RUSTFS_NOTIFY_ENABLE=true; if it was, it did not reach the webhook when it \
             started: restart it while evermirror runs",
        )];
    }
    let list = targets.get("notification_endpoints").and_then(Value::as_array);
    let text = |entry: &Value, name: &str| {
        entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let ours = list.into_iter().flatten().filter(|entry| {
        text(entry, "service") == "webhook" && names.contains(&text(entry, "account_id").as_str())
    });
    let offline =
        ours.filter(|entry| listening && text(entry, "status") != "online").map(|entry| {
            Check::problem(
                AREA,
                format!(
                    "RustFS does not reach the webhook through its target {} ({})",
                    text(entry, "account_id"),
                    text(entry, "health_reason").escape_debug()
                ),
                "is evermirror's address right, and is its http://HOST:PORT in \
             RUSTFS_OUTBOUND_ALLOW_ORIGINS? Without that RustFS refuses private addresses",
            )
        });
    let mut checks: Vec<_> = offline.collect();
    if checks.is_empty() {
        checks.push(Check::warning(
            AREA,
            QUEUE_UNSEEN,
            "make sure that RUSTFS_NOTIFY_WEBHOOK_QUEUE_DIR_… of one target is a directory that RustFS \
             can write: then events come up to 5 s late, and none is lost while evermirror restarts",
        ));
    }
    checks
}

#[cfg(test)]
mod tests;
