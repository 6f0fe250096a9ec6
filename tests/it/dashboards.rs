//! What Prometheus and Grafana ask for is what evermirror offers. (That the rules work is for promtool
//! to say, in `tests/deploy`.)

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use evermirror::metrics::METRICS;

fn text(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Every word that begins as our metrics do, in what is evaluated; prose may name anything.
fn named_in(expressions: &str) -> BTreeSet<String> {
    let words = expressions.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("evermirror_")).map(str::to_owned).collect()
}

/// The series that METRICS stands for: a histogram has three names.
fn offered() -> BTreeSet<String> {
    let series = METRICS.iter().flat_map(|metric| {
        let endings: &[&str] =
            if metric.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        endings.iter().map(|ending| format!("{}{ending}", metric.name))
    });
    series.collect()
}

fn assert_offered(asked: &BTreeSet<String>, file: &str) {
    let unknown: Vec<_> = asked.difference(&offered()).cloned().collect();
    assert!(unknown.is_empty(), "{file} asks for {unknown:?}, which src/metrics/table.rs lacks");
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    for file in ["evermirror.rules.yaml", "evermirror.rules.test.yaml"] {
        let file = format!("deploy/prometheus/{file}");
        let asked = named_in(&text(&file));
        assert!(asked.len() > 10, "{file} names only {asked:?}");
        assert_offered(&asked, &file);
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let file = "deploy/grafana/evermirror.dashboard.json";
    let asked = named_in(&text(file));
    assert!(asked.len() > 20, "{file} names only {asked:?}");
    assert_offered(&asked, file);
}

/// Panels that lie on each other, or that share a number, are shown wrongly without a word.
#[test]
fn the_dashboards_panels_do_not_overlap() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("deploy/grafana/evermirror.dashboard.json")).unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "the id of {}", panel["title"]);
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{} is beyond the edge", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}
