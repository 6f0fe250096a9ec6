//! A real file system that is soon full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A tmpfs of its own, unmounted on drop. Mounting needs root, which the tests have in a container.
#[derive(Debug)]
pub(crate) struct TinyDisk(TempDir);

impl TinyDisk {
    /// Mounts a file system of so many MiB.
    pub(crate) fn mount(mib: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "evermirror-tests"])
            .arg(directory.path())
            .output()
            .expect("mount can be run");
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test needs root, to mount a small tmpfs: {said}");
        Self(directory)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes up all space that is left, with one file.
    pub(crate) fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        // Down to single bytes, so that not even a page is left.
        for size in [1 << 16, 1] {
            let refused =
                std::iter::repeat_with(|| file.write_all(&vec![1; size])).find_map(Result::err);
            assert_eq!(refused.unwrap().kind(), ErrorKind::StorageFull);
        }
    }

    /// Gives that space back.
    pub(crate) fn relieve(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily: a process that is about to be killed may still have files open on it.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{:?} stays mounted", self.path());
    }
}
