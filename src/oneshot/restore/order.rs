//! In which order objects must come back, so that a reader of a table never finds a commit whose files
//! are not there yet: pure.
//!
//! Everything of one class is at the destination before the first object of the next is written. The
//! names are those of the formats' specifications: Iceberg (table spec, file system tables), Delta
//! Lake (PROTOCOL.md, delta log entries, checkpoints, last checkpoint file), Hudi (technical
//! specification, timeline).

/// How many classes there are.
pub const CLASSES: u8 = 6;

/// Data files, and every object that belongs to no table.
const DATA: u8 = 0;
/// What names data files: Iceberg manifests, Delta checkpoints, the files of Hudi's metadata table.
const MANIFESTS: u8 = 1;
/// What names manifests: Iceberg manifest lists, the timeline of Hudi's metadata table.
const LISTS: u8 = 2;
/// What makes a state of the table readable: Iceberg metadata, Delta commits; Hudi instants begun.
const COMMITS: u8 = 3;
/// What points at the newest commit, and Hudi's completed instants.
const POINTERS: u8 = 4;
/// What makes a directory a Hudi table.
const TABLES: u8 = 5;

/// The class of the object `key`, below [`CLASSES`].
pub fn order_class(key: &str) -> u8 {
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    if let Some(class) = hudi(key, name) {
        return class;
    }
    if is_in(folder, "_delta_log") {
        return delta(name);
    }
    if folder.split('/').any(|part| part == "_delta_log") {
        // Sidecars of checkpoints, and commits that are not in the log yet.
        return DATA;
    }
    if is_in(folder, "metadata") { iceberg(name) } else { DATA }
}

/// What a class holds, for people.
pub const fn class_name(class: u8) -> &'static str {
    match class {
        DATA => "data files",
        MANIFESTS => "manifests and checkpoints",
        LISTS => "manifest lists",
        COMMITS => "table commits",
        POINTERS => "pointers to commits",
        _ => "table properties",
    }
}

/// Whether the object must be there before the next one of the same folder is written: Delta's commits
/// are numbered without a gap, and a reader refuses a log that has one.
pub fn one_by_one(key: &str) -> Option<&str> {
    let (folder, name) = key.rsplit_once('/')?;
    (is_in(folder, "_delta_log") && is_delta_commit(name)).then_some(folder)
}

/// Whether the last part of a path is `part`.
fn is_in(folder: &str, part: &str) -> bool {
    folder.rsplit('/').next() == Some(part)
}

fn iceberg(name: &str) -> u8 {
    // Keys differ by case: `strip_suffix`, not a file name's extension.
    let ends = |end: &str| name.strip_suffix(end).is_some();
    if name == "version-hint.text" {
        POINTERS
    } else if [".metadata.json", ".metadata.json.gz", ".metadata.json.zstd"].into_iter().any(ends) {
        COMMITS
    } else if !ends(".avro") {
        // Statistics and deletion vectors (Puffin).
        DATA
    } else if name.starts_with("snap-") {
        LISTS
    } else {
        MANIFESTS
    }
}

fn delta(name: &str) -> u8 {
    if name == "_last_checkpoint" {
        POINTERS
    } else if is_delta_commit(name) {
        COMMITS
    } else {
        MANIFESTS
    }
}

/// `00000000000000000042.json`.
fn is_delta_commit(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|version| {
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Below `.hoodie`: the table's timeline, and in `.hoodie/metadata` a table of its own.
fn hudi(key: &str, name: &str) -> Option<u8> {
    let top = key.strip_prefix(".hoodie/");
    let inside = top.or_else(|| key.split_once("/.hoodie/").map(|(_, inside)| inside))?;
    if inside.starts_with("metadata/.hoodie/") {
        return Some(LISTS);
    }
    if inside.starts_with("metadata/") {
        return Some(MANIFESTS);
    }
    if name == "hoodie.properties" {
        return Some(TABLES);
    }
    let begun = name.ends_with(".requested") || name.ends_with(".inflight");
    Some(if begun { COMMITS } else { POINTERS })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_names_a_file_comes_after_the_file() {
        for (steps, why) in [
            (
                &[
                    "w/t/data/a.parquet",
                    "w/t/metadata/0a-m0.avro",
                    "w/t/metadata/snap-1-1-0a.avro",
                    "w/t/metadata/v2.metadata.json",
                    "w/t/metadata/version-hint.text",
                ][..],
                "Iceberg",
            ),
            (
                &[
                    "t/part-0.parquet",
                    "t/_delta_log/00000000000000000010.checkpoint.parquet",
                    "t/_delta_log/00000000000000000010.json",
                    "t/_delta_log/_last_checkpoint",
                ],
                "Delta",
            ),
            (
                &[
                    "t/p=1/a.parquet",
                    "t/.hoodie/metadata/files/.files-0000.hfile",
                    "t/.hoodie/metadata/.hoodie/hoodie.properties",
                    "t/.hoodie/20260101.commit.requested",
                    "t/.hoodie/20260101.commit",
                    "t/.hoodie/hoodie.properties",
                ],
                "Hudi",
            ),
        ] {
            let classes: Vec<_> = steps.iter().map(|key| order_class(key)).collect();
            assert!(classes.windows(2).all(|pair| pair[0] < pair[1]), "{why}: {classes:?}");
        }
    }

    #[test]
    fn a_table_may_lie_at_the_top_of_its_bucket() {
        assert_eq!(order_class("metadata/v1.metadata.json"), COMMITS);
        assert_eq!(order_class("_delta_log/00000000000000000000.json"), COMMITS);
        assert_eq!(order_class(".hoodie/hoodie.properties"), TABLES);
        assert_eq!(order_class(".hoodie/metadata/files/a"), MANIFESTS);
    }

    #[test]
    fn what_only_looks_like_a_commit_is_data() {
        for key in [
            "notes/00000000000000000010.json",
            "data/a.avro",
            "t/_delta_log/_sidecars/a.parquet",
            "my_delta_log/0.json",
            "my.hoodie/x",
            "metadata",
            "",
        ] {
            assert_eq!(order_class(key), DATA, "{key}");
        }
    }

    #[test]
    fn delta_commits_of_one_table_come_one_by_one() {
        assert_eq!(one_by_one("t/_delta_log/00000000000000000010.json"), Some("t/_delta_log"));
        assert_eq!(one_by_one("t/_delta_log/00000000000000000010.crc"), None);
        assert_eq!(one_by_one("t/metadata/v1.metadata.json"), None);
    }

    proptest! {
        #[test]
        fn every_key_has_a_class(key in any::<String>()) {
            prop_assert!(order_class(&key) < CLASSES);
        }
    }
}
