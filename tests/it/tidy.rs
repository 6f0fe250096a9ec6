//! Rules about the code itself that no lint knows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 600;

/// Each outside system is named in one file, so that replacing it is a change to one file. (The demo
/// is apart: it plays both stores, and compares them with a client that is not ours.)
const NAMED_IN_ONE_FILE: [(&str, &str); 4] = [
    ("dashmap::", "src/workqueue/key_map.rs"),
    ("backoff::", "src/retry.rs"),
    ("aws_sdk_s3::", "src/store/admin.rs"),
    ("aws_sdk_sqs::", "src/intake/sqs/queue.rs"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, relative to the repository.
fn rust_files(folder: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file in {folder}");
    found
}

fn text(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

#[test]
fn no_file_is_longer_than_a_person_can_hold_in_mind() {
    let files = ["src", "tests", "loadtest"].into_iter().flat_map(rust_files);
    let long: Vec<_> = files
        .map(|file| (text(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines: {long:?}");
}

#[test]
fn each_outside_system_is_named_in_one_file() {
    for (name, home) in NAMED_IN_ONE_FILE {
        let code = |file: &PathBuf| {
            let text = text(file);
            text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(name))
        };
        let apart = |file: &PathBuf| file.starts_with("src/demo") || file.ends_with("src/demo.rs");
        let files = rust_files("src").into_iter().filter(|file| !apart(file));
        let naming: Vec<_> = files.filter(code).collect();
        assert_eq!(naming, [Path::new(home)], "{name} belongs in {home} alone");
    }
}

/// As above: clients, credentials and queues of AWS have a file each. (A test compares our signatures with
/// theirs.)
#[test]
fn the_aws_sdk_is_named_in_three_files_alone() {
    let named = |line: &str| {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
        words.into_iter().any(|word| word.starts_with("aws_") && word.contains("::"))
    };
    let code = |file: &PathBuf| {
        text(file).lines().any(|line| !line.trim_start().starts_with("//") && named(line))
    };
    let apart = |file: &PathBuf| {
        file.starts_with("src/demo")
            || file.ends_with("src/demo.rs")
            || file.ends_with("src/store/sign/tests.rs")
    };
    let naming: Vec<_> = rust_files("src").into_iter().filter(code).filter(|f| !apart(f)).collect();
    let homes = ["src/intake/sqs/queue.rs", "src/store/admin.rs", "src/store/credentials.rs"];
    assert_eq!(naming, homes.map(PathBuf::from));
}

/// As above, for a system that takes more than one file.
#[test]
fn kafka_is_named_in_its_intake_alone() {
    let code = |file: &PathBuf| {
        let text = text(file);
        text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("rdkafka::"))
    };
    let naming: Vec<_> = rust_files("src").into_iter().filter(code).collect();
    let at_home = |file: &PathBuf| file.starts_with("src/intake/kafka");
    assert!(!naming.is_empty() && naming.iter().all(at_home), "{naming:?}");
}

/// As above: replacing the client of Kubernetes is a change to one file.
#[test]
fn kubernetes_is_named_in_its_file_alone() {
    let code = |file: &PathBuf| {
        let text = text(file);
        let named = |line: &str| line.contains("kube::") || line.contains("k8s_openapi");
        text.lines().any(|line| !line.trim_start().starts_with("//") && named(line))
    };
    let naming: Vec<_> = rust_files("src").into_iter().filter(code).collect();
    assert_eq!(naming, [Path::new("src/kubernetes.rs")]);
}

/// What lies where in `data_dir` is decided in one place, so that two stages never share a file by chance.
#[test]
fn every_path_below_data_dir_is_made_in_one_file() {
    let joins = |file: &PathBuf| text(file).contains("data_dir.join(");
    let joining: Vec<_> = rust_files("src").into_iter().filter(joins).collect();
    assert!(joining.is_empty(), "{joining:?}: add a method to DataDir in src/data_dir.rs");
}

/// A map that names a place that is gone leads a newcomer astray.
#[test]
fn every_path_that_the_architecture_names_is_there() {
    let map = text(Path::new("src/ARCHITECTURE.md"));
    let paths = map.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|word| {
        let ends = [".rs", ".toml", ".golden", "/"].iter().any(|end| word.ends_with(end));
        ends && !word.contains(' ') && !word.contains("NAME")
    });
    let gone = |path: &&str| !root().join("src").join(path).exists() && !root().join(path).exists();
    let gone: Vec<_> = paths.filter(gone).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

/// A file that no `mod` line names is never compiled: its code is dead and its tests never run.
#[test]
fn every_file_is_reached() {
    for (folder, crate_roots) in [("src", &["lib.rs", "main.rs"][..]), ("tests/it", &["main.rs"])] {
        let mut reached: BTreeSet<_> =
            crate_roots.iter().map(|name| Path::new(folder).join(name)).collect();
        let mut ahead: Vec<_> = reached.iter().cloned().collect();
        while let Some(file) = ahead.pop() {
            let is_root = crate_roots.iter().any(|name| file == Path::new(folder).join(name));
            let below = if is_root { folder.into() } else { file.with_extension("") };
            let text = text(&file);
            let names = text.lines().filter_map(|line| {
                let line = line.split("//").next()?.trim().strip_suffix(';')?;
                let (_, name) = line
                    .split_once("mod ")
                    .filter(|(front, _)| front.is_empty() || front.starts_with("pub"))?;
                Some(below.join(name).with_extension("rs"))
            });
            ahead.extend(names.filter(|name| reached.insert(name.clone())));
        }
        let unreached: Vec<_> = rust_files(folder).difference(&reached).cloned().collect();
        assert!(unreached.is_empty(), "no `mod` line names {unreached:?}");
    }
}

/// Debian is what the tests promise to run on; a script that is not executable fails there.
#[test]
fn the_scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    for script in ["tests/run", "tests/deploy", "tests/peers/install", ".ci/run"] {
        let mode = fs::metadata(root().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script}");
    }
}

/// The README's table is the METRICS table, line by line.
#[test]
fn every_metric_is_documented() {
    let readme = text(Path::new("README.md"));
    let (_, table) = readme.split_once("| metric | kind | meaning |\n|---|---|---|\n").unwrap();
    let documented: Vec<_> = table.lines().take_while(|line| !line.is_empty()).collect();
    let there_are: Vec<_> = evermirror::metrics::METRICS
        .iter()
        .map(|metric| format!("| `{}` | {} | {} |", metric.name, metric.kind, metric.help))
        .collect();
    assert_eq!(documented, there_are);
}
