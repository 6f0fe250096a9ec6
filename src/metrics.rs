//! stub
use std::time::Duration;
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Metrics;
#[allow(missing_docs)]
impl Metrics {
    pub fn copied(&self, _b: u64, _l: Duration) {}
    pub fn deleted(&self, _l: Duration) {}
    pub fn tagged(&self, _l: Duration) {}
    pub fn unchanged(&self) {}
    pub fn error(&self, _s: &'static str, _c: &'static str) {}
}
