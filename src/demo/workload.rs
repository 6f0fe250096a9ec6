//! The objects that the demo writes: small on purpose, odd on purpose.
//!
//! The plan is a pure function of the number of objects. First every object is put once, then some are
//! overwritten, deleted, copied and tagged; steps of one stage touch different keys, so they may run at
//! the same time. Keys hold no control characters, for the terminal's sake; the store's own tests do.

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use aws_sdk_s3::types::{Tag, Tagging};
use tokio::task::JoinSet;

/// Writes at once.
const WRITERS: usize = 8;
/// The parts of the multipart object: S3 asks for 5 MiB in all but the last.
const PARTS: [usize; 2] = [5 << 20, 123_457];

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Put { key: String, size: usize, seed: u8, dressed: bool },
    Multipart { key: String },
    Copy { from: String, to: String },
    Tag { key: String },
    Delete { key: String },
    DeleteMany { keys: Vec<String> },
}

/// The plan's two stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub puts: Vec<Step>,
    pub changes: Vec<Step>,
}

/// What is done to `objects` objects.
pub(super) fn plan(objects: usize) -> Plan {
    let puts = (0..objects).map(first_put).collect();
    let mut changes = Vec::new();
    let mut many = Vec::new();
    for number in 0..objects {
        let key = key(number);
        match number % 20 {
            3 | 11 => changes.push(put(number, 1)),
            5 => changes.push(Step::Delete { key }),
            6 => many.push(key),
            8 => changes.push(Step::Copy { from: key, to: format!("copies/{number:05}") }),
            12 => changes.push(Step::Tag { key }),
            _ => {}
        }
    }
    changes.extend(many.chunks(1000).map(|keys| Step::DeleteMany { keys: keys.to_vec() }));
    Plan { puts, changes }
}

fn first_put(number: usize) -> Step {
    if number == 1 { Step::Multipart { key: key(number) } } else { put(number, 0) }
}

fn put(number: usize, round: u8) -> Step {
    let size = if number % 10 == 4 { 0 } else { 1 + (number * 7919) % 16_384 };
    let seed = u8::try_from(number % 251).unwrap_or_default().wrapping_add(round);
    Step::Put { key: key(number), size, seed, dressed: number.is_multiple_of(3) }
}

fn key(number: usize) -> String {
    match number % 20 {
        1 => format!("multipart/{number:05}.bin"),
        4 => format!("empty/{number:05}"),
        7 => format!("odd/a b+c & 100% ?#=;{number:05}"),
        9 => format!("odd//double/./and/../dots/{number:05}"),
        13 => format!("odd/żółć 漢字 🦀/{number:05}"),
        14 => format!("markers/{number:05}/"),
        17 => format!("odd/'quotes\"\\~*()!/{number:05}"),
        _ => format!("data/{:02}/{number:05}.parquet", number % 7),
    }
}

/// Carries out steps, several at once. The first failure ends it.
pub(super) async fn write(client: &Client, bucket: &str, steps: &[Step]) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    for step in steps {
        if running.len() == WRITERS
            && let Some(done) = running.join_next().await
        {
            done??;
        }
        let (client, bucket, step) = (client.clone(), bucket.to_owned(), step.clone());
        running.spawn(async move {
            let what = format!("failed to write {step:?} to the source");
            Box::pin(carry_out(&client, &bucket, step)).await.context(what)
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

async fn carry_out(client: &Client, bucket: &str, step: Step) -> anyhow::Result<()> {
    match step {
        Step::Put { key, size, seed, dressed } => {
            let body = ByteStream::from(content(size, seed));
            let mut put = client.put_object().bucket(bucket).key(key).body(body);
            if dressed {
                put = put.content_type("application/vnd.apache.parquet").cache_control("no-cache");
                put = put
                    .metadata("written-by", "evermirror demo")
                    .metadata("round", seed.to_string());
                put = put.tagging("kind=demo&note=a%20b%2Bc");
            }
            put.send().await?;
        }
        Step::Multipart { key } => multipart(client, bucket, &key).await?,
        Step::Copy { from, to } => {
            let source: String = form_urlencoded::byte_serialize(from.as_bytes()).collect();
            let source = format!("{bucket}/{}", source.replace('+', "%20"));
            client.copy_object().bucket(bucket).copy_source(source).key(to).send().await?;
        }
        Step::Tag { key } => {
            let tag = Tag::builder().key("changed").value("later").build()?;
            let tagging = Tagging::builder().tag_set(tag).build()?;
            client.put_object_tagging().bucket(bucket).key(key).tagging(tagging).send().await?;
        }
        Step::Delete { key } => {
            client.delete_object().bucket(bucket).key(key).send().await?;
        }
        Step::DeleteMany { keys } => {
            let object = |key| ObjectIdentifier::builder().key(key).build();
            let objects = keys.into_iter().map(object).collect::<Result<Vec<_>, _>>()?;
            let delete = Delete::builder().set_objects(Some(objects)).build()?;
            client.delete_objects().bucket(bucket).delete(delete).send().await?;
        }
    }
    Ok(())
}

async fn multipart(client: &Client, bucket: &str, key: &str) -> anyhow::Result<()> {
    let create = client.create_multipart_upload().bucket(bucket).key(key).tagging("kind=big");
    let upload = create.metadata("parts", PARTS.len().to_string()).send().await?;
    let id = upload.upload_id().context("the store gave no upload id")?;
    let mut done = CompletedMultipartUpload::builder();
    for (number, size) in (1..).zip(PARTS) {
        let body = ByteStream::from(content(size, 42));
        let part = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
        let part = part.body(body).send().await?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag);
        done = done.parts(part.build());
    }
    let complete = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
    complete.multipart_upload(done.build()).send().await?;
    Ok(())
}

/// Bytes that differ from object to object and within one.
fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..=u8::MAX).cycle().step_by(7).map(|byte| byte.wrapping_add(seed)).take(size).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn keys(step: &Step) -> Vec<String> {
        match step {
            Step::Put { key, .. } | Step::Multipart { key } | Step::Tag { key } => {
                vec![key.clone()]
            }
            Step::Delete { key } => vec![key.clone()],
            Step::Copy { from, to } => vec![from.clone(), to.clone()],
            Step::DeleteMany { keys } => keys.clone(),
        }
    }

    #[test]
    fn steps_of_one_stage_touch_different_keys() {
        let plan = plan(500);
        for stage in [&plan.puts, &plan.changes] {
            let touched: Vec<_> = stage.iter().flat_map(keys).collect();
            assert_eq!(touched.iter().collect::<HashSet<_>>().len(), touched.len());
        }
        assert_eq!(plan.puts.len(), 500);
    }

    #[test]
    fn twenty_objects_have_every_kind_of_step() {
        let Plan { puts, changes } = plan(20);
        let all: Vec<_> = puts.into_iter().chain(changes).collect();
        assert!(all.iter().any(|s| matches!(s, Step::Put { size: 0, .. })));
        assert!(all.iter().any(|s| matches!(s, Step::Put { dressed: true, .. })));
        assert!(all.iter().any(|s| matches!(s, Step::Multipart { .. })));
        assert!(all.iter().any(|s| matches!(s, Step::Copy { .. })));
        assert!(all.iter().any(|s| matches!(s, Step::Tag { .. })));
        assert!(all.iter().any(|s| matches!(s, Step::Delete { .. })));
        assert!(all.iter().any(|s| matches!(s, Step::DeleteMany { .. })));
        assert_eq!(plan(0), Plan { puts: vec![], changes: vec![] });
    }
}
