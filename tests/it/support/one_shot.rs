//! A command that ends by itself, while it is at work: `sync`, `verify`, `restore`.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::eventually::{LATER, SOON, eventually};
use super::evermirror::{STOPPING, signal};

/// The command's process, and what it writes. Dropping it kills it; if the test is failing, what it said is
/// shown.
#[derive(Debug)]
pub(crate) struct OneShot {
    child: Child,
    room: TempDir,
}

impl OneShot {
    /// Starts it.
    pub(crate) fn begin(mut command: Command) -> Self {
        let room = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| fs::File::create(room.path().join(name)).expect("a file");
        command.stdout(file("answer")).stderr(file("said"));
        let child = command.spawn().expect("the binary starts");
        Self { child, room }
    }

    /// SIGKILL; it must not have ended before.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child of ours");
        let status = self.child.wait().expect("a child of ours");
        assert_eq!(status.signal(), Some(9), "it had ended before: {status}");
    }

    /// Sends a signal, by its name without `SIG`, and waits until it says that it will stop.
    pub(crate) async fn interrupt(&self, name: &str) {
        signal(&self.child, name);
        eventually("it has noticed the signal", SOON, async || {
            let said = self.said();
            if said.contains(STOPPING) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Waits for its end: how it ended, and its answer, if it was to give one (`--json`).
    pub(crate) async fn ended(mut self) -> (ExitStatus, Option<Value>) {
        let status = eventually("it ends", LATER, async || {
            let status = self.child.try_wait().expect("a child of ours");
            status.ok_or_else(|| format!("it still runs: {}", self.said()))
        })
        .await;
        let answer = fs::read(self.path("answer")).expect("it was made");
        (status, serde_json::from_slice(&answer).ok())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }
}

impl Drop for OneShot {
    fn drop(&mut self) {
        if self.child.try_wait().expect("a child of ours").is_none() {
            self.child.kill().expect("a child of ours");
            self.child.wait().expect("a child of ours");
        }
        if std::thread::panicking() {
            eprintln!("--- what the command said ---\n{}\n---", self.said());
        }
    }
}
