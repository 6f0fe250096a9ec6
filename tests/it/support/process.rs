//! A server's process, which never outlives the tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Starts the server, tells its pid, and kills it when the tests close the pipe: on drop, but also
/// when they panic, exit with servers in statics, or are killed.
const GUARDIAN: &str = r#"
trap '' INT TERM
"$@" </dev/null >>"$LOG" 2>&1 &
echo $!
cat >/dev/null
exec 2>/dev/null # The shell would tell that its child was killed.
kill -9 $!
wait $!
"#;

/// A running server under its guardian. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    guardian: Child,
    pid: u32,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Self {
        assert!(program.exists(), "{} is missing: run tests/run", program.display());
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let mut line = String::new();
        let mut answers = BufReader::new(guardian.stdout.take().expect("its output is piped"));
        answers.read_line(&mut line).expect("the guardian tells the pid");
        Self { guardian, pid: line.trim().parse().expect("a pid") }
    }

    /// Whether the server still runs.
    pub(crate) fn is_running(&self) -> bool {
        // A zombie waits for the guardian to collect it and has no memory any more.
        fs::read_to_string(format!("/proc/{}/status", self.pid))
            .is_ok_and(|status| status.contains("VmRSS"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        self.guardian.wait().expect("the guardian ends");
    }
}

/// Where tests/peers/install puts the servers.
pub(crate) fn peer(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    cache.join("evermirror-peers/bin").join(name)
}
