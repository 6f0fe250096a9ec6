//! Objects larger than memory.

use crate::support::eventually::LATER;
use crate::support::server::{Pair, on_every_pair};

const TOTAL: usize = 1 << 30;

/// A gibibyte in uneven parts, made one at a time. Most are larger than the memory that evermirror may
/// use, so that it cannot hold even one of them.
fn parts() -> impl Iterator<Item = Vec<u8>> {
    let mebibytes = [200, 5, 333, 180, 17, 250];
    let rest = TOTAL - (mebibytes.iter().sum::<usize>() << 20);
    let lengths = mebibytes.into_iter().map(|mebibytes| mebibytes << 20).chain([rest]);
    lengths.zip(1_u8..).map(|(length, fill)| {
        // Every part differs, and so does every block within it, so that a mix-up changes the tag.
        let mut part = vec![fill; length];
        for (number, block) in (0_u64..).zip(part.chunks_exact_mut(4096)) {
            block[..8].copy_from_slice(&number.to_le_bytes());
        }
        part
    })
}

on_every_pair![
    a_gibibyte_is_copied_with_flat_memory_and_an_equal_etag,
    a_large_object_put_in_one_piece_is_streamed,
];

async fn a_gibibyte_is_copied_with_flat_memory_and_an_equal_etag(pair: Pair) {
    const LIMIT_KIB: u64 = 150 << 10;
    assert_eq!(parts().map(|part| part.len()).sum::<usize>(), TOTAL);
    let site = pair.site("large").await;
    let etag = site.source.put_parts(&site.bucket, "gibibyte", parts()).await;
    site.converges(LATER).await;
    let there = site.target.list(&site.target_bucket).await.unwrap();
    assert_eq!(there["gibibyte"].etag, etag);
    assert_eq!(usize::try_from(there["gibibyte"].size), Ok(TOTAL));
    let peak = site.evermirror.peak_memory_kib();
    println!("peak memory: {peak} KiB");
    assert!(peak < LIMIT_KIB, "{peak} KiB resident while a gibibyte was copied");
    assert_eq!(site.target.unfinished_uploads(&site.target_bucket, "gibibyte").await, 0);
}

async fn a_large_object_put_in_one_piece_is_streamed(pair: Pair) {
    const LIMIT_KIB: u64 = 150 << 10;
    let site = pair.site("one-piece").await;
    for number in 0..6 {
        site.put(&format!("object {number}"), vec![number; 64 << 20]).await;
    }
    site.converges(LATER).await;
    let peak = site.evermirror.peak_memory_kib();
    assert!(peak < LIMIT_KIB, "{peak} KiB resident while objects of 64 MiB were copied");
}
