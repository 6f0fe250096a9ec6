use std::sync::Arc;

use super::testing::{Room, TestDisk, directory, files, open, options};
use super::*;

const SEGMENT: u64 = 64 << 10;

fn disk() -> Arc<TestDisk> {
    Arc::default()
}

fn payload(n: u64) -> Vec<u8> {
    format!("record {n}").into_bytes()
}

async fn append(journal: &Journal, numbers: std::ops::Range<u64>) -> Result<Lsn, AppendError> {
    journal.append(numbers.map(payload).collect()).await
}

/// Reads records `numbers` and compares them.
async fn expect(cursor: &mut Cursor, numbers: std::ops::Range<u64>) {
    let mut next = numbers.start;
    while next < numbers.end {
        let most = usize::try_from(numbers.end - next).unwrap().min(1000);
        for record in cursor.next(most).await.unwrap() {
            assert_eq!((record.lsn, &record.payload[..]), (next, &payload(next)[..]));
            next += 1;
        }
    }
    assert_eq!(next, numbers.end);
}

#[tokio::test]
async fn the_first_record_is_1_and_appends_follow_each_other() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!((recovery.first_lsn, recovery.next_lsn), (1, 1));
    assert_eq!(append(&journal, 1..2).await.unwrap(), 1);
    assert_eq!(append(&journal, 2..5).await.unwrap(), 4);
    assert_eq!(append(&journal, 5..5).await.unwrap(), 4, "nothing to do");
    expect(&mut cursor, 1..5).await;
    assert_eq!(cursor.position(), 5);
    journal.close().await;
}

#[tokio::test]
async fn only_one_process_uses_a_directory() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    let second = Journal::open(options(dir.path(), SEGMENT));
    assert!(matches!(second, Err(JournalError::InUse { .. })));
    journal.close().await;
    let (journal, ..) = Journal::open(options(dir.path(), SEGMENT)).unwrap();
    journal.close().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_rest_goes_on() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    let record = journal.append(vec![vec![0; MAX_PAYLOAD + 1]]).await;
    assert!(matches!(record, Err(AppendError::TooLarge { .. })));
    let call = journal.append(vec![vec![0; 1000]; 64]).await;
    assert!(matches!(call, Err(AppendError::TooLarge { .. })));
    assert_eq!(append(&journal, 1..2).await.unwrap(), 1);
    journal.close().await;
}

#[tokio::test]
async fn a_failed_sync_poisons_for_ever() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..3).await.unwrap();
    disk.break_sync();
    let refused = append(&journal, 3..4).await;
    assert!(matches!(refused, Err(AppendError::Poisoned(JournalError::Io { .. }))));
    assert!(matches!(journal.failed().await, JournalError::Io { .. }));
    assert!(matches!(append(&journal, 4..5).await, Err(AppendError::Poisoned(_))));
    expect(&mut cursor, 1..4).await;
    assert!(matches!(cursor.next(1).await, Err(JournalError::Io { .. })));
    journal.close().await;
}

#[tokio::test]
async fn a_record_is_delivered_during_its_sync_and_answered_and_trimmed_after_it() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..3).await.unwrap();
    disk.hold_sync(true);
    let appending = tokio::spawn({
        let journal = journal.clone();
        async move { append(&journal, 3..5).await }
    });
    expect(&mut cursor, 1..5).await;
    journal.trim(5);
    let stats = journal.stats();
    assert!(!appending.is_finished());
    assert_eq!((stats.durable_lsn, stats.trimmed_lsn), (2, 3));
    disk.hold_sync(false);
    assert_eq!(appending.await.unwrap().unwrap(), 4);
    journal.trim(5);
    assert_eq!(journal.stats().trimmed_lsn, 5);
    journal.close().await;
}

#[tokio::test]
async fn after_close_appends_are_refused_and_the_cursor_ends() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..3).await.unwrap();
    journal.close().await;
    assert!(matches!(append(&journal, 3..4).await, Err(AppendError::Closed)));
    expect(&mut cursor, 1..3).await;
    assert!(matches!(cursor.next(1).await, Err(JournalError::Closed)));
    journal.close().await;
}

/// Appends until the journal is full; returns the number of the first refused record.
async fn fill(journal: &Journal, mut next: u64) -> u64 {
    loop {
        match append(journal, next..next + 50).await {
            Ok(_) => next += 50,
            Err(AppendError::Full(_)) => return next,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Appends the same records until there is room.
async fn append_when_room(journal: &Journal, numbers: std::ops::Range<u64>) {
    while let Err(error) = append(journal, numbers.clone()).await {
        assert!(matches!(error, AppendError::Full(_)), "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_journal_refuses_and_works_again_after_a_trim() {
    let (dir, disk) = (directory(), disk());
    let max_size = 10 * SEGMENT;
    let limited = JournalOptions { max_size, ..options(dir.path(), SEGMENT) };
    let (journal, mut cursor, _) = open(&disk, limited);
    let next = fill(&journal, 1).await;
    let stats = journal.stats();
    let reserve = SEGMENT + SEGMENT / 4;
    assert!(stats.full && stats.bytes_on_disk <= max_size + reserve);
    expect(&mut cursor, 1..next).await;
    journal.trim(next);
    append_when_room(&journal, next..next + 50).await;
    assert!(!journal.stats().full);
    expect(&mut cursor, next..next + 50).await;
    journal.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_without_poison_and_passes() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..51).await.unwrap();
    disk.fill(Room::None);
    let next = fill(&journal, 51).await;
    assert_eq!(next, 51, "a write that arrived in part is not acknowledged");
    disk.fill(Room::Enough);
    append_when_room(&journal, next..next + 50).await;
    expect(&mut cursor, 1..next + 50).await;
    journal.close().await;
    let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!((recovery.damage.len(), recovery.torn_tail), (0, None));
    expect(&mut cursor, 1..next + 50).await;
    journal.close().await;
}

#[tokio::test]
async fn a_journal_on_a_full_disk_opens_so_that_its_backlog_can_be_worked_off() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..51).await.unwrap();
    journal.close().await;
    disk.fill(Room::InPlace);
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!(fill(&journal, 51).await, 51);
    expect(&mut cursor, 1..51).await;
    disk.fill(Room::Enough);
    journal.trim(51);
    append_when_room(&journal, 51..52).await;
    expect(&mut cursor, 51..52).await;
    journal.close().await;
}

#[tokio::test]
async fn finished_segments_are_removed_and_a_restart_begins_behind_them() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    for n in 0..200 {
        append(&journal, n * 50 + 1..n * 50 + 51).await.unwrap();
    }
    expect(&mut cursor, 1..10_001).await;
    let before = files(dir.path(), ".segment").len();
    journal.trim(9_990);
    journal.close().await;
    assert!(before > 4 && files(dir.path(), ".segment").len() == 1);
    let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!((recovery.first_lsn, recovery.next_lsn), (9_990, 10_001));
    expect(&mut cursor, 9_990..10_001).await;
    journal.close().await;
}

#[tokio::test]
async fn a_backlog_larger_than_memory_allows_is_read_back_from_disk() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), 1 << 20));
    for n in 0..400 {
        append(&journal, n * 500 + 1..n * 500 + 501).await.unwrap();
    }
    assert!(journal.stats().segments > 5);
    expect(&mut cursor, 1..200_001).await;
    append(&journal, 200_001..200_002).await.unwrap();
    expect(&mut cursor, 200_001..200_002).await;
    journal.close().await;
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), 1 << 20));
    expect(&mut cursor, 1..200_002).await;
    journal.close().await;
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..1001).await.unwrap();
    journal.close().await;
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    let mut read = 0;
    while read < 1000 {
        // Polled once, then dropped, whether or not it was ready.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::pin!(cursor.next(3)).poll(context))
        });
        if let std::task::Poll::Ready(records) = polled.await {
            for record in records.unwrap() {
                read += 1;
                assert_eq!(record.lsn, read);
            }
        }
        tokio::task::yield_now().await;
    }
    journal.close().await;
}

#[tokio::test]
async fn a_dropped_append_leaves_the_journal_whole() {
    let (dir, disk) = (directory(), disk());
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    {
        let mut append = Some(Box::pin(append(&journal, 1..2)));
        std::future::poll_fn(|context| {
            drop(append.take().map(|mut append| append.as_mut().poll(context)));
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert_eq!(append(&journal, 2..3).await.unwrap(), 2);
    expect(&mut cursor, 1..3).await;
    journal.close().await;
}

#[tokio::test]
async fn a_damaged_segment_is_kept_aside_once_and_reported_until_it_is_finished() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    for n in 1..=40 {
        append(&journal, n..n + 1).await.unwrap();
    }
    journal.close().await;
    let path = files(dir.path(), ".segment").remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    // The sector of some record in the middle; its seal, in the next one, still names it.
    bytes[10 * 512..11 * 512].fill(0);
    std::fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
        let [damage] = &recovery.damage[..] else { panic!("{recovery:?}") };
        assert_eq!((damage.missing.clone(), recovery.next_lsn), (10..=10, 41));
        assert!(damage.quarantined.as_ref().unwrap().exists());
        assert_eq!(recovery.quarantined, 1);
        assert_eq!(files(dir.path(), ".damaged").len(), 1);
        expect(&mut cursor, 1..10).await;
        assert_eq!(cursor.next(1).await.unwrap()[0].lsn, 11);
        journal.close().await;
    }
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    journal.trim(41);
    journal.close().await;
    let (journal, _, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!(recovery.damage, []);
    journal.close().await;
}

#[tokio::test]
async fn a_lost_checkpoint_replays_what_is_on_disk() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..11).await.unwrap();
    journal.trim(8);
    journal.close().await;
    std::fs::remove_file(dir.path().join("checkpoint")).unwrap();
    let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!((recovery.first_lsn, recovery.next_lsn, recovery.damage.len()), (1, 11, 0));
    expect(&mut cursor, 1..11).await;
    journal.close().await;
}

#[tokio::test]
async fn a_payload_that_looks_like_frames_is_only_a_payload() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    append(&journal, 1..3).await.unwrap();
    let path = files(dir.path(), ".segment").remove(0);
    // Frames of an older segment of the same journal, within the payload of a record that breaks.
    let forged = std::fs::read(path).unwrap()[512..1500].to_vec();
    journal.close().await;
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!(journal.append(vec![forged, payload(4)]).await.unwrap(), 4);
    journal.close().await;
    let path = files(dir.path(), ".segment").remove(1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[512..1024].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!(recovery.damage[0].missing, 3..=3);
    expect(&mut cursor, 1..3).await;
    let behind = cursor.next(10).await.unwrap();
    assert_eq!(behind, [Record { lsn: 4, payload: payload(4).into() }]);
    journal.close().await;
}

#[tokio::test]
async fn a_process_that_dies_without_closing_loses_nothing() {
    let dir = directory();
    for round in 0..3 {
        let write =
            JournalOptions { durability: Durability::Write, ..options(dir.path(), SEGMENT) };
        let (journal, mut cursor, recovery) = Journal::open(write).unwrap();
        let next = round * 10 + 1;
        assert_eq!((recovery.next_lsn, recovery.damage.len()), (next, 0));
        append(&journal, next..next + 10).await.unwrap();
        expect(&mut cursor, 1..next + 10).await;
        let shared = Arc::clone(&journal.shared);
        drop((journal, cursor));
        shared.stopped().await;
    }
}

/// Waits until the journal, at which nobody appends meanwhile, is as it should be.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_journal_takes_what_makes_room_and_still_refuses_what_is_new() {
    let (dir, disk) = (directory(), disk());
    let limited = JournalOptions { max_size: 10 * SEGMENT, ..options(dir.path(), SEGMENT) };
    let (journal, ..) = open(&disk, limited.clone());
    let mut next = fill(&journal, 1).await;
    journal.close().await;
    for _ in 0..2 {
        // In the first round it is a restart that finds it full.
        let (journal, mut cursor, _) = open(&disk, limited.clone());
        assert!(matches!(append(&journal, next..next + 50).await, Err(AppendError::Full(_))));
        // Of each fifty records one is still needed, and takes a new place.
        while journal.stats().full {
            let ends = journal.oldest_segment_ends().unwrap();
            let needed = (cursor.position()..ends).filter(|lsn| lsn % 50 == 0).count();
            let kept = vec![b"needed".to_vec(); needed];
            next = journal.append_as(Claim::Rewrite, kept).await.unwrap() + 1;
            while cursor.position() < ends {
                let most = usize::try_from(ends - cursor.position()).unwrap();
                cursor.next(most).await.unwrap();
            }
            journal.trim(ends);
            tokio::task::yield_now().await;
        }
        append_when_room(&journal, next..next + 50).await;
        assert!(journal.stats().bytes_on_disk <= 13 * SEGMENT);
        next = fill(&journal, next + 50).await;
        journal.close().await;
    }
}

#[tokio::test]
async fn on_a_full_disk_a_reserve_takes_what_makes_room_also_after_a_restart() {
    let (dir, disk) = (directory(), disk());
    let (journal, ..) = open(&disk, options(dir.path(), SEGMENT));
    for n in 0..100 {
        append(&journal, n * 50 + 1..n * 50 + 51).await.unwrap();
    }
    until(|| files(dir.path(), ".reserve").len() == 1).await;
    disk.fill(Room::InPlace);
    let next = fill(&journal, 5_001).await;
    journal.close().await;
    let (journal, mut cursor, _) = open(&disk, options(dir.path(), SEGMENT));
    assert!(journal.stats().full, "it is known before anybody was refused");
    assert!(matches!(append(&journal, next..next + 1).await, Err(AppendError::Full(_))));
    let back = journal.append_as(Claim::Return, vec![payload(next)]).await;
    assert!(matches!(back, Err(AppendError::Full(_))), "the reserve is for what makes room");
    for lsn in next..next + 100 {
        let again = journal.append_as(Claim::Rewrite, vec![payload(lsn)]).await;
        assert_eq!(again.unwrap(), lsn);
    }
    assert!(matches!(append(&journal, next..next + 1).await, Err(AppendError::Full(_))));
    expect(&mut cursor, 1..next + 100).await;
    journal.close().await;
    let (journal, mut cursor, recovery) = open(&disk, options(dir.path(), SEGMENT));
    assert_eq!((recovery.next_lsn, recovery.damage.len()), (next + 100, 0));
    expect(&mut cursor, 1..next + 100).await;
    disk.fill(Room::Enough);
    append_when_room(&journal, next + 100..next + 101).await;
    until(|| files(dir.path(), ".reserve").len() == 1).await;
    journal.close().await;
}

#[tokio::test]
async fn a_journal_that_was_full_says_that_it_has_room_although_nobody_appends() {
    let (dir, disk) = (directory(), disk());
    let limited = JournalOptions { max_size: 10 * SEGMENT, ..options(dir.path(), SEGMENT) };
    let (journal, mut cursor, _) = open(&disk, limited);
    let next = fill(&journal, 1).await;
    expect(&mut cursor, 1..next).await;
    journal.trim(next);
    until(|| !journal.stats().full).await;
    assert_eq!(append(&journal, next..next + 1).await.unwrap(), next);
    journal.close().await;
}
