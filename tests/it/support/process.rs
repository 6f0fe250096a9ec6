//! A server's process, which never outlives the tests.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Starts the server, tells its pid, and kills it when the tests close the pipe: on drop, but also
/// when they panic, exit with servers in statics, or are killed. Then nobody else would remove its
/// directory; unless told to keep it, the guardian does.
const GUARDIAN: &str = r#"
trap '' INT TERM
"$@" </dev/null >>"$ROOM/log" 2>&1 &
echo $!
read -r fate || fate=remove
exec 2>/dev/null # The shell would tell that its child was killed.
pkill -9 -P $! # ChromeDriver's browser would outlive it.
kill -9 $!
wait $!
[ "$fate" = keep ] || rm -rf "$ROOM"
"#;

/// A running server under its guardian. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub(crate) struct Process {
    guardian: Child,
    pid: u32,
}

impl Process {
    /// Starts `program` with a directory of its own, to which its output goes as `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        room: &Path,
    ) -> Self {
        assert!(program.exists(), "{} is missing: run tests/run", program.display());
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("ROOM", room)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let mut line = String::new();
        let mut answers = BufReader::new(guardian.stdout.take().expect("its output is piped"));
        answers.read_line(&mut line).expect("the guardian tells the pid");
        Self { guardian, pid: line.trim().parse().expect("a pid") }
    }

    /// Kills the server and keeps its directory.
    pub(crate) fn end(mut self) {
        let guardian = self.guardian.stdin.as_mut().expect("its input is piped");
        guardian.write_all(b"keep\n").expect("the guardian listens");
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
