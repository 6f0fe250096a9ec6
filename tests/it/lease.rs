//! Active and standby by a Lease of a real Kubernetes API server: two processes of evermirror, which
//! share the webhook's port as two pods share a Service.

use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::browser::{Browser, Scheme};
use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::Evermirror;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http;
use crate::support::kubernetes::{EVERMIRROR, Kubernetes};
use crate::support::minio::TOKEN;
use crate::support::ports::free_port;
use crate::support::site::{Servers, Setup, Site};
use crate::support::toxiproxy::Toxiproxy;
use crate::support::writer::{Writer, seed};

/// Short, so that a takeover takes seconds; long enough for machines that do other things, too.
fn settings() -> Vec<(&'static str, String)> {
    [
        ("LEASE__NAME", "pair"),
        ("LEASE__POD", "evermirror-0"),
        ("LEASE__DURATION", "8s"),
        ("LEASE__RENEW_DEADLINE", "5s"),
        ("LEASE__RETRY_PERIOD", "500ms"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// A namespace in which evermirror may do what deploy/helm allows it, and two pods that nobody runs.
async fn prepare(namespace: &str) -> &'static Kubernetes {
    let kubernetes = Kubernetes::shared().await;
    kubernetes.namespace(namespace).await;
    kubernetes.kubectl(&["-n", namespace, "create", "serviceaccount", "default"]).await.unwrap();
    let metadata = json!({ "name": "evermirror", "namespace": namespace });
    let group = "coordination.k8s.io";
    kubernetes.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
        "rules": [
            { "apiGroups": [group], "resources": ["leases"], "verbs": ["create"] },
            { "apiGroups": [group], "resources": ["leases"], "verbs": ["get", "update"], "resourceNames": ["pair"] },
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["patch"], "resourceNames": ["evermirror-0", "evermirror-1"] },
        ],
    })).await;
    kubernetes.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "evermirror" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": EVERMIRROR }],
    })).await;
    for name in ["evermirror-0", "evermirror-1"] {
        kubernetes.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
            "spec": { "containers": [{ "name": "evermirror", "image": "none" }] },
        })).await;
    }
    kubernetes
}

/// Waits until it says that it is a standby, for this reason.
async fn stands_by(evermirror: &Evermirror, because: &str) {
    eventually("it stands by", SOON, async || {
        let answer = http::get(&evermirror.web("/healthz")).await?;
        let text = answer.text();
        let standing =
            answer.status == 200 && text.starts_with("standby: ") && text.contains(because);
        if standing { Ok(()) } else { Err(text) }
    })
    .await;
}

async fn is_active(evermirror: &Evermirror, within: Duration) {
    eventually("it is active", within, async || {
        let answer = http::get(&evermirror.web("/readyz")).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// The names of the pods that a Service would choose.
async fn chosen(kubernetes: &Kubernetes, namespace: &str, pods: &str) {
    eventually("the active one's pod is labelled", SOON, async || {
        let arguments =
            ["-n", namespace, "get", "pods", "-l", "evermirror/active=true", "-o", "name"];
        let found = kubernetes.kubectl(&arguments).await?;
        if found == pods { Ok(()) } else { Err(found) }
    })
    .await;
}

/// A site whose evermirror is active, and a twin that stands by.
async fn pair(namespace: &'static str, setup: Setup) -> (&'static Kubernetes, Site, Evermirror) {
    let kubernetes = prepare(namespace).await;
    let servers = Servers::shared().await;
    let mut site = servers.prepare(namespace, setup).await;
    site.evermirror.set_kubeconfig(kubernetes.direct(EVERMIRROR, namespace));
    let mut standby = site.evermirror.twin();
    standby.set("LEASE__POD", "evermirror-1");
    site.evermirror.start().await;
    standby.spawn();
    stands_by(&standby, "the lease pair is held by evermirror-0_").await;
    (kubernetes, site, standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_active_one_is_killed_under_load_and_nothing_is_lost() {
    let seed = seed();
    let servers = Servers::shared().await;
    // A target slower than the load, so that what was acknowledged is pending at the kill: in a journal
    // that the standby cannot read.
    let slow = FaultProxy::in_front_of(&servers.target.authority()).await;
    slow.misbehave(|method, _| {
        (method == Method::PUT).then_some(Fault::Wait(Duration::from_millis(200)))
    });
    let mut settings = settings();
    settings.push(("REPLICATE__CONCURRENCY", "4".to_owned()));
    let setup = Setup { target_endpoint: Some(slow.endpoint()), settings, ..Setup::default() };
    let (kubernetes, mut site, standby) = pair("lease-killed", setup).await;
    chosen(kubernetes, "lease-killed", "pod/evermirror-0").await;
    let ready = http::get(&standby.web("/readyz")).await.unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text());
    let metrics = standby.metrics().await;
    assert!(metrics.contains("\nevermirror_active 0\n"), "{metrics}");
    assert_eq!(site.evermirror.metric("evermirror_active").await, Some(1.0));

    let stop = CancellationToken::new();
    let writing = Writer::new(seed, &site.source, &site.bucket).write_until(&stop);
    eventually("acknowledged work is pending", SOON, async || {
        let pending = site.evermirror.count("pending").await?;
        if pending > 50 { Ok(()) } else { Err(format!("{pending} are")) }
    })
    .await;
    site.evermirror.kill();
    is_active(&standby, SOON).await;
    chosen(kubernetes, "lease-killed", "pod/evermirror-0\npod/evermirror-1").await;
    stop.cancel();
    println!("{} changes", writing.await.unwrap());
    slow.behave();
    let gaps = standby.metric("evermirror_gaps_total{reason=\"taken_over\"}").await;
    assert_eq!(gaps, Some(1.0));

    // The one that was killed comes back, and waits; its pod is not chosen any more.
    let killed = std::mem::replace(&mut site.evermirror, standby);
    let mut killed = killed;
    killed.spawn();
    stands_by(&killed, "the lease pair is held by evermirror-1_").await;
    chosen(kubernetes, "lease-killed", "pod/evermirror-1").await;
    site.converges(LATER).await;
    eventually("the gap of the takeover is closed", SOON, async || {
        let gaps = site.evermirror.status().await?["gaps"].take();
        if gaps == json!([]) { Ok(()) } else { Err(gaps.to_string()) }
    })
    .await;

    // A graceful stop gives the lease back; the other one takes over with its old journal.
    site.put("before the stop", "1").await;
    assert!(site.evermirror.terminate().await.success());
    assert!(site.evermirror.log().contains("The lease was given back."));
    is_active(&killed, SOON).await;
    let holder = kubernetes.get(&["-n", "lease-killed", "lease", "pair"]).await.unwrap();
    assert!(holder["spec"]["holderIdentity"].as_str().unwrap().starts_with("evermirror-0_"));
    site.evermirror = killed;
    site.put("after the stop", "2").await;
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_standby_names_the_active_one_until_it_is_the_active_one() {
    let setup = Setup { settings: settings(), ..Setup::default() };
    let (_, mut site, standby) = pair("lease-page", setup).await;
    let (active, waiting) =
        tokio::join!(Browser::start(Scheme::Light), Browser::start(Scheme::Light));
    active.open(&site.evermirror.web("/")).await;
    active.shows("#stores", "pair, held by evermirror-0_").await;
    active.shows("#stores", "active for").await;
    waiting.open(&standby.web("/")).await;
    waiting.shows("#verdict", "Ask the active process").await;
    waiting.shows("#because", "the lease pair is held by evermirror-0_").await;
    assert_eq!(waiting.text("#stores").await, "", "a standby has nothing else to show");
    waiting.keep_picture("page-standby").await;
    assert!(site.evermirror.terminate().await.success());
    waiting.shows("#stores", "pair, held by evermirror-1_").await;
    waiting.shows("#verdict", "Nothing").await;
    site.evermirror = standby;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_reach_the_api_server_stops_before_another_takes_over() {
    let kubernetes = prepare("lease-cut").await;
    let way = Toxiproxy::in_front_of(&kubernetes.authority()).await;
    let servers = Servers::shared().await;
    let setup = Setup { settings: settings(), ..Setup::default() };
    let mut site = servers.prepare("lease-cut", setup).await;
    let mut other = site.evermirror.twin();
    let through = way.endpoint().replace("http://", "https://");
    site.evermirror.set_kubeconfig(kubernetes.kubeconfig(&through, EVERMIRROR, "lease-cut"));
    other.set_kubeconfig(kubernetes.direct(EVERMIRROR, "lease-cut"));
    other.set("LEASE__POD", "evermirror-1");
    site.evermirror.start().await;
    other.spawn();
    stands_by(&other, "held by evermirror-0_").await;

    way.cut().await;
    let ended = site.evermirror.ended().await;
    assert_eq!(ended.code(), Some(1));
    let holder = kubernetes.get(&["-n", "lease-cut", "lease", "pair"]).await.unwrap();
    let holder = holder["spec"]["holderIdentity"].as_str().unwrap().to_owned();
    assert!(holder.starts_with("evermirror-0_"), "it ended only after {holder} had taken over");
    let log = site.evermirror.log();
    assert!(log.contains("The lease could not be renewed in time"), "{log}");

    // Nobody acknowledges now; what happens is found by the one that takes over.
    site.put("in between", "1").await;
    is_active(&other, SOON).await;
    site.evermirror.spawn();
    way.heal().await;
    stands_by(&site.evermirror, "held by evermirror-1_").await;
    site.evermirror = other;
    site.put("afterwards", "2").await;
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_frozen_for_longer_than_its_lease_acknowledges_nothing_when_it_wakes() {
    let kubernetes = prepare("lease-frozen").await;
    let servers = Servers::shared().await;
    let setup = Setup { settings: settings(), ..Setup::default() };
    let mut site = servers.prepare("lease-frozen", setup).await;
    site.evermirror.set_kubeconfig(kubernetes.direct(EVERMIRROR, "lease-frozen"));
    let mut other = site.evermirror.twin();
    // Who is frozen keeps its port.
    other.set("INTAKE__WEBHOOK__LISTEN", &format!("127.0.0.1:{}", free_port()));
    other.set("LEASE__POD", "evermirror-1");
    site.evermirror.start().await;
    other.spawn();
    stands_by(&other, "held by evermirror-0_").await;

    site.evermirror.signal("STOP");
    let url = site.evermirror.webhook("/events");
    let posting = tokio::spawn(async move {
        let token = format!("Bearer {TOKEN}");
        let headers = [("authorization", &*token), ("content-type", "application/json")];
        let body = events::event("ObjectCreated:Put", "lease-frozen", "k");
        http::request(Method::POST, &url, &headers, body).await
    });
    is_active(&other, SOON).await;
    site.evermirror.signal("CONT");
    assert_eq!(site.evermirror.ended().await.code(), Some(1));
    let answer = posting.await.unwrap();
    assert!(answer.as_ref().is_ok_and(|a| a.status == 503) || answer.is_err(), "{answer:?}");
    site.evermirror = other;
    site.converges(LATER).await;
}

/// The times at which this process said that it began to act, and that it had stopped; microseconds.
fn active_times(log: &str) -> Vec<(i64, i64)> {
    let mut times = Vec::new();
    let mut began = None;
    for line in log.lines() {
        let Ok(at) = line.split(' ').next().unwrap_or_default().parse::<jiff::Timestamp>() else {
            continue;
        };
        let at = at.as_microsecond();
        if line.contains("This process is active: it holds the lease.") {
            began = Some(at);
        } else if line.contains("This process has stopped copying and acknowledging") {
            times.push((began.take().expect("it had begun"), at));
        }
    }
    times.extend(began.map(|at| (at, i64::MAX)));
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn two_contenders_are_never_active_at_once() {
    let kubernetes = prepare("lease-contended").await;
    let ways = [
        Toxiproxy::in_front_of(&kubernetes.authority()).await,
        Toxiproxy::in_front_of(&kubernetes.authority()).await,
    ];
    let servers = Servers::shared().await;
    let setup = Setup { settings: settings(), ..Setup::default() };
    let site = servers.prepare("lease-contended", setup).await;
    let mut contenders = [site.evermirror.twin(), site.evermirror.twin()];
    for (number, (contender, way)) in contenders.iter_mut().zip(&ways).enumerate() {
        let through = way.endpoint().replace("http://", "https://");
        contender.set_kubeconfig(kubernetes.kubeconfig(&through, EVERMIRROR, "lease-contended"));
        contender.set("LEASE__POD", &format!("evermirror-{number}"));
        contender.spawn();
    }
    for _ in 0..3 {
        // Whoever is active loses the API server, ends, and comes back as a standby.
        let active = eventually("one is active", SOON, async || {
            for (number, contender) in contenders.iter().enumerate() {
                if http::get(&contender.web("/readyz")).await.is_ok_and(|a| a.status.is_success()) {
                    return Ok(number);
                }
            }
            Err("none is".to_owned())
        })
        .await;
        ways[active].cut().await;
        assert_eq!(contenders[active].ended().await.code(), Some(1));
        ways[active].heal().await;
        contenders[active].spawn();
    }
    let mut times: Vec<_> = contenders.iter().flat_map(|c| active_times(&c.log())).collect();
    times.sort_unstable();
    assert!(times.len() >= 3, "{times:?}");
    for pair in times.windows(2) {
        assert!(pair[0].1 < pair[1].0, "two were active at once: {times:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_use_leases_says_which_verb_is_missing() {
    let kubernetes = Kubernetes::shared().await;
    kubernetes.namespace("lease-forbidden").await;
    let servers = Servers::shared().await;
    let setup = Setup { settings: settings(), ..Setup::default() };
    let mut site = servers.silent("lease-forbidden", setup).await;
    site.evermirror.set_kubeconfig(kubernetes.direct(EVERMIRROR, "lease-forbidden"));
    site.evermirror.spawn();
    stands_by(
        &site.evermirror,
        "failed to get leases pair in namespace lease-forbidden: the credentials may not. Add to a Role \
         in namespace lease-forbidden: {apiGroups: [\"coordination.k8s.io\"], resources: [leases], verbs: [get]}",
    )
    .await;
}
