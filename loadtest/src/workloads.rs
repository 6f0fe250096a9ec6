//! The workloads, one file each, and the run that does them all.

pub(crate) mod backlog;
mod burst;
mod fairness;
mod first_sync;
mod hot_key;
mod intake;
pub(crate) mod journal;
mod kafka;
mod lag;
mod large;
mod listing;
mod memory;
mod no_change;
mod sqs;

use anyhow::ensure;
use clap::ValueEnum;

use crate::CompareArgs;
use crate::bench::Bench;
use crate::report::Report;
use crate::workloads::burst::Change;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// How far the target is behind at a steady pace of small puts.
    Lag,
    /// How fast the target follows puts that come as fast as the source takes them.
    Burst,
    /// The same of deletes, one by one.
    Deletes,
    /// The same of deletes by the thousand.
    BulkDelete,
    /// What a bucket's lag becomes beside another one whose keys fail.
    Fairness,
    /// What becomes of one key that is overwritten all the time.
    HotKey,
    /// How fast, and at which cost, a backlog of small objects is drained.
    Backlog,
    /// The same of objects of 1 MiB.
    Mebibytes,
    /// How much memory a journal of very many events takes.
    Memory,
    /// How fast a journal of very many keys is opened and drained, and that nothing of it is lost.
    Journal,
    /// How many notifications become durable in a second.
    Intake,
    /// How many notifications from a full queue become durable in a second.
    Sqs,
    /// The same from a Kafka topic.
    Kafka,
    /// One, two and four processes that share a bucket through Kafka.
    KafkaScale,
    /// How long a comparison takes that finds nothing to do.
    NoChange,
    /// How fast everything is copied to a target that has nothing.
    FirstSync,
    /// How fast large objects are copied.
    Large,
    /// How much memory the comparison of very many keys takes.
    Listing,
}

/// Runs what was asked for; all workloads if nothing was.
pub(crate) async fn compare(args: &CompareArgs) -> anyhow::Result<Report> {
    let mut bench = Bench::start(args.rounds, args.quick, &args.subject).await?;
    let all = Workload::value_variants();
    for workload in if args.workload.is_empty() { all } else { &args.workload } {
        let before = bench.report.size();
        match workload {
            Workload::Lag => lag::run(&mut bench).await?,
            Workload::Burst => burst::run(&mut bench, Change::Put).await?,
            Workload::Deletes => burst::run(&mut bench, Change::Delete).await?,
            Workload::BulkDelete => burst::run(&mut bench, Change::DeleteMany).await?,
            Workload::Fairness => fairness::run(&mut bench).await?,
            Workload::HotKey => hot_key::run(&mut bench).await?,
            Workload::Backlog => backlog::small(&mut bench).await?,
            Workload::Mebibytes => backlog::mebibytes(&mut bench).await?,
            Workload::Memory => memory::run(&mut bench).await?,
            Workload::Journal => journal::run(&mut bench).await?,
            Workload::Intake => intake::run(&mut bench).await?,
            Workload::Sqs => sqs::run(&mut bench).await?,
            Workload::Kafka => kafka::run(&mut bench).await?,
            Workload::KafkaScale => kafka::scale(&mut bench).await?,
            Workload::NoChange => no_change::run(&mut bench).await?,
            Workload::FirstSync => first_sync::run(&mut bench).await?,
            Workload::Large => large::run(&mut bench).await?,
            Workload::Listing => listing::run(&mut bench).await?,
        }
        let subjects = &args.subject;
        let measured = subjects.is_empty() || bench.report.size() > before;
        // Of all workloads, those are meant in which somebody takes part.
        let asked = !args.workload.is_empty();
        ensure!(measured || !asked, "nobody of {subjects:?} takes part in {workload:?}");
    }
    bench.judge_memory();
    Ok(bench.report)
}
