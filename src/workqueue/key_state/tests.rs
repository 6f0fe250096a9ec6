use super::*;

fn pending(lsn: Lsn, origin: Origin) -> Pending {
    let key = crate::object::ObjectKey::new("b", "k");
    Pending::new(&DirtyKey { key, aspects: Aspects::CONTENT, origin, since_ms: 5 }, lsn)
}

fn retry() -> Outcome {
    Outcome::Retry { after: Duration::from_secs(1), class: "transient", reason: "down".into() }
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
    assert_eq!(state.mark(pending(7, Origin::Live)), Effect::None);
    assert_eq!(state.first_lsn(), Some(1));
    let now = Instant::now();
    let effect = state.complete(Outcome::Settled, now, now);
    assert_eq!(effect, Effect::Enqueue(Lane::Live));
    assert_eq!(state.first_lsn(), Some(7));
}

#[test]
fn a_hot_key_waits_for_its_interval_and_is_not_woken_by_more_events() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    state.mark(pending(2, Origin::Live));
    let now = Instant::now();
    let cool = now + Duration::from_millis(40);
    assert_eq!(state.complete(Outcome::Settled, now, cool), Effect::Delay(cool));
    assert_eq!(state.mark(pending(3, Origin::Live)), Effect::None);
    assert_eq!(state.due(now), Effect::None);
    assert_eq!(state.due(cool), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_change_of_a_settled_key_waits_until_it_has_cooled() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    let now = Instant::now();
    let cool = now + Duration::from_millis(40);
    assert_eq!(state.complete(Outcome::Settled, now, cool), Effect::Cool(cool));
    assert_eq!((state.first_lsn(), state.due(now)), (None, Effect::None));
    assert_eq!(state.clone().due(cool), Effect::Remove);
    assert_eq!(state.mark(pending(2, Origin::Live)), Effect::None);
    assert_eq!((state.first_lsn(), state.start()), (Some(2), None));
    assert_eq!(state.due(cool), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_key_whose_turn_comes_later_has_not_failed() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.start();
    let now = Instant::now();
    let later = now + Duration::from_millis(40);
    let outcome = Outcome::Later(Duration::from_millis(40));
    assert_eq!(state.complete(outcome, now, now), Effect::Delay(later));
    assert_eq!(state.work().unwrap().attempts, 0);
    assert_eq!(state.due(later), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_failed_key_keeps_its_oldest_record_and_counts_its_tries() {
    let mut state = KeyState::Ready(pending(3, Origin::Live));
    state.start();
    state.mark(pending(9, Origin::Live));
    let now = Instant::now();
    let effect = state.complete(retry(), now, now);
    assert_eq!(effect, Effect::Delay(now + Duration::from_secs(1)));
    assert_eq!((state.first_lsn(), state.work().unwrap().attempts), (Some(3), 1));
}

#[test]
fn a_live_event_wakes_a_parked_key_and_a_repair_does_not() {
    let mut state = KeyState::Ready(pending(3, Origin::Live));
    state.start();
    let now = Instant::now();
    state.complete(retry(), now, now);
    assert_eq!(state.mark(pending(4, Origin::Repair)), Effect::None);
    assert_eq!(state.mark(pending(5, Origin::Live)), Effect::Enqueue(Lane::Live));
}

#[test]
fn a_key_that_was_woken_and_failed_again_waits_for_its_new_time() {
    let mut state = KeyState::Ready(pending(3, Origin::Live));
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    state.start();
    state.complete(retry(), now, now);
    state.mark(pending(4, Origin::Live));
    state.start();
    state.complete(retry(), now + Duration::from_millis(500), now);
    assert_eq!(state.due(later), Effect::None, "the first wait's time");
    assert_eq!(state.due(later + Duration::from_millis(500)), Effect::Enqueue(Lane::Live));
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
    assert_eq!(state.mark(pending(2, Origin::Repair)), Effect::None);
    assert_eq!(state.mark(pending(3, Origin::Live)), Effect::Enqueue(Lane::Live));
    assert_eq!(state.mark(pending(4, Origin::Repair)), Effect::None);
}

#[test]
fn a_mark_in_flight_older_than_the_appended_again_record_is_still_needed() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.rebase(100);
    state.start();
    state.mark(pending(60, Origin::Live));
    assert_eq!(state.first_lsn(), Some(60));
}

#[test]
fn an_appended_again_record_frees_the_old_one() {
    let mut state = KeyState::Ready(pending(1, Origin::Live));
    state.rebase(100);
    assert_eq!(state.first_lsn(), Some(100));
}
