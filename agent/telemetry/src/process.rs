//! The agent's own process, as /proc has it at the moment of the scrape.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use crate::AccessLog;

/// Clock ticks per second that /proc counts in (`USER_HZ`, fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE: u64 = 4096;

/// Reads /proc when asked.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    access_log: AccessLog,
}

impl ProcessCollector {
    pub(crate) fn new(access_log: AccessLog) -> Self {
        Self { access_log }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_open_fds", "Open file descriptors", open_fds())?;
        gauge("process_resident_memory_bytes", "Resident memory", resident_bytes())?;
        let counter = ConstCounter::new(cpu_seconds());
        let help = "Processor time used";
        counter.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            counter.metric_type(),
        )?)?;
        let counter = ConstCounter::new(self.access_log.dropped());
        let (name, help) = ("undermesh_access_log_dropped", "Access log lines that were lost");
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }
}

fn open_fds() -> i64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64)
}

fn resident_bytes() -> i64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    (pages.unwrap_or(0) * PAGE) as i64
}

/// User and system time: fields 14 and 15 of proc(5), counted after the command's closing bracket.
fn cpu_seconds() -> f64 {
    let ticks = fs::read_to_string("/proc/self/stat").ok().and_then(|text| {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    });
    ticks.unwrap_or(0) as f64 / TICKS_PER_SECOND
}
