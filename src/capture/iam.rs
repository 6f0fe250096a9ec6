//! Users, groups and policies: the zip archive that MinIO and RustFS export and import, as JSON. Pure.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use serde_json::{Map, Value};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::document::meaning;

/// The folder of all files in the archive.
const FOLDER: &str = "iam-assets/";
/// The policies, each by its name.
pub(super) const POLICIES: &str = "policies.json";
const USERS: &str = "users.json";
const GROUPS: &str = "groups.json";
const ACCOUNTS: &str = "svcaccts.json";
const USER_POLICIES: &str = "user_mappings.json";
const GROUP_POLICIES: &str = "group_mappings.json";
/// The largest file in the archive that is read.
const MAX_FILE: u64 = 64 << 20;

/// The files of an export, by name: each an object of entities by name.
pub(super) type Assets = BTreeMap<String, Map<String, Value>>;

/// A file's name and the name of an entity in it.
pub(super) type Entity = (String, String);

/// Reads the archive. The error is a sentence without its end.
pub(super) fn unpack(archive: Vec<u8>) -> Result<Assets, String> {
    let bad = |error: &dyn std::fmt::Display| format!("the store's export cannot be read: {error}");
    let mut zip = ZipArchive::new(Cursor::new(archive)).map_err(|error| bad(&error))?;
    let mut assets = Assets::new();
    for index in 0..zip.len() {
        let file = zip.by_index(index).map_err(|error| bad(&error))?;
        let name = file.name().map_err(|error| bad(&error))?.into_owned();
        let name = name.strip_prefix(FOLDER).unwrap_or(&name).to_owned();
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).map_err(|error| bad(&error))?;
        // Only the store knows what else it may export; nothing of it is left out silently.
        let content: Option<Map<String, Value>> =
            serde_json::from_slice(&text).map_err(|error| bad(&error))?;
        assets.insert(name, content.unwrap_or_default());
    }
    Ok(assets)
}

/// The archive of `assets`.
pub(super) fn pack(assets: &Assets) -> Result<Vec<u8>, String> {
    let bad = |error: &dyn std::fmt::Display| format!("the archive cannot be written: {error}");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in assets {
        zip.start_file(format!("{FOLDER}{name}"), SimpleFileOptions::default())
            .map_err(|error| bad(&error))?;
        let text = serde_json::to_vec(content).map_err(|error| bad(&error))?;
        zip.write_all(&text).map_err(|error| bad(&error))?;
    }
    zip.finish().map(Cursor::into_inner).map_err(|error| bad(&error))
}

/// Takes out every secret key.
pub(super) fn redact(assets: &mut Assets) {
    fn without_secrets(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !name.to_ascii_lowercase().contains("secret"));
                fields.values_mut().for_each(without_secrets);
            }
            Value::Array(list) => list.iter_mut().for_each(without_secrets),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    // The names on the outside are those of users, who may be called as they like.
    assets.values_mut().flat_map(Map::values_mut).for_each(without_secrets);
}

/// For people: `user alice`, `policy readonly`.
pub(super) fn words((file, name): &Entity) -> String {
    let kind = match &**file {
        POLICIES => "policy",
        USERS => "user",
        GROUPS => "group",
        ACCOUNTS => "access key",
        USER_POLICIES => "policies of user",
        GROUP_POLICIES => "policies of group",
        "stsuser_mappings.json" => "policies of external user",
        other => other,
    };
    format!("{kind} {}", name.escape_debug())
}

/// What is to be done at a store that has `there`, so that it has `captured` besides.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Not there, and to be put there.
    pub(super) missing: Vec<Entity>,
    /// There, and otherwise.
    pub(super) differing: Vec<Entity>,
    /// There as captured.
    pub(super) same: usize,
    /// Users and access keys whose secrets were not captured and that are not there.
    pub(super) need_secrets: Vec<Entity>,
    /// What cannot be put back as it was, and why.
    pub(super) left_out: Vec<String>,
}

/// Compares, entity by entity.
pub(super) fn compare(captured: &Assets, there: &Assets) -> Change {
    let mut change = Change::default();
    for (file, entities) in captured {
        for (name, wanted) in entities {
            let entity = (file.clone(), name.clone());
            let secret = matches!(&**file, USERS | ACCOUNTS);
            let redacted = secret && wanted.get("secretKey").is_none();
            match there.get(file).and_then(|them| them.get(name)) {
                Some(found) if said(wanted, redacted) == said(found, redacted) => change.same += 1,
                None if redacted => change.need_secrets.push(entity),
                found => match obstacle(captured, there, &entity, wanted, redacted) {
                    Some(why) => change.left_out.push(format!("{} {why}", words(&entity))),
                    None if found.is_some() => change.differing.push(entity),
                    None => change.missing.push(entity),
                },
            }
        }
    }
    change
}

/// Why an entity cannot be put there as it was, or not yet.
fn obstacle(
    captured: &Assets,
    there: &Assets,
    (file, name): &Entity,
    wanted: &Value,
    redacted: bool,
) -> Option<&'static str> {
    let has = |file: &str, name: &str| there.get(file).is_some_and(|them| them.contains_key(name));
    let lacks_user = |name: &str| {
        let user = captured.get(USERS).and_then(|users| users.get(name));
        user.is_some_and(|user| user.get("secretKey").is_none()) && !has(USERS, name)
    };
    let lacks_group = |name: &str| {
        let group = captured.get(GROUPS).and_then(|groups| groups.get(name));
        group.is_some_and(|group| members(group).into_iter().any(lacks_user)) && !has(GROUPS, name)
    };
    match &**file {
        _ if redacted => Some("differs there, and cannot be written without its secret"),
        // The stores' import makes every access key an active one.
        ACCOUNTS if wanted.get("status").and_then(Value::as_str) == Some("off") => {
            Some("was switched off, and stays away")
        }
        USER_POLICIES if lacks_user(name) => Some("needs the user first"),
        GROUPS if members(wanted).into_iter().any(lacks_user) => Some("needs its users first"),
        GROUP_POLICIES if lacks_group(name) => Some("needs the group first"),
        _ => None,
    }
}

fn members(group: &Value) -> Vec<&str> {
    let members = group.get("members").and_then(Value::as_array);
    members.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What an entity says, without what the store counts itself, and without secrets if there are none to
/// compare with. A time that never comes is written in two ways.
fn said(value: &Value, redacted: bool) -> Value {
    let mut value = meaning(value);
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, value| {
            let empty = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_str() == Some("1970-01-01T00:00:00Z");
            !(name == "version" || empty || redacted && name == "secretKey")
        });
        // MinIO writes an access key's own name there, too.
        if let Some(Value::Object(claims)) = fields.get_mut("claims") {
            claims.remove("accessKey");
        }
    }
    value
}

/// What the stores' import leaves to be said of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupStep {
    /// Its name.
    pub(super) group: String,
    /// Members that it had not when it was captured.
    pub(super) strangers: Vec<String>,
    /// Whether it is in force.
    pub(super) enabled: bool,
}

/// What is to be said of the groups among `entities`; nothing of one that comes new and is in force.
pub(super) fn group_steps(
    captured: &Assets,
    there: &Assets,
    entities: &[Entity],
) -> Vec<GroupStep> {
    let mut steps = Vec::new();
    for (_, name) in entities.iter().filter(|(file, _)| file == GROUPS) {
        let Some(wanted) = captured.get(GROUPS).and_then(|them| them.get(name)) else { continue };
        let found = there.get(GROUPS).and_then(|them| them.get(name));
        let kept = members(wanted);
        let strangers = found.map(members).unwrap_or_default();
        let strangers = strangers.into_iter().filter(|member| !kept.contains(member));
        let enabled = wanted.get("status").and_then(Value::as_str) != Some("disabled");
        if found.is_some() || !enabled {
            let strangers = strangers.map(str::to_owned).collect();
            steps.push(GroupStep { group: name.clone(), strangers, enabled });
        }
    }
    steps
}

/// `assets` in the pieces in which a store that refuses the whole may take most of it: each policy by itself, and
/// what may name them after that.
pub(super) fn parts(assets: &Assets) -> Vec<Assets> {
    let mut rest = assets.clone();
    let policies = rest.remove(POLICIES).unwrap_or_default();
    let alone = |policy| Assets::from([(POLICIES.to_owned(), Map::from_iter([policy]))]);
    let mut parts: Vec<_> = policies.into_iter().map(alone).collect();
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// For people: what a piece of [`parts`] is.
pub(super) fn summary(part: &Assets) -> String {
    let policy = part.get(POLICIES).and_then(|policies| policies.keys().next());
    policy.map_or_else(
        || "users, groups and access keys".to_owned(),
        |name| words(&(POLICIES.to_owned(), name.clone())),
    )
}

/// Only these entities of `assets`.
pub(super) fn only(assets: &Assets, entities: &[Entity]) -> Assets {
    let mut chosen = Assets::new();
    for (file, name) in entities {
        if let Some(value) = assets.get(file).and_then(|them| them.get(name)) {
            chosen.entry(file.clone()).or_default().insert(name.clone(), value.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assets() -> Assets {
        serde_json::from_value(json!({
            "policies.json": {"p": {"Version": "2012-10-17", "Statement": []}},
            "users.json": {"secret-agent": {"secretKey": "abcdefgh", "status": "enabled"}},
            "svcaccts.json": {"AK": {"secretKey": "ijklmnop", "status": "off", "parent": "secret-agent"}},
            "groups.json": {"g": {"version": 1, "members": ["secret-agent"], "updatedAt": "x"}},
            "user_mappings.json": {"secret-agent": {"version": 0, "policy": "p"}},
        }))
        .unwrap()
    }

    #[test]
    fn an_archive_is_read_as_it_was_written_and_a_damaged_one_is_refused() {
        let packed = pack(&assets()).unwrap();
        assert_eq!(unpack(packed.clone()).unwrap(), assets());
        assert!(unpack(packed[..packed.len() / 2].to_vec()).is_err());
    }

    #[test]
    fn a_redacted_export_holds_no_secret_and_all_else() {
        let mut redacted = assets();
        redact(&mut redacted);
        let text = serde_json::to_string(&redacted).unwrap();
        assert!(!text.contains("abcdefgh") && !text.contains("ijklmnop"), "{text}");
        assert_eq!(redacted["users.json"]["secret-agent"], json!({"status": "enabled"}));
    }

    #[test]
    fn what_is_missing_is_put_back_and_what_was_switched_off_stays_away() {
        let change = compare(&assets(), &Assets::new());
        assert_eq!((change.missing.len(), change.differing.len(), change.same), (4, 0, 0));
        assert_eq!(change.left_out, ["access key AK was switched off, and stays away"]);
        let again = compare(&assets(), &assets());
        assert_eq!((again.missing.len(), again.differing.len(), again.same), (0, 0, 5));
        let mut other = assets();
        other.get_mut("users.json").unwrap()["secret-agent"]["secretKey"] = json!("other");
        assert_eq!(compare(&assets(), &other).differing.len(), 1);
    }

    #[test]
    fn of_a_group_is_said_what_the_import_forgets() {
        let group = |status: &str, members: &[&str]| {
            let group = json!({"status": status, "members": members});
            Assets::from([(GROUPS.to_owned(), Map::from_iter([("g".to_owned(), group)]))])
        };
        let entity = [(GROUPS.to_owned(), "g".to_owned())];
        let step = |strangers: &[&str], enabled| {
            let strangers = strangers.iter().map(ToString::to_string).collect();
            GroupStep { group: "g".to_owned(), strangers, enabled }
        };
        let (on, off) = (group("enabled", &["a"]), group("disabled", &["a"]));
        assert_eq!(group_steps(&on, &Assets::new(), &entity), []);
        assert_eq!(group_steps(&off, &Assets::new(), &entity), [step(&[], false)]);
        let grown = group("enabled", &["a", "b"]);
        assert_eq!(group_steps(&off, &grown, &entity), [step(&["b"], false)]);
        assert_eq!(group_steps(&on, &off, &entity), [step(&[], true)]);
        assert_eq!(group_steps(&on, &grown, &[]), [], "what was not chosen");
    }

    #[test]
    fn a_policy_that_a_store_refuses_stops_no_other() {
        let parts = parts(&assets());
        assert_eq!(parts.len(), 2);
        assert_eq!(summary(&parts[0]), "policy p");
        assert_eq!(summary(&parts[1]), "users, groups and access keys");
        assert_eq!(parts[1].len(), assets().len() - 1);
    }

    #[test]
    fn without_secrets_a_user_is_named_and_what_hangs_on_it_waits() {
        let mut redacted = assets();
        redact(&mut redacted);
        let change = compare(&redacted, &Assets::new());
        assert_eq!(change.need_secrets.len(), 2);
        assert_eq!(change.missing, [("policies.json".to_owned(), "p".to_owned())]);
        assert_eq!(change.left_out.len(), 2);
        let users = Assets::from([("users.json".to_owned(), assets()["users.json"].clone())]);
        let change = compare(&redacted, &users);
        assert_eq!((change.need_secrets.len(), change.missing.len(), change.same), (1, 3, 1));
    }
}
