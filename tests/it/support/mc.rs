//! `mc admin`, as an operator uses it: users with policies of their own.

use std::process::Command;

use serde_json::Value;

use super::minio::{ACCESS_KEY, SECRET_KEY};
use super::process::peer;

/// The secret key of every user made here.
pub(crate) const USER_SECRET: &str = "a-secret-of-the-tests";

/// Makes a user of this name at `authority` (`host:port`) who may do what `policy` says, and no more.
pub(crate) fn user(authority: &str, name: &str, policy: &Value) {
    let room = tempfile::tempdir().expect("a temporary directory");
    let file = room.path().join("policy.json");
    std::fs::write(&file, policy.to_string()).expect("a file");
    let file = file.display().to_string();
    let mc = |arguments: &[&str]| admin(authority, arguments);
    mc(&["user", "add", "it", name, USER_SECRET]);
    mc(&["policy", "create", "it", name, &file]);
    mc(&["policy", "attach", "it", name, "--user", name]);
}

/// No bucket of this name may grow beyond `size` (`1KiB`).
pub(crate) fn quota(authority: &str, bucket: &str, size: &str) {
    run(authority, &["quota", "set", &format!("it/{bucket}"), "--size", size]);
}

/// `mc admin ARGUMENTS`, the store being called `it`.
pub(crate) fn admin(authority: &str, arguments: &[&str]) {
    run(authority, &[&["admin"], arguments].concat());
}

fn run(authority: &str, arguments: &[&str]) {
    let room = tempfile::tempdir().expect("a temporary directory");
    let program = peer("mc");
    assert!(program.exists(), "{} is missing: run tests/run", program.display());
    let output = Command::new(program)
        .args(["--config-dir", &room.path().display().to_string(), "--quiet"])
        .args(arguments)
        .env("MC_HOST_it", format!("http://{ACCESS_KEY}:{SECRET_KEY}@{authority}"))
        .output()
        .expect("mc starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mc {arguments:?}: {said}");
}
