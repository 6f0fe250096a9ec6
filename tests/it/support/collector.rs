//! A real OpenTelemetry collector, which writes down the spans that it receives.

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::eventually::{SOON, eventually};
use super::http;
use super::ports::free_port;
use super::process::{Process, peer};

/// A collector with an OTLP receiver for HTTP.
#[derive(Debug)]
pub(crate) struct Collector {
    port: u16,
    _process: Process,
    directory: TempDir,
}

/// A span as the collector understood it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let file = directory.path().join("collector.yaml");
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed}}}}\n\
             service:\n  \
               telemetry: {{metrics: {{level: none}}}}\n  \
               pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}\n"
        );
        fs::write(&file, config).expect("a file");
        let arguments = ["--config".to_owned(), format!("file:{}", file.display())];
        let process = Process::start(&peer("otelcol"), &arguments, &[], directory.path());
        let collector = Self { port, _process: process, directory };
        eventually("the collector serves", SOON, async || http::get(&collector.endpoint()).await)
            .await;
        collector
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that it wrote.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The spans of this object, and those below them.
    pub(crate) fn spans_of(&self, key: &str) -> Vec<Span> {
        let all = read(&self.text());
        let is_of = |span: &&Span| span.attributes.get("aws.s3.key").is_some_and(|of| of == key);
        let traces: Vec<_> = all.iter().filter(is_of).map(|span| span.trace.clone()).collect();
        all.into_iter().filter(|span| traces.contains(&span.trace)).collect()
    }
}

/// Reads the text of the debug exporter.
fn read(text: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for line in text.lines() {
        if line.starts_with("Span #") {
            spans.push(Span::default());
        }
        let Some(span) = spans.last_mut() else { continue };
        if let Some((name, value)) =
            line.trim().strip_prefix("-> ").and_then(|l| l.split_once(": "))
        {
            let value = value.split_once('(').map_or(value, |(_, rest)| rest);
            let value = value.strip_suffix(')').unwrap_or(value);
            span.attributes.insert(name.to_owned(), value.to_owned());
        } else if let Some((name, value)) = line.split_once(" : ") {
            let field = match name.trim() {
                "Trace ID" => &mut span.trace,
                "Parent ID" => &mut span.parent,
                "ID" => &mut span.id,
                "Name" => &mut span.name,
                "Status code" => &mut span.status,
                _ => continue,
            };
            value.trim().clone_into(field);
        }
    }
    spans
}
