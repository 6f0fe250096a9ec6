//! Who may take the Lease: pure, the clock is an argument.
//!
//! A standby never compares its clock with the holder's. It counts from the moment at which it saw the
//! Lease change last; the holder counts from *before* the request that changed it. So the holder's time
//! is over first, whatever their clocks say.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kubernetes::{at, text_at};

/// A Lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    /// Nobody, if it was given back.
    pub(super) holder: Option<String>,
    pub(super) duration: Duration,
    /// As RFC 3339.
    pub(super) acquired: Option<String>,
    /// As RFC 3339.
    pub(super) renewed: Option<String>,
    /// How often it went from one holder to another.
    pub(super) transitions: i64,
    /// What the API server compares before it replaces the Lease.
    pub(super) version: String,
}

impl Record {
    pub(super) fn read(lease: &Value) -> Self {
        let seconds = at(lease, "/spec/leaseDurationSeconds").as_u64().unwrap_or(0);
        Self {
            holder: text_at(lease, "/spec/holderIdentity"),
            duration: Duration::from_secs(seconds),
            acquired: text_at(lease, "/spec/acquireTime"),
            renewed: text_at(lease, "/spec/renewTime"),
            transitions: at(lease, "/spec/leaseTransitions").as_i64().unwrap_or(0),
            version: text_at(lease, "/metadata/resourceVersion").unwrap_or_default(),
        }
    }

    /// The object to send; without a version for a Lease that is not there yet.
    pub(super) fn write(&self, name: &str, namespace: &str) -> Value {
        // Rounded up: others may wait longer than they must, never less.
        let seconds = self.duration.as_secs() + u64::from(self.duration.subsec_nanos() > 0);
        let version = Some(&self.version).filter(|version| !version.is_empty());
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name, "namespace": namespace, "resourceVersion": version },
            "spec": {
                "holderIdentity": self.holder.as_deref().unwrap_or(""),
                "leaseDurationSeconds": seconds.max(1),
                "acquireTime": self.acquired,
                "renewTime": self.renewed,
                "leaseTransitions": self.transitions,
            },
        })
    }

    /// Whether its holder has done something between this and `other`; labels and the like do not count.
    fn differs(&self, other: &Self) -> bool {
        (&self.holder, &self.renewed, &self.acquired, self.transitions)
            != (&other.holder, &other.renewed, &other.acquired, other.transitions)
    }
}

/// What a standby may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// There is no Lease: make one.
    Create,
    /// Nobody holds it any more: replace it.
    Take,
    /// This one holds it.
    Wait(String),
}

/// What a standby has seen.
#[derive(Debug)]
pub(super) struct Observer {
    me: String,
    /// The last Lease that was held by another, and when it was seen to change.
    seen: Option<(Record, Duration)>,
}

impl Observer {
    pub(super) fn new(me: &str) -> Self {
        Self { me: me.to_owned(), seen: None }
    }

    /// What to do about a Lease that was read at `now`, any clock that never goes backwards.
    pub(super) fn judge(&mut self, record: Option<&Record>, now: Duration) -> Claim {
        let Some(record) = record else {
            // Deleted under its holder, who acts until it notices.
            return match &self.seen {
                Some((seen, at)) if now < *at + seen.duration => wait(seen),
                _ => Claim::Create,
            };
        };
        match &record.holder {
            None => return Claim::Take,
            // Our request was carried out, and its answer was lost.
            Some(holder) if *holder == self.me => return Claim::Take,
            Some(_) => {}
        }
        match &self.seen {
            Some((seen, at)) if !record.differs(seen) => {
                if now < *at + seen.duration {
                    wait(record)
                } else {
                    Claim::Take
                }
            }
            _ => {
                self.seen = Some((record.clone(), now));
                wait(record)
            }
        }
    }
}

fn wait(record: &Record) -> Claim {
    Claim::Wait(record.holder.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn held(by: &str, renewal: u32) -> Record {
        Record {
            holder: Some(by.to_owned()),
            duration: 15 * S,
            renewed: Some(format!("renewal {renewal}")),
            ..Record::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_whole_duration() {
        let mut observer = Observer::new("me");
        // However old the renewal claims to be: the time counts from when we saw it.
        assert_eq!(observer.judge(Some(&held("other", 1)), 100 * S), Claim::Wait("other".into()));
        assert_eq!(observer.judge(Some(&held("other", 1)), 114 * S), Claim::Wait("other".into()));
        assert_eq!(observer.judge(Some(&held("other", 2)), 120 * S), Claim::Wait("other".into()));
        assert_eq!(observer.judge(Some(&held("other", 2)), 134 * S), Claim::Wait("other".into()));
        assert_eq!(observer.judge(Some(&held("other", 2)), 135 * S), Claim::Take);
    }

    #[test]
    fn a_lease_that_was_given_back_or_never_made_is_taken_at_once() {
        let mut observer = Observer::new("me");
        assert_eq!(observer.judge(None, S), Claim::Create);
        assert_eq!(observer.judge(Some(&Record::default()), S), Claim::Take);
        assert_eq!(observer.judge(Some(&held("me", 1)), S), Claim::Take);
    }

    #[test]
    fn a_lease_that_was_deleted_under_its_holder_is_waited_for() {
        let mut observer = Observer::new("me");
        assert_eq!(observer.judge(Some(&held("other", 1)), 100 * S), Claim::Wait("other".into()));
        assert_eq!(observer.judge(None, 114 * S), Claim::Wait("other".into()));
        assert_eq!(observer.judge(None, 115 * S), Claim::Create);
    }

    #[test]
    fn a_record_survives_the_way_through_the_api() {
        let record = Record { version: "7".into(), transitions: 3, ..held("me", 1) };
        assert_eq!(Record::read(&record.write("lease", "ns")), record);
        let short = Record { duration: Duration::from_millis(2_500), ..record };
        assert_eq!(Record::read(&short.write("lease", "ns")).duration, 3 * S);
    }

    proptest! {
        /// Model: one holder that renews at some moments, a standby that looks at others, on clocks that
        /// differ by any offset. The holder acts for ten seconds from before each renewal's request.
        #[test]
        fn a_holder_that_keeps_its_deadline_has_stopped_when_its_lease_is_taken(
            renewals in prop::collection::vec(0_u64..60_000, 1..30),
            looks in prop::collection::vec(0_u64..120_000, 1..120),
            latency in 0_u64..3_000,
            offset in 0_u64..1_000_000,
        ) {
            let (mut renewals, mut looks) = (renewals, looks);
            renewals.sort_unstable();
            looks.sort_unstable();
            let ms = Duration::from_millis;
            let mut observer = Observer::new("standby");
            for look in looks {
                // What the server has: the last renewal whose request has arrived.
                let arrived = renewals.iter().filter(|sent| *sent + latency <= look).count();
                if arrived == 0 { continue; }
                let record = held("active", u32::try_from(arrived).unwrap());
                if observer.judge(Some(&record), ms(look + offset)) == Claim::Take {
                    let stops = renewals[arrived - 1] + 10_000;
                    prop_assert!(stops < look, "acts until {stops}, taken at {look}");
                    break;
                }
            }
        }
    }
}
