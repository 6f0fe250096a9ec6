//! A sector of the journal is lost while evermirror is down.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::eventually::{LATER, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::site::{Servers, Setup};

const SECTOR: usize = 512;

/// The journal's files whose names end like this.
fn files(journal: &Path, suffix: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == suffix)).collect()
}

/// Overwrites the one sector in which `word` begins, as a disk that lost it would show it.
fn lose_the_sector_of(journal: &Path, word: &str) {
    let mut lost = 0;
    for path in files(journal, "segment") {
        let bytes = fs::read(&path).unwrap();
        let places = bytes.windows(word.len()).enumerate();
        for (at, _) in places.filter(|(_, found)| *found == word.as_bytes()) {
            let file = File::options().write(true).open(&path).unwrap();
            let sector = (at / SECTOR * SECTOR) as u64;
            file.write_all_at(&[0xA5; SECTOR], sector).unwrap();
            lost += 1;
        }
    }
    assert_eq!(lost, 1, "{word:?} is not in the journal once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_reported_and_everything_else_in_it_arrives() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let mut site = servers.site("damaged", setup).await;
    for number in 10..50 {
        site.put(&format!("object-{number}"), format!("value {number}")).await;
    }
    site.evermirror.kill();
    let journal = site.evermirror.data_dir().join("journal");
    lose_the_sector_of(&journal, "object-30");
    site.evermirror.start().await;
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["gaps"][0]["bucket"], "damaged", "{status}");
    assert_eq!(status["gaps"][0]["reason"], "journal_damaged", "{status}");
    let log = site.evermirror.log();
    let told = |line: &str| {
        line.contains("ERROR") && line.contains("damaged on disk") && line.contains(".segment")
    };
    assert!(log.lines().any(told), "no error tells of the damage: {log}");
    assert_eq!(files(&journal, "damaged").len(), 1, "the segment is not kept for examination");

    proxy.behave();
    // The journal brings all others, and the reconcile that the gap asked for the one that was lost.
    site.converges(LATER).await;
    eventually("a reconcile closes the gap", LATER, async || {
        let status = site.evermirror.status().await?;
        (status["gaps"] == serde_json::json!([])).then_some(()).ok_or(status.to_string())
    })
    .await;
    let found = site.evermirror.metric("evermirror_drift_total{kind=\"missing\"}").await;
    assert!(found.is_some_and(|keys| keys >= 1.0), "the sector was not lost at all: {found:?}");
}
