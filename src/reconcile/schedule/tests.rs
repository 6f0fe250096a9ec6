use super::*;

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

fn schedule(interval: Duration, names: &[&str]) -> (Schedule, Instant) {
    let now = Instant::now();
    (Schedule::new(interval, names.iter().map(|name| Arc::from(*name)), now), now)
}

/// Runs what is due now, to a complete end.
fn pass(schedule: &mut Schedule, now: Instant, gap: bool) -> Job {
    let job = schedule.next(now).expect("a pass is due");
    schedule.ended(&job, Ended::Complete, gap, now, 0.5);
    job
}

#[test]
fn every_bucket_is_walked_at_the_start_and_then_by_the_interval_give_or_take_a_tenth() {
    let (mut schedule, now) = schedule(HOUR, &["a", "b"]);
    for (name, jitter) in [("a", 0.0), ("b", 1.0)] {
        let job = schedule.next(now).unwrap();
        assert_eq!((&*job.bucket, job.trigger), (name, Trigger::Start));
        schedule.ended(&job, Ended::Complete, false, now, jitter);
    }
    assert_eq!(schedule.wake(), Some(now + HOUR.mul_f64(0.9)));
    assert_eq!(schedule.next(now + HOUR.mul_f64(0.89)), None);
    let job = schedule.next(now + HOUR.mul_f64(1.05)).unwrap();
    assert_eq!((&*job.bucket, job.trigger), ("a", Trigger::Interval));
    assert_eq!(&*schedule.next(now + HOUR.mul_f64(1.11)).unwrap().bucket, "b");
}

#[test]
fn without_an_interval_nothing_is_due_after_the_start() {
    let (mut schedule, now) = schedule(Duration::ZERO, &["a"]);
    pass(&mut schedule, now, false);
    assert_eq!((schedule.wake(), schedule.next(now + HOUR * 1_000)), (None, None));
}

#[test]
fn a_bucket_has_one_pass_at_a_time_and_a_request_meanwhile_is_another_one() {
    let (mut schedule, now) = schedule(HOUR, &["a"]);
    let job = schedule.next(now).unwrap();
    assert!(schedule.request("a", None, now) && schedule.request("a", None, now));
    assert_eq!(schedule.next(now), None);
    schedule.ended(&job, Ended::Complete, false, now, 0.5);
    assert_eq!(pass(&mut schedule, now, false).trigger, Trigger::Request);
    assert_eq!(schedule.next(now), None, "both requests were one");
    assert!(!schedule.request("unknown", None, now));
}

#[test]
fn only_so_many_buckets_are_walked_at_once() {
    let (mut schedule, now) = schedule(HOUR, &["a", "b", "c"]);
    let first = schedule.next(now).unwrap();
    assert!(schedule.next(now).is_some());
    assert_eq!(schedule.next(now), None);
    schedule.ended(&first, Ended::Complete, false, now, 0.5);
    assert_eq!(&*schedule.next(now).unwrap().bucket, "c");
}

#[test]
fn a_gap_is_soon_followed_by_one_pass() {
    let (mut schedule, now) = schedule(HOUR, &["a"]);
    pass(&mut schedule, now, false);
    let later = now + HOUR / 2;
    for tick in 0..3 {
        schedule.gaps(["a", "unknown"].into_iter(), later + SECOND * tick);
    }
    assert_eq!(schedule.wake(), Some(later + GAP_SETTLES));
    assert_eq!(pass(&mut schedule, later + GAP_SETTLES, false).trigger, Trigger::Gap);
    assert_eq!(schedule.next(later + GAP_SETTLES * 2), None);
}

#[test]
fn a_gap_that_never_closes_is_no_endless_loop_of_passes() {
    let (mut schedule, start) = schedule(Duration::ZERO, &["a"]);
    let passes = (0..36_000)
        .map(|second| start + SECOND * second)
        .filter(|now| {
            schedule.gaps(std::iter::once("a"), *now);
            let job = schedule.next(*now);
            job.inspect(|job| schedule.ended(job, Ended::Complete, true, *now, 0.5)).is_some()
        })
        .count();
    // In ten hours: at the start, after 2, 4, … minutes, then hourly.
    assert_eq!(passes, 14);
}

#[test]
fn passes_that_fail_while_there_is_a_gap_come_ever_later_too() {
    let (mut schedule, start) = schedule(HOUR, &["a"]);
    let passes = (0..36_000)
        .map(|second| start + SECOND * second)
        .filter(|now| {
            schedule.gaps(std::iter::once("a"), *now);
            let job = schedule.next(*now);
            job.inspect(|job| schedule.ended(job, Ended::Failed, true, *now, 0.5)).is_some()
        })
        .count();
    assert!((10..=30).contains(&passes), "{passes} in ten hours");
}

#[test]
fn a_failed_pass_is_tried_again_ever_later_but_within_the_interval() {
    let (mut schedule, mut now) = schedule(Duration::from_mins(5), &["a"]);
    let mut waits = Vec::new();
    for _ in 0..7 {
        let job = schedule.next(now).unwrap();
        schedule.ended(&job, Ended::Failed, true, now, 0.5);
        let next = schedule.wake().unwrap();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [15, 30, 60, 120, 240, 300, 300]);
    assert_eq!(pass(&mut schedule, now, false).trigger, Trigger::Retry);
}

#[test]
fn a_resumed_pass_is_followed_by_a_whole_one_at_once() {
    let (mut schedule, now) = schedule(HOUR, &["a"]);
    let job = schedule.next(now).unwrap();
    schedule.ended(&job, Ended::Resumed, true, now, 0.5);
    assert_eq!(pass(&mut schedule, now, false).trigger, Trigger::FollowUp);
}

#[test]
fn prefixes_are_walked_one_by_one_and_too_many_of_them_are_the_whole_bucket() {
    let (mut schedule, now) = schedule(HOUR, &["a"]);
    pass(&mut schedule, now, false);
    for prefix in ["x/", "y/", "x/"] {
        assert!(schedule.request("a", Some(prefix), now));
    }
    for prefix in ["x/", "y/"] {
        assert_eq!(pass(&mut schedule, now, false).prefix.as_deref(), Some(prefix));
    }
    assert_eq!(schedule.next(now), None);
    for number in 0..=MOST_PREFIXES {
        schedule.request("a", Some(&number.to_string()), now);
    }
    assert_eq!(pass(&mut schedule, now, false).prefix, None);
    assert_eq!(schedule.next(now), None, "the whole bucket covers its prefixes");
}

const MINUTE: Duration = Duration::from_mins(1);

/// Runs the schedule a second at a time, with the gap book polled as the reconciler does. `pass` says how long a
/// pass of a bucket takes; a complete one clears its gap. Returns when each pass began.
fn simulate(
    schedule: &mut Schedule,
    start: Instant,
    seconds: u32,
    pass: impl Fn(&str) -> Duration,
    mut gap_at: impl FnMut(u32) -> Option<&'static str>,
) -> Vec<(Duration, Job)> {
    let (mut began, mut running) = (Vec::new(), Vec::<(Instant, Job)>::new());
    let mut gaps = std::collections::BTreeSet::new();
    for second in 0..seconds {
        let now = start + SECOND * second;
        gaps.extend(gap_at(second));
        running.retain(|(until, job)| {
            if *until <= now {
                gaps.remove(&*job.bucket);
                schedule.ended(job, Ended::Complete, false, now, 0.5);
            }
            *until > now
        });
        schedule.gaps(gaps.iter().copied(), now);
        while let Some(job) = schedule.next(now) {
            running.push((now + pass(&job.bucket), job.clone()));
            began.push((now - start, job));
        }
    }
    began
}

fn of<'a>(began: &'a [(Duration, Job)], bucket: &str) -> Vec<&'a (Duration, Job)> {
    began.iter().filter(|(_, job)| &*job.bucket == bucket).collect()
}

#[test]
fn in_a_week_of_slow_passes_every_bucket_has_its_turn_and_a_gap_goes_first() {
    let names: Vec<String> = (0..20).map(|number| format!("bucket-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut schedule, start) = schedule(HOUR, &names);
    // While all slots are taken, as they always are here.
    let gap_at = |second| (second > 0 && second % 7_201 == 0).then_some("bucket-19");
    let week = 7 * 24 * 3_600;
    let began = simulate(&mut schedule, start, week, |_| MINUTE * 10, gap_at);
    for name in names {
        let times: Vec<_> = of(&began, name).iter().map(|(at, _)| *at).collect();
        let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        assert!(times[0] < HOUR * 2 && longest < HOUR * 2, "{name} waited for {longest:?}");
    }
    for second in (7_201..week).step_by(7_201) {
        let marked = SECOND * second;
        let waited = of(&began, "bucket-19").iter().map(|(at, _)| *at).find(|at| *at >= marked);
        // Unless a pass of it was running: then right after that.
        assert!(waited.unwrap().saturating_sub(marked) < MINUTE * 11, "marked at {marked:?}");
    }
}

#[test]
fn a_gap_waits_for_no_routine_pass_of_another_bucket() {
    let (mut schedule, now) = schedule(HOUR, &["a", "b", "c", "d"]);
    assert_eq!((schedule.next(now).is_some(), schedule.next(now).is_some()), (true, true));
    assert_eq!(schedule.next(now), None);
    schedule.gaps(std::iter::once("d"), now);
    let job = schedule.next(now + GAP_SETTLES).unwrap();
    assert_eq!((&*job.bucket, job.trigger), ("d", Trigger::Gap));
    assert!(schedule.request("c", Some("x/"), now));
    let job = schedule.next(now + GAP_SETTLES).unwrap();
    assert_eq!((&*job.bucket, job.trigger, job.prefix), ("c", Trigger::Request, None));
}

#[test]
fn gaps_that_come_again_and_again_starve_no_bucket_without_one() {
    let (mut schedule, start) = schedule(HOUR, &["a", "b", "c", "d", "quiet"]);
    // Four buckets whose events are missed each minute, more than the urgent lane can follow.
    let gap_at = |second: u32| {
        second.is_multiple_of(15).then(|| ["a", "b", "c", "d"][second as usize / 15 % 4])
    };
    let began = simulate(&mut schedule, start, 24 * 3_600, |_| MINUTE * 10, gap_at);
    let quiet = of(&began, "quiet");
    assert!(quiet.len() >= 18, "{} passes in a day", quiet.len());
}

#[test]
fn passes_that_take_hours_give_their_slots_to_the_buckets_that_wait() {
    let names = ["huge-1", "huge-2", "huge-3", "huge-4", "y", "z"];
    let (mut schedule, start) = schedule(HOUR, &names);
    let pass = |name: &str| if name.starts_with("huge") { HOUR * 20 } else { MINUTE };
    let began = simulate(&mut schedule, start, 12 * 3_600, pass, |_| None);
    for name in ["y", "z"] {
        let passes = of(&began, name);
        assert!(passes[0].0 <= LONG * 2, "{name} began after {:?}", passes[0].0);
        assert!(passes.len() >= 10, "{} passes in 12 h", passes.len());
    }
}

#[test]
fn long_passes_beyond_the_bound_keep_their_slots_so_that_memory_is_bounded() {
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut schedule, start) = schedule(HOUR, &names);
    let began = simulate(&mut schedule, start, 10 * 3_600, |_| HOUR * 100, |_| None);
    assert_eq!(began.len(), SIDE_BY_SIDE + MOST_LONG);
}

#[test]
fn after_a_restart_the_bucket_compared_longest_ago_goes_first() {
    let (mut schedule, now) = schedule(HOUR, &["a", "b", "c", "d"]);
    let last = |name: &str| match name {
        "a" => Some(9_000),
        "b" => Some(1_000),
        "c" => None,
        _ => Some(5_000),
    };
    schedule.restarted(last, now);
    let order: Vec<_> = (0..4).map(|_| pass(&mut schedule, now, false).bucket).collect();
    assert_eq!(order.iter().map(|name| &**name).collect::<Vec<_>>(), ["c", "b", "d", "a"]);
}
