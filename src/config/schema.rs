//! Every key there is, as data: what the file may hold, what the environment may override, and
//! which name was probably meant.
//!
//! The structs in `settings` are the other half; tests prove that the two list the same keys.

use super::kind::Kind;

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// Tables and name, joined by dots; `*` stands for an index into a list.
    pub path: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its table is incomplete without it.
    pub required: bool,
}

/// What a path names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Key(&'static Key),
    Table,
    List,
}

const fn required(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, required: true }
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, required: false }
}

/// All keys, in the order in which they are shown.
pub(super) static KEYS: &[Key] = &[
    required("data_dir", Kind::Path),
    required("source.endpoint", Kind::Endpoint),
    key("source.region", Kind::Text),
    key("source.access_key", Kind::Secret),
    key("source.secret_key", Kind::Secret),
    key("source.session_token", Kind::Secret),
    key("source.access_key_file", Kind::Path),
    key("source.secret_key_file", Kind::Path),
    key("source.path_style", Kind::Flag),
    key("source.ca_file", Kind::Path),
    required("target.endpoint", Kind::Endpoint),
    key("target.region", Kind::Text),
    key("target.access_key", Kind::Secret),
    key("target.secret_key", Kind::Secret),
    key("target.session_token", Kind::Secret),
    key("target.access_key_file", Kind::Path),
    key("target.secret_key_file", Kind::Path),
    key("target.path_style", Kind::Flag),
    key("target.ca_file", Kind::Path),
    key("target.storage_class", Kind::Text),
    key("target.server_side_encryption", Kind::Word(&["AES256", "aws:kms", "aws:kms:dsse"])),
    key("target.kms_key_id", Kind::Text),
    key("target.create_buckets", Kind::Flag),
    required("buckets.*.source", Kind::Text),
    key("buckets.*.target", Kind::Text),
    key("buckets.*.include", Kind::Prefixes),
    key("buckets.*.exclude", Kind::Prefixes),
    key("buckets.*.deletes", Kind::Word(&["mirror", "archive", "delay"])),
    key("buckets.*.delete_delay", Kind::Duration),
    key("buckets.*.may_be_empty", Kind::Flag),
    key("intake.webhook.listen", Kind::Address),
    key("intake.webhook.path", Kind::Text),
    key("intake.webhook.auth_token", Kind::Secret),
    key("intake.webhook.auth_token_file", Kind::Path),
    key("intake.webhook.max_body", Kind::Size),
    key("intake.webhook.max_wait", Kind::Duration),
    key("intake.webhook.max_connections", Kind::Count),
    required("intake.webhook.tls.cert_file", Kind::Path),
    required("intake.webhook.tls.key_file", Kind::Path),
    key("intake.webhook.tls.client_ca_file", Kind::Path),
    required("intake.sqs.queue_url", Kind::Endpoint),
    key("intake.sqs.region", Kind::Text),
    key("intake.sqs.endpoint", Kind::Endpoint),
    key("intake.sqs.access_key", Kind::Secret),
    key("intake.sqs.secret_key", Kind::Secret),
    key("intake.sqs.session_token", Kind::Secret),
    key("intake.sqs.access_key_file", Kind::Path),
    key("intake.sqs.secret_key_file", Kind::Path),
    key("intake.sqs.ca_file", Kind::Path),
    key("intake.sqs.receivers", Kind::Count),
    key("intake.sqs.wait_time", Kind::Duration),
    key("intake.sqs.visibility_timeout", Kind::Duration),
    required("intake.kafka.brokers", Kind::Text),
    required("intake.kafka.topics", Kind::Names),
    key("intake.kafka.group", Kind::Text),
    key("intake.kafka.ack", Kind::Word(&["durable", "replicated"])),
    key("intake.kafka.drain_timeout", Kind::Duration),
    key("intake.kafka.sasl_password", Kind::Secret),
    key("intake.kafka.sasl_password_file", Kind::Path),
    key("intake.kafka.properties", Kind::Properties),
    key("intake.listen.max_silence", Kind::Duration),
    key("journal.durability", Kind::Word(&["fsync", "write"])),
    key("journal.segment_size", Kind::Size),
    key("journal.max_size", Kind::Size),
    key("replicate.concurrency", Kind::Count),
    key("replicate.large_concurrency", Kind::Count),
    key("replicate.part_concurrency", Kind::Count),
    key("replicate.large_size", Kind::Size),
    key("replicate.multipart_threshold", Kind::Size),
    key("replicate.bandwidth", Kind::Size),
    key("replicate.min_interval", Kind::Duration),
    key("replicate.retry_initial", Kind::Duration),
    key("replicate.retry_max", Kind::Duration),
    key("replicate.max_pending_keys", Kind::Count),
    key("replicate.tags", Kind::Flag),
    key("replicate.request_timeout", Kind::Duration),
    key("replicate.drain_timeout", Kind::Duration),
    key("deletes.max_deletes", Kind::Count),
    key("deletes.window", Kind::Duration),
    key("deletes.max_delete_percent", Kind::Count),
    key("reconcile.interval", Kind::Duration),
    key("reconcile.parallel", Kind::Count),
    key("reconcile.requests_per_second", Kind::Count),
    key("capture.interval", Kind::Duration),
    key("capture.target_bucket", Kind::Text),
    key("capture.prefix", Kind::Text),
    key("capture.keep", Kind::Count),
    key("capture.buckets", Kind::Word(&["configured", "all"])),
    key("capture.iam", Kind::Flag),
    key("capture.passphrase", Kind::Secret),
    key("capture.passphrase_file", Kind::Path),
    key("web.listen", Kind::Address),
    key("web.auth_token", Kind::Secret),
    key("web.auth_token_file", Kind::Path),
    key("web.read_without_token", Kind::Flag),
    required("lease.name", Kind::Text),
    key("lease.namespace", Kind::Text),
    key("lease.pod", Kind::Text),
    key("lease.duration", Kind::Duration),
    key("lease.renew_deadline", Kind::Duration),
    key("lease.retry_period", Kind::Duration),
    required("snapshot.selector", Kind::Text),
    key("snapshot.namespace", Kind::Text),
    key("snapshot.class", Kind::Text),
    key("snapshot.interval", Kind::Duration),
    key("snapshot.retain", Kind::Count),
    key("snapshot.ready_timeout", Kind::Duration),
    key("snapshot.quiesce", Kind::Duration),
    key("log.format", Kind::Word(&["text", "json"])),
    key("log.filter", Kind::Text),
];

/// Every environment variable of ours begins with this.
pub(super) const PREFIX: &str = "EVERMIRROR__";

/// What `path` names, indices written as numbers; `None` if there is no such key or table.
pub(super) fn node(path: &str) -> Option<Node> {
    let mut found = None;
    for key in KEYS {
        match match_prefix(key.path, path)? {
            Match::Whole => return Some(Node::Key(key)),
            Match::Before("*") => found = Some(Node::List),
            Match::Before(_) => found = Some(Node::Table),
            Match::No => {}
        }
    }
    found
}

enum Match {
    Whole,
    /// The path is a table of the key; the key's next segment.
    Before(&'static str),
    No,
}

/// `None` for a path that can name nothing at all.
fn match_prefix(pattern: &'static str, path: &str) -> Option<Match> {
    let mut segments = pattern.split('.');
    for name in path.split('.') {
        if name.is_empty() {
            return None;
        }
        match segments.next() {
            Some("*") if is_index(name) => {}
            Some(segment) if segment == name && segment != "*" => {}
            _ => return Some(Match::No),
        }
    }
    Some(segments.next().map_or(Match::Whole, Match::Before))
}

/// An index as we write it ourselves: no sign, no leading zero, below 10,000.
fn is_index(name: &str) -> bool {
    name.parse::<u16>().is_ok_and(|n| n < 10_000 && n.to_string() == name)
}

/// The names that may stand in the table `path` (empty for the top level), each once.
pub(super) fn names_in(path: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = KEYS
        .iter()
        .filter_map(|key| match path {
            "" => key.path.split('.').next(),
            _ => match match_prefix(key.path, path)? {
                Match::Before(name) => Some(name),
                Match::Whole | Match::No => None,
            },
        })
        .collect();
    names.dedup();
    names
}

/// The paths of the tables and lists that may stand in the table `path`.
pub(super) fn tables_in(path: &str) -> Vec<String> {
    let dot = if path.is_empty() { "" } else { "." };
    let paths = names_in(path).into_iter().map(|name| format!("{path}{dot}{name}"));
    paths.filter(|path| matches!(node(path), Some(Node::Table | Node::List))).collect()
}

/// The variable that overrides `path`.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// `source.access_key` and `source.access_key_file` are twins: the same secret, given in two ways.
pub(super) fn twin(path: &str) -> Option<String> {
    let twin = path.strip_suffix("_file").map_or_else(|| format!("{path}_file"), str::to_owned);
    let secret = if twin.len() < path.len() { twin.as_str() } else { path };
    let is_secret = matches!(node(secret), Some(Node::Key(key)) if key.kind.is_secret());
    (is_secret && node(&twin).is_some()).then_some(twin)
}

/// The key's name, and its table as it is written in the file (`[source]`); empty at the top level.
pub(super) fn name_and_table(path: &str) -> (&str, String) {
    path.rsplit_once('.').map_or((path, String::new()), |(table, name)| (name, header(table)))
}

/// `[source]`, or `[[buckets]]` for an entry of a list.
pub(super) fn header(table: &str) -> String {
    match table.rsplit_once('.') {
        Some((list, index)) if is_index(index) => format!("[[{list}]]"),
        _ => format!("[{table}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_key_a_table_a_list_or_nothing() {
        assert!(matches!(node("buckets.3.source"), Some(Node::Key(_))));
        assert!(matches!(node("buckets.3"), Some(Node::Table)));
        assert!(matches!(node("intake"), Some(Node::Table)));
        assert!(matches!(node("buckets"), Some(Node::List)));
        for wrong in ["buckets.*.source", "buckets.03", "buckets.source", "sourc", "source.", ""] {
            assert!(node(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_and_its_file_are_twins() {
        assert_eq!(twin("source.access_key").as_deref(), Some("source.access_key_file"));
        assert_eq!(twin("web.auth_token_file").as_deref(), Some("web.auth_token"));
        for single in ["source.session_token", "source.ca_file", "source.region", "log"] {
            assert_eq!(twin(single), None);
        }
    }

    #[test]
    fn every_secret_but_the_session_token_can_be_given_in_a_file() {
        for key in KEYS.iter().filter(|key| key.kind.is_secret()) {
            assert_eq!(twin(key.path).is_some(), !key.path.ends_with("session_token"));
        }
    }
}
