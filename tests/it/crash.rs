//! The process is killed at any moment, and nothing is lost.

use std::time::Duration;

use hyper::Method;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::support::eventually::LATER;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::site::{Servers, Setup, Site};
use crate::support::writer::{Writer, seed};

const KILLS: usize = 20;

/// Kills evermirror at a random moment, `KILLS` times: while it starts, while it works, while it rests.
async fn kill_at_random(site: &mut Site, random: &mut StdRng) {
    for kill in 0..KILLS {
        if kill % 4 == 0 {
            site.evermirror.spawn();
        } else {
            site.evermirror.start().await;
        }
        // Not a wait for anything: the moment itself is what is random.
        let moment = Duration::from_millis(random.random_range(0..600));
        tokio::time::sleep(moment).await;
        site.evermirror.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_nothing() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let servers = Servers::shared().await;
    // A target slower than the load, so that acknowledged work is pending at every kill.
    let slow = FaultProxy::in_front_of(&servers.target.authority()).await;
    slow.misbehave(|method, _| {
        (method == Method::PUT).then_some(Fault::Wait(Duration::from_millis(20)))
    });
    let setup = Setup {
        queue: true,
        target_endpoint: Some(slow.endpoint()),
        settings: vec![("REPLICATE__CONCURRENCY", "4".to_owned())],
        ..Setup::default()
    };
    let mut site = servers.prepare("killed", setup).await;
    let stop = CancellationToken::new();
    let writing = Writer::new(seed, &site.source, &site.bucket).write_until(&stop);
    kill_at_random(&mut site, &mut random).await;
    stop.cancel();
    let changes = writing.await.unwrap();
    println!("{changes} changes during {KILLS} kills");
    assert!(changes >= 100, "{changes} changes are too small a load to prove anything");
    slow.behave();
    site.evermirror.start().await;
    site.converges(LATER).await;
}
