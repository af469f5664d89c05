//! How much is used of what the agent needs: memory, file descriptors, and time on the threads that carry
//! connections. What follows from it is the proxy's to decide.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use undermesh_datapath::CgroupRoot;
use undermesh_proxy::{Pressure, Proxy};
use undermesh_telemetry::resident_bytes;

/// How often is looked.
const TICK: Duration = Duration::from_millis(250);

/// What is bearable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverloadConfig {
    /// Resident memory in bytes, beside what cgroups allow.
    pub(crate) memory: Option<u64>,
    /// How late the threads that carry connections may be.
    pub(crate) delay: Duration,
}

/// Tells the proxy for as long as the process lives.
pub(crate) async fn watch(proxy: Arc<Proxy>, config: OverloadConfig) {
    let cgroups = own_cgroups();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        proxy.observe(Pressure {
            memory: memory(&cgroups, config.memory),
            descriptors: descriptors(),
            delay: proxy.delay().as_secs_f64() / config.delay.as_secs_f64(),
        });
    }
}

/// The cgroups that the process counts in, from its own upwards.
fn own_cgroups() -> Vec<PathBuf> {
    let Ok(root) = CgroupRoot::find() else { return Vec::new() };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Vec::new();
    };
    let own = root.path().join(own.trim_start_matches('/'));
    own.ancestors().take_while(|dir| dir.starts_with(root.path())).map(Path::to_owned).collect()
}

/// Of the nearest limit. What cannot be read is no pressure: nobody is refused for want of a file.
fn memory(cgroups: &[PathBuf], limit: Option<u64>) -> f64 {
    let resident = || u64::try_from(resident_bytes()?).ok();
    let of_limit = limit.and_then(|limit| Some(share(resident()?, limit)));
    let of_cgroups = cgroups.iter().filter_map(|dir| of_cgroup(dir));
    of_cgroups.chain(of_limit).fold(0.0, f64::max)
}

/// Of one cgroup's `memory.max`, without files that the kernel would drop before it kills anybody.
fn of_cgroup(dir: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let statistics = read("memory.stat").unwrap_or_default();
    let files = statistics.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let files = files.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    Some(share(used.saturating_sub(files), limit))
}

fn descriptors() -> f64 {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return 0.0 };
    open_files().map_or(0.0, |open| share(open, limit))
}

/// Linux 6.2 says how many there are without that they have to be listed.
fn open_files() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

fn share(used: u64, limit: u64) -> f64 {
    used as f64 / limit.max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use undermesh_tests::Files;

    use super::*;

    #[test]
    fn the_tightest_limit_of_memory_counts_and_dropped_files_do_not() {
        let own = Files::new(&[("memory.max", "max\n"), ("memory.current", "900\n")]).unwrap();
        let above = Files::new(&[
            ("memory.max", "1000\n"),
            ("memory.current", "900\n"),
            ("memory.stat", "anon 1\ninactive_file 200\nactive_file 9\n"),
        ]);
        let above = above.unwrap();
        let cgroups = [own.path().to_owned(), above.path().to_owned()];
        assert_eq!(of_cgroup(&cgroups[0]), None, "without a limit there is no pressure");
        assert!((memory(&cgroups, None) - 0.7).abs() < 1e-9);
        assert!(memory(&cgroups, Some(1)) > 1.0, "a limit of the settings counts as well");
        assert_eq!(memory(&["/nowhere".into()], None), 0.0);
    }

    #[test]
    fn open_files_are_counted() {
        let before = open_files().unwrap();
        let files: Vec<File> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        // Other tests open and close files meanwhile.
        assert!(open_files().unwrap() >= before + 250);
        assert!(descriptors() > 0.0);
        drop(files);
    }
}
