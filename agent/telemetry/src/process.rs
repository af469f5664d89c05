//! The agent's own process, as /proc has it at the moment of the scrape. What cannot be read is
//! left out rather than reported as 0.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use crate::{AccessLog, Metric};

static OPEN_FDS: Metric = Metric::gauge("process_open_fds", &[], "open file descriptors");
static MAX_FDS: Metric = Metric::gauge("process_max_fds", &[], "descriptors that may be open");
static RESIDENT_MEMORY: Metric =
    Metric::gauge("process_resident_memory_bytes", &[], "resident memory, in bytes");
static CPU: Metric = Metric::counter("process_cpu_seconds", &[], "processor time used, in seconds");
static START_TIME: Metric = Metric::gauge(
    "process_start_time_seconds",
    &[],
    "when the process began, in seconds since 1970",
);
static LOG_DROPPED: Metric = Metric::counter(
    "undermesh_access_log_dropped",
    &[],
    "access log lines lost to a writer that is too slow, or to a failing sink",
);

/// Clock ticks per second that /proc counts in (`USER_HZ`, fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

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
        if let Some(count) = open_fds() {
            ConstGauge::new(count).encode(OPEN_FDS.describe(&mut encoder)?)?;
        }
        if let Some(most) = max_fds() {
            ConstGauge::new(most).encode(MAX_FDS.describe(&mut encoder)?)?;
        }
        if let Some(bytes) = resident_bytes() {
            ConstGauge::new(bytes).encode(RESIDENT_MEMORY.describe(&mut encoder)?)?;
        }
        if let Some(seconds) = cpu_seconds() {
            ConstCounter::new(seconds).encode(CPU.describe(&mut encoder)?)?;
        }
        if let Some(at) = start_time() {
            ConstGauge::new(at).encode(START_TIME.describe(&mut encoder)?)?;
        }
        let dropped = ConstCounter::new(self.access_log.dropped());
        dropped.encode(LOG_DROPPED.describe(&mut encoder)?)
    }
}

/// Without the descriptor that the directory itself is read through.
fn open_fds() -> Option<i64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(open).ok()?.checked_sub(1)
}

/// Resident memory: `VmRSS`, which /proc gives in units of 1024 bytes whatever the size of a page is.
pub fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The limit that is in force, of `Max open files`.
fn max_fds() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Field 22 of proc(5), in ticks since the machine began, and when that was.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + ticks as f64 / TICKS_PER_SECOND)
}

/// User and system time: fields 14 and 15 of proc(5), counted after the command's closing bracket.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn every_open_file_is_counted() {
        // Other tests open and close files meanwhile, so more are opened than those can hide.
        let before = open_fds().unwrap();
        let files: Vec<File> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        let during = open_fds().unwrap();
        assert!(during >= before + 400, "{before} -> {during} with {} more files", files.len());
    }

    #[test]
    fn memory_that_is_touched_is_resident() {
        const SIZE: usize = 64 << 20;
        let before = resident_bytes().unwrap();
        let memory = std::hint::black_box(vec![1_u8; SIZE]);
        let during = resident_bytes().unwrap();
        assert!(during - before > (SIZE / 2) as i64, "{before} -> {during}, {}", memory.len());
    }

    #[test]
    fn the_process_began_lately_and_may_open_more_than_it_has() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let ago = now.as_secs_f64() - start_time().unwrap();
        // `btime` is whole seconds, and clocks are set.
        assert!((-5.0..24.0 * 3600.0).contains(&ago), "began {ago} s ago");
        assert!(max_fds().unwrap() > open_fds().unwrap());
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = cpu_seconds().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while cpu_seconds().unwrap() <= before {
            assert!(std::time::Instant::now() < deadline, "still {before} s");
        }
    }
}
