use super::*;
use crate::object::ObjectKey;

fn pending(lsn: Lsn, origin: Origin) -> Pending {
    let key = ObjectKey::new("b", "k");
    Pending::new(&DirtyKey { key, aspects: Aspects::CONTENT, origin, since_ms: 5, size: None }, lsn)
}

#[test]
fn the_size_is_what_the_newest_mark_that_knew_it_told() {
    let sized = |lsn, size| Pending { size: one_more(size), ..pending(lsn, Origin::Live) };
    let now = Instant::now();
    let mut state = KeyState::Ready(sized(2, Some(20)));
    state.mark(sized(1, Some(10)), now);
    assert_eq!(state.size(), Some(20), "what was read again after a restart is older");
    state.mark(sized(3, None), now);
    assert_eq!(state.size(), Some(20), "an event about tags may tell no size");
    state.start();
    state.mark(sized(4, Some(40)), now);
    assert_eq!(state.size(), Some(40));
    state.complete(Outcome::Settled, now, now);
    assert_eq!(state.size(), Some(40));
}

fn retry() -> Outcome {
    Outcome::Retry { after: Duration::from_secs(1), class: "transient", reason: "down".into() }
}

#[test]
fn an_event_that_says_present_takes_back_an_older_removal_and_no_pass_gainsays_it() {
    let marked = |lsn, origin, aspects| Pending { aspects, ..pending(lsn, origin) };
    let created = |lsn| marked(lsn, Origin::Live, Aspects::CONTENT);
    let removed = |lsn| marked(lsn, Origin::Live, Aspects::REMOVED);
    let merged = |first: &Pending, second: &Pending| {
        let mut one = first.clone();
        one.merge(second);
        one.is_reported_present()
    };
    for (older, newer, present) in [
        (removed(1), created(2), true),
        (created(1), removed(2), false),
        (created(1), marked(2, Origin::Repair, Aspects::REMOVED), true),
        (marked(1, Origin::Repair, Aspects::REMOVED), created(2), true),
    ] {
        assert_eq!(merged(&older, &newer), present, "{older:?} {newer:?}");
        assert_eq!(merged(&newer, &older), present, "in whatever order they are read");
    }
}

#[test]
fn a_delete_that_is_reported_anew_has_not_waited_for_its_delay() {
    let due = Aspects::REMOVED.with(Aspects::DUE);
    let mut work = Pending { aspects: due, ..pending(1, Origin::Live) };
    work.merge(&Pending { aspects: Aspects::REMOVED, ..pending(2, Origin::Repair) });
    assert!(work.aspects.has(Aspects::DUE), "a pass found what waits");
    work.merge(&Pending { aspects: Aspects::REMOVED, ..pending(3, Origin::Live) });
    assert!(!work.aspects.has(Aspects::DUE));
}

#[test]
fn what_the_source_does_not_show_yet_waits_until_an_event_says_that_it_went_away() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let effect = state.complete(Outcome::Unseen(Duration::from_secs(1)), now, now);
    assert_eq!(effect, Effect::Delay(later));
    assert_eq!(state.work().map(|work| (work.unseen, work.attempts)), Some((1, 0)));
    assert_eq!(state.mark(pending(2, Origin::Live), now), Effect::None, "the same, told twice");
    let removed = Pending { aspects: Aspects::REMOVED, ..pending(3, Origin::Live) };
    assert_eq!(state.mark(removed, now), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_key_takes_little_memory() {
    assert!(size_of::<KeyState>() <= 72, "{} bytes", size_of::<KeyState>());
}

#[test]
fn a_ready_key_is_started_once() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    assert!(state.start().is_some());
    assert_eq!(state.start(), None);
}

#[test]
fn a_change_that_arrives_in_flight_is_worked_on_again() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    assert_eq!(state.mark(pending(7, Origin::Live), Instant::now()), Effect::None);
    assert_eq!(state.first_lsn(), Some(1));
    let now = Instant::now();
    let effect = state.complete(Outcome::Settled, now, now);
    assert_eq!(effect, Effect::Enqueue(Lane::Live));
    assert_eq!(state.first_lsn(), Some(7));
}

#[test]
fn a_key_that_was_settled_a_moment_ago_is_not_ready_before_its_interval_has_passed() {
    let now = Instant::now();
    let cool = now + Duration::from_millis(40);
    let settled = || {
        let mut state = KeyState::Ready(pending(1, Origin::Live));
        state.start();
        assert_eq!(state.complete(Outcome::Settled, now, cool), Effect::Delay(cool));
        assert_eq!(state.first_lsn(), None, "nothing is left to do");
        state
    };
    let mut state = settled();
    assert_eq!(state.mark(pending(2, Origin::Live), Instant::now()), Effect::None);
    assert_eq!(state.first_lsn(), Some(2));
    assert_eq!(state.due(now), Effect::None);
    assert_eq!(state.due(cool), Effect::Enqueue(Lane::Live));
    // Without a further mark it is forgotten.
    assert_eq!(settled().due(cool), Effect::Remove);
}

#[test]
fn a_hot_key_waits_for_its_interval_and_is_not_woken_by_more_events() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    state.mark(pending(2, Origin::Live), Instant::now());
    let now = Instant::now();
    let cool = now + Duration::from_millis(40);
    assert_eq!(state.complete(Outcome::Settled, now, cool), Effect::Delay(cool));
    assert_eq!(state.mark(pending(3, Origin::Live), Instant::now()), Effect::None);
    assert_eq!(state.due(now), Effect::None);
    assert_eq!(state.due(cool), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_failed_key_keeps_its_oldest_record_and_counts_its_tries() {
    let mut state = KeyState::Ready(pending(3, Origin::Live));
    state.start();
    state.mark(pending(9, Origin::Live), Instant::now());
    let now = Instant::now();
    let effect = state.complete(retry(), now, now);
    assert_eq!(effect, Effect::Delay(now + Duration::from_secs(1)));
    assert_eq!(state.work().map(|work| (work.first_lsn, work.attempts)), Some((3, 1)));
}

/// A key that failed now, and waits as long as this.
fn parked(now: Instant, after: Duration) -> KeyState {
    let mut state = KeyState::Ready(pending(3, Origin::Live));
    state.start();
    let failed = Outcome::Retry { after, class: "transient", reason: "down".into() };
    assert_eq!(state.complete(failed, now, now), Effect::Delay(now + after));
    state
}

#[test]
fn a_live_event_brings_a_parked_key_forward_and_a_repair_does_not() {
    let now = Instant::now();
    let mut state = parked(now, Duration::from_secs(80));
    let (soon, later) = (now + Duration::from_secs(10), now + Duration::from_secs(11));
    for origin in [Origin::Repair, Origin::LiveAgain] {
        assert_eq!(state.mark(pending(4, origin), later), Effect::None);
    }
    assert_eq!(state.mark(pending(5, Origin::Live), now), Effect::Delay(soon));
    assert_eq!(state.due(now + Duration::from_secs(9)), Effect::None);
    assert_eq!(state.due(soon), Effect::Enqueue(Lane::Live));
    let mut state = parked(now, Duration::from_secs(80));
    let woken = state.mark(pending(5, Origin::Live), later);
    assert_eq!(woken, Effect::Enqueue(Lane::Live), "it has waited long enough");
}

#[test]
fn however_many_live_events_a_failing_key_is_tried_no_sooner_than_after_its_least_wait() {
    let now = Instant::now();
    for (wait, least) in [(80, 10), (4, 1), (3_600, 15)] {
        let mut state = parked(now, Duration::from_secs(wait));
        let mut entries = 0;
        for lsn in 4..100_000 {
            match state.mark(pending(lsn, Origin::Live), now + Duration::from_millis(500)) {
                Effect::None => {}
                Effect::Delay(until) => {
                    entries += 1;
                    assert_eq!(until, now + Duration::from_secs(least));
                }
                Effect::Enqueue(_) | Effect::Remove => panic!("it is tried too soon"),
            }
        }
        assert_eq!(entries, 1, "in the delay queue, beside the one it has");
    }
    let mut state = parked(now, Duration::from_millis(100));
    assert_eq!(state.mark(pending(4, Origin::Live), now), Effect::None, "it waits less anyway");
}

#[test]
fn a_key_that_was_woken_and_failed_again_waits_for_its_new_time() {
    let now = Instant::now();
    let mut state = parked(now, Duration::from_secs(8));
    let first = now + Duration::from_secs(8);
    let woken = now + Duration::from_secs(1);
    assert_eq!(state.mark(pending(4, Origin::Live), woken), Effect::Enqueue(Lane::Live));
    state.start();
    let failed = Outcome::Retry {
        after: Duration::from_secs(16),
        class: "transient",
        reason: "down".into(),
    };
    state.complete(failed, woken, woken);
    assert_eq!(state.due(first), Effect::None, "the first wait's time");
    let second = woken + Duration::from_secs(16);
    assert_eq!(state.due(second), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_key_found_to_be_large_moves_to_the_large_lane() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    let now = Instant::now();
    let effect = state.complete(Outcome::Large, now, now);
    assert_eq!(effect, Effect::Enqueue(Lane::Large));
}

#[test]
fn a_live_event_takes_a_waiting_repair_to_the_live_lane() {
    let mut state = KeyState::Ready(pending(1, Origin::Repair));
    assert_eq!(state.mark(pending(2, Origin::Repair), Instant::now()), Effect::None);
    assert_eq!(state.mark(pending(3, Origin::Live), Instant::now()), Effect::Enqueue(Lane::Live));
    assert_eq!(state.mark(pending(4, Origin::Repair), Instant::now()), Effect::None);
}

#[test]
fn a_mark_in_flight_older_than_the_appended_again_record_is_still_needed() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.rebase(100);
    state.start();
    state.mark(pending(60, Origin::Live), Instant::now());
    assert_eq!(state.first_lsn(), Some(60));
}

#[test]
fn an_appended_again_record_frees_the_old_one() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.rebase(100);
    assert_eq!(state.first_lsn(), Some(100));
}

#[test]
fn a_new_report_that_an_object_is_there_is_believed_as_long_as_the_first_one() {
    let mut old = Pending { unseen: 6, ..pending(1, Origin::Live) };
    old.merge(&pending(2, Origin::Live));
    assert_eq!(old.unseen, 1, "it still waits for the source");
    old.unseen = 3;
    old.merge(&Pending { aspects: Aspects::CHECK, ..pending(3, Origin::Repair) });
    assert_eq!(old.unseen, 3, "a pass is no report");
}

#[test]
fn a_decision_about_deletes_concerns_the_removal_and_no_older_event() {
    let mark = |aspects, origin, lsn| {
        let key = ObjectKey::new("b", "k");
        Pending::new(&DirtyKey { key, aspects, origin, since_ms: 1, size: None }, lsn)
    };
    let merged = |marks: &[(Aspects, Origin)]| {
        let marks =
            marks.iter().zip(1..).map(|((aspects, origin), lsn)| mark(*aspects, *origin, lsn));
        let all = marks.reduce(|mut all, mark| {
            all.merge(&mark);
            all
        });
        all.unwrap()
    };
    let (put, gone) = ((Aspects::CONTENT, Origin::Live), (Aspects::REMOVED, Origin::Live));
    let found = (Aspects::REMOVED, Origin::Repair);
    assert_eq!(merged(&[put, put]).removal(), 2, "nothing told of it: all must have come before");
    assert_eq!(merged(&[put, gone, gone, found]).removal(), 2);
    assert_eq!(merged(&[gone, put, gone]).removal(), 3, "the first was taken back");
    let discarded = (Aspects::REMOVED.with(Aspects::DISCARDED), Origin::LiveAgain);
    assert!(merged(&[discarded, gone]).aspects.has(Aspects::DISCARDED));
    assert!(!merged(&[discarded, put, gone]).aspects.has(Aspects::DISCARDED));

    let approved = (Aspects::REMOVED.with(Aspects::APPROVED), Origin::Live);
    assert_eq!(merged(&[gone, approved]).removal(), 2, "a discard before it is taken back");
    assert_eq!(merged(&[gone, approved, gone]).removal(), 2, "and one after it takes it back");
    let both = merged(&[discarded, approved]).aspects;
    assert!(both.has(Aspects::APPROVED) && !both.has(Aspects::DISCARDED));
}

#[test]
fn an_older_removal_that_is_told_late_and_again_takes_back_no_newer_report_that_the_object_is_there()
 {
    let mark = |aspects, since_ms, lsn| {
        let key = ObjectKey::new("b", "k");
        let dirty = DirtyKey { key, aspects, origin: Origin::Live, since_ms, size: None };
        Pending::new(&dirty, lsn)
    };
    let mut there = mark(Aspects::CONTENT, 1_000, 1);
    for lsn in 2..4 {
        there.merge(&mark(Aspects::REMOVED, 999, lsn));
        assert!(there.is_reported_present());
        assert_eq!((there.first_lsn, there.last_lsn, there.since_ms), (1, lsn, 1_000));
    }
    let mut newer = mark(Aspects::REMOVED, 1_000, 9);
    newer.merge(&there);
    assert!(newer.aspects.has(Aspects::REMOVED), "of the same millisecond: their order decides");
    there.merge(&mark(Aspects::REMOVED, 1_001, 5));
    assert!(there.aspects.has(Aspects::REMOVED));
}

#[test]
fn what_was_appended_again_or_set_aside_never_counts_as_newer_than_what_was_reported_since() {
    let mark = |aspects, origin, lsn| Pending {
        removal: if aspects == Aspects::CONTENT { 0 } else { lsn },
        aspects,
        ..pending(lsn, origin)
    };
    let merged = |reported: Aspects, from_before: Aspects| {
        let mut all = mark(reported, Origin::Live, 5);
        all.merge(&mark(from_before, Origin::LiveAgain, 9));
        all
    };
    let discarded = Aspects::REMOVED.with(Aspects::DISCARDED);
    let there = merged(Aspects::CONTENT, discarded);
    assert!(there.is_reported_present() && !there.aspects.has(Aspects::DISCARDED));
    let gone = merged(Aspects::REMOVED, Aspects::CONTENT);
    assert_eq!((gone.aspects.has(Aspects::REMOVED), gone.removal()), (true, 5));
    let held = Aspects::REMOVED.with(Aspects::APPROVED);
    let mut approved = mark(held, Origin::Repair, 9);
    approved.merge(&mark(discarded, Origin::LiveAgain, 10));
    assert!(approved.aspects.has(held) && !approved.aspects.has(Aspects::DISCARDED));
    let mut there = mark(Aspects::CONTENT, Origin::Live, 5);
    there.merge(&mark(held, Origin::Live, 9));
    assert!(!there.aspects.has(Aspects::APPROVED), "it came back since it was held");
}
