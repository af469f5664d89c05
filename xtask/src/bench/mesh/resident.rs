//! Resident memory of the mesh's processes, while something else goes on.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// The sum of processes' resident memory, in bytes.
pub(super) fn of(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| of_one(*pid)).sum()
}

fn of_one(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} of the mesh is gone"))?;
    parse(&text).with_context(|| format!("process {pid} has no resident memory"))
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Looks until it is asked what the most has been.
pub(super) struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    pub(super) fn begin(pids: &[u32]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, pids) = (Arc::clone(&ended), pids.to_owned());
        let thread = thread::spawn(move || {
            let mut most = of(&pids)?;
            while !stop.load(Ordering::Relaxed) {
                thread::park_timeout(EVERY);
                most = most.max(of(&pids)?);
            }
            Ok(most)
        });
        Self { ended, thread }
    }

    pub(super) fn end(self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| anyhow!("the watch over memory panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_in_bytes_and_a_dead_process_is_an_error() {
        assert_eq!(parse("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert_eq!(parse("Name:\tx\n"), None);
        assert!(of(&[std::process::id()]).unwrap() > 1 << 20);
        assert!(of(&[u32::MAX]).is_err());
        assert!(Watch::begin(&[std::process::id()]).end().unwrap() > 1 << 20);
    }
}
