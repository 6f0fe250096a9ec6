//! What each store calls the same things: events, destinations, environment variables.

use secrecy::ExposeSecret as _;

use crate::config::settings::{BucketSettings, IntakeSettings, WebhookSettings};
use crate::store::{Destination, NotificationRule, StoreKind};

/// The target that keeps events in a queue directory until they are acknowledged: late by seconds, but
/// none is lost while evermirror restarts.
pub const SAFE: &str = "EM";
/// The target without one: milliseconds, and lost when nobody listens.
pub const FAST: &str = "EMFAST";

/// More rules than this are not written: S3 takes 100 for a bucket.
const MAX_PREFIXES: usize = 40;

/// The events without which changes are missed. Every store knows them.
pub const CORE_EVENTS: [&str; 2] = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"];

/// Further events that tell of a change to what is replicated. A name that MinIO does not know makes it
/// refuse the whole document; RustFS keeps such a name and ignores it.
///
/// MinIO counts tagging, retention and legal hold among the creations. Replication events are left out
/// everywhere: the object that they are about has not changed.
pub const fn more_events(kind: StoreKind) -> &'static [&'static str] {
    match kind {
        StoreKind::Minio => {
            &["s3:LifecycleDelMarkerExpiration:Delete", "s3:ObjectRestore:Completed"]
        }
        StoreKind::Rustfs => &[
            "s3:ObjectRemoved:DeleteAllVersions",
            "s3:ObjectTagging:*",
            "s3:LifecycleExpiration:*",
            "s3:ObjectRestore:Completed",
        ],
        StoreKind::Aws => {
            &["s3:ObjectTagging:*", "s3:LifecycleExpiration:*", "s3:ObjectRestore:Completed"]
        }
        StoreKind::Other => &[],
    }
}

/// All events to subscribe to.
pub fn events(kind: StoreKind) -> Vec<String> {
    CORE_EVENTS.iter().chain(more_events(kind)).map(ToString::to_string).collect()
}

/// The ARNs that are looked for where none is given: of the configured intakes, or of the webhook where
/// none is configured. None where only the operator can know.
pub fn usual_arns(intake: &IntakeSettings, kind: StoreKind) -> Vec<String> {
    let mut arns = Vec::new();
    if intake.webhook.is_some() || (intake.sqs.is_none() && intake.kafka.is_none()) {
        arns.extend(default_arns(kind));
    }
    if intake.kafka.is_some() {
        arns.extend(match kind {
            StoreKind::Minio => Some(format!("arn:minio:sqs::{SAFE}:kafka")),
            StoreKind::Rustfs => Some(format!("arn:rustfs:sqs::{}:kafka", SAFE.to_lowercase())),
            StoreKind::Aws | StoreKind::Other => None,
        });
    }
    if let (Some(sqs), StoreKind::Aws | StoreKind::Other) = (&intake.sqs, kind) {
        arns.extend(queue_arn(&sqs.queue_url));
    }
    arns
}

/// Whether nothing need be told to the source: its listen stream is there for whoever asks.
pub fn needs_no_rules(intake: &IntakeSettings) -> bool {
    intake.listen.is_some()
        && intake.webhook.is_none()
        && intake.sqs.is_none()
        && intake.kafka.is_none()
}

/// The ARN of the queue that AWS calls `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`; `None` for the
/// queues of others, whose URLs do not tell.
fn queue_arn(queue_url: &str) -> Option<String> {
    let (host, path) = queue_url.split_once("://")?.1.split_once('/')?;
    let (region, domain) = host.strip_prefix("sqs.")?.split_once('.')?;
    let partition = match domain {
        "amazonaws.com" if region.starts_with("us-gov-") => "aws-us-gov",
        "amazonaws.com" => "aws",
        "amazonaws.com.cn" => "aws-cn",
        _ => return None,
    };
    let (account, name) = path.split_once('/')?;
    Some(format!("arn:{partition}:sqs:{region}:{account}:{name}"))
}

/// The ARNs of webhooks that are looked for.
pub fn default_arns(kind: StoreKind) -> Vec<String> {
    match kind {
        StoreKind::Minio => [FAST, SAFE].map(|id| format!("arn:minio:sqs::{id}:webhook")).into(),
        StoreKind::Rustfs => {
            [FAST, SAFE].map(|id| format!("arn:rustfs:sqs::{}:webhook", id.to_lowercase())).into()
        }
        StoreKind::Aws | StoreKind::Other => Vec::new(),
    }
}

/// The name that an ARN gives its destination: `EM` of `arn:minio:sqs::EM:webhook`, the queue's of
/// `arn:aws:sqs:eu-central-1:111122223333:queue`.
pub fn arn_name(arn: &str) -> &str {
    let mut parts = arn.split(':').skip(1);
    match parts.next() {
        Some("minio" | "rustfs") => parts.nth(2).unwrap_or(arn),
        _ => arn.rsplit(':').next().unwrap_or(arn),
    }
}

/// Whether both name the same destination. MinIO and RustFS let the region be left out.
pub fn same_arn(one: &str, other: &str) -> bool {
    one == other || without_region(one).is_some_and(|one| without_region(other) == Some(one))
}

fn without_region(arn: &str) -> Option<(&str, &str)> {
    let rest = arn.strip_prefix("arn:")?;
    let (vendor, rest) = rest.split_once(":sqs:")?;
    let (_region, rest) = rest.split_once(':')?;
    matches!(vendor, "minio" | "rustfs").then_some((vendor, rest))
}

/// What is wrong with an ARN for this store, by its looks alone.
pub fn objection(kind: StoreKind, arn: &str) -> Option<String> {
    let vendor = arn.split(':').nth(1).unwrap_or_default();
    let lower = arn_name(arn).to_lowercase();
    match kind {
        _ if !arn.starts_with("arn:") => Some(format!(
            "\"{}\" is no ARN; one looks like {}",
            arn.escape_debug(),
            default_arns(kind).pop().unwrap_or_else(|| "arn:aws:sqs:REGION:ACCOUNT:QUEUE".into())
        )),
        StoreKind::Minio if vendor != "minio" => {
            Some(format!("{arn}: an ARN of MinIO begins with arn:minio:sqs:"))
        }
        StoreKind::Rustfs if vendor != "rustfs" => {
            Some(format!("{arn}: an ARN of RustFS begins with arn:rustfs:sqs:"))
        }
        StoreKind::Rustfs if arn_name(arn) != lower => Some(format!(
            "{arn}: RustFS turns the names of targets into lower case, and would take this ARN and \
             never deliver to it; write arn:rustfs:sqs::{lower}:webhook"
        )),
        StoreKind::Minio | StoreKind::Rustfs | StoreKind::Aws | StoreKind::Other => None,
    }
}

/// The rules that `bucket` should have: one for each ARN and included prefix, or for the whole bucket
/// where prefixes cannot be written as filters. Exclusions never can; evermirror drops those itself.
pub fn wanted(kind: StoreKind, bucket: &BucketSettings, arns: &[String]) -> Vec<NotificationRule> {
    let prefixes = filter_prefixes(&bucket.include);
    let rule = |arn: &String, prefix: Option<&&str>, number: usize| NotificationRule {
        destination: Destination::Queue,
        id: Some(match number {
            0 => format!("evermirror-{}", arn_name(arn)),
            more => format!("evermirror-{}-{more}", arn_name(arn)),
        }),
        arn: arn.clone(),
        events: events(kind),
        filters: prefix
            .map(|prefix| ("prefix".to_owned(), (*prefix).to_owned()))
            .into_iter()
            .collect(),
    };
    arns.iter()
        .flat_map(|arn| {
            let whole = prefixes.is_empty().then(|| rule(arn, None, 0));
            let parts = prefixes.iter().enumerate().map(move |(n, p)| rule(arn, Some(p), n));
            whole.into_iter().chain(parts.collect::<Vec<_>>())
        })
        .collect()
}

/// The included prefixes, without those that another one covers, since S3 refuses overlapping rules.
/// Empty if the whole bucket must be subscribed to: MinIO reads filters as patterns, RustFS never
/// matches one with a space, AWS wants some characters encoded; so only plain ones are used.
fn filter_prefixes(include: &[String]) -> Vec<&str> {
    let plain =
        |prefix: &str| prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-.=".contains(&b));
    let mut prefixes: Vec<&str> = include.iter().map(String::as_str).collect();
    prefixes.sort_unstable();
    prefixes.dedup_by(|later, earlier| later.starts_with(&**earlier));
    let usable =
        prefixes.len() <= MAX_PREFIXES && prefixes.iter().all(|p| !p.is_empty() && plain(p));
    if usable { prefixes } else { Vec::new() }
}

/// Where the source reaches the webhook, as far as the configuration tells.
pub fn webhook_url(webhook: &WebhookSettings) -> String {
    let scheme = if webhook.tls.is_some() { "https" } else { "http" };
    let listen = webhook.listen;
    if listen.ip().is_unspecified() {
        return format!("{scheme}://EVERMIRROR-HOST:{}{}", listen.port(), webhook.path);
    }
    format!("{scheme}://{listen}{}", webhook.path)
}

/// The variables to start the source with, so that it knows both targets. The token is not shown.
pub fn environment(kind: StoreKind, webhook: &WebhookSettings) -> Vec<String> {
    let url = webhook_url(webhook);
    let token = match (&webhook.auth_token_file, &webhook.auth_token) {
        (Some(file), _) => Some(format!("<the token in {}>", file.display())),
        (None, Some(token)) if !token.expose_secret().is_empty() => {
            Some("<the token of intake.webhook.auth_token>".to_owned())
        }
        (None, _) => None,
    };
    let target = |vendor: &str, id: &str, queue: Option<&str>| {
        let mut lines = vec![format!("{vendor}_NOTIFY_WEBHOOK_ENABLE_{id}=on")];
        lines.push(format!("{vendor}_NOTIFY_WEBHOOK_ENDPOINT_{id}={url}"));
        lines.extend(token.iter().map(|t| format!("{vendor}_NOTIFY_WEBHOOK_AUTH_TOKEN_{id}={t}")));
        lines.extend(queue.map(|dir| format!("{vendor}_NOTIFY_WEBHOOK_QUEUE_DIR_{id}={dir}")));
        lines
    };
    match kind {
        StoreKind::Minio => {
            let mut lines = target("MINIO", SAFE, Some("/data/.evermirror-events"));
            lines.extend(target("MINIO", FAST, None));
            lines.push("MINIO_API_SYNC_EVENTS=on".to_owned());
            lines
        }
        StoreKind::Rustfs => {
            let origin = url.strip_suffix(&webhook.path).unwrap_or(&url);
            let mut lines = vec!["RUSTFS_NOTIFY_ENABLE=true".to_owned()];
            lines.extend(target("RUSTFS", SAFE, Some("/data/.evermirror-events")));
            lines.extend(target("RUSTFS", FAST, Some("")));
            lines.push(format!("RUSTFS_OUTBOUND_ALLOW_ORIGINS={origin}"));
            lines
        }
        StoreKind::Aws | StoreKind::Other => Vec::new(),
    }
}

/// Which of the events that are wanted no rule in `rules` tells of, in the order of importance.
pub fn missing_events(kind: StoreKind, rules: &[&NotificationRule]) -> Vec<String> {
    let given: Vec<&str> = rules.iter().flat_map(|r| r.events.iter().map(String::as_str)).collect();
    let has = |event: &str| {
        given.iter().any(|given| {
            *given == event
                || given.strip_suffix('*').is_some_and(|family| event.starts_with(family))
        })
    };
    let covered = |wanted: &String| match wanted.as_str() {
        all if has(all) => true,
        "s3:ObjectCreated:*" => ["Put", "Post", "Copy", "CompleteMultipartUpload"]
            .iter()
            .all(|event| has(&format!("s3:ObjectCreated:{event}"))),
        "s3:ObjectRemoved:*" => ["Delete", "DeleteMarkerCreated"]
            .iter()
            .all(|event| has(&format!("s3:ObjectRemoved:{event}"))),
        _ => false,
    };
    events(kind).into_iter().filter(|wanted| !covered(wanted)).collect()
}

#[cfg(test)]
mod tests;
