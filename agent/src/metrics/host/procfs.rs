//! Texts of `/proc`, as proc(5) and the kernel's documentation describe them. What is not as described is not there.

/// Clock ticks per second that /proc counts in (`USER_HZ`, fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;
/// Columns of the line `cpu`. Those after them are parts of `user` and `nice`.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// What has gone through a network device: bytes, packets, errors, drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device<'a> {
    pub(super) name: &'a str,
    pub(super) received: [u64; 4],
    pub(super) sent: [u64; 4],
}

/// Of all processors together, of `/proc/stat`.
pub(super) fn cpu_seconds(stat: &str) -> Vec<(&'static str, f64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = line.unwrap_or_default().split_whitespace().map_while(|word| word.parse().ok());
    MODES.into_iter().zip(ticks.map(|ticks: u64| ticks as f64 / TICKS_PER_SECOND)).collect()
}

/// Those that have a line of their own in `/proc/stat`.
pub(super) fn cpus(stat: &str) -> Option<i64> {
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let count = stat.lines().filter(is_one).count();
    i64::try_from(count).ok().filter(|count| *count > 0)
}

/// A line of `/proc/meminfo`, in bytes.
pub(super) fn memory(meminfo: &str, name: &str) -> Option<i64> {
    let mut lines = meminfo.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: i64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// How many files are open, and how many may be, of `/proc/sys/fs/file-nr`: handles, free handles, most.
pub(super) fn files(file_nr: &str) -> Option<(i64, i64)> {
    let mut words = file_nr.split_whitespace().map(str::parse::<i64>);
    let (handles, free, most) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
    Some((handles.checked_sub(free)?, most))
}

/// The lines of `/proc/net/dev`: sixteen columns, the first half of what was received.
pub(super) fn devices(dev: &str) -> Vec<Device<'_>> {
    let device = |line| -> Option<Device<'_>> {
        // A name may have a colon, the numbers have none.
        let (name, numbers): (&str, &str) = str::rsplit_once(line, ':')?;
        let numbers: Vec<u64> =
            numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let four = |from: usize| numbers.get(from..from + 4)?.try_into().ok();
        Some(Device { name: name.trim(), received: four(0)?, sent: four(8)? })
    };
    dev.lines().filter_map(device).collect()
}

/// Seconds of each share, of a file of `/proc/pressure`.
pub(super) fn pressure(text: &str) -> Vec<(&'static str, f64)> {
    let share = |name: &'static str| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
        let microseconds: u64 = total.parse().ok()?;
        Some((name, microseconds as f64 / 1e6))
    };
    ["some", "full"].into_iter().filter_map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_by_mode_and_guests_are_not_counted_twice() {
        let stat = "cpu  8738603 157941 764840 2425956 12543 0 146431 5340 77 0\n\
                    cpu0 4349907 81199 375074 1240302 4029 0 72541 2676 0 0\n\
                    cpu1 4388695 76742 389766 1185653 8513 0 73890 2663 77 0\n\
                    intr 301034 0 9\nctxt 1990473\nbtime 1062191376\n";
        let modes = cpu_seconds(stat);
        assert_eq!(modes.len(), 8);
        assert_eq!((modes[0], modes[7]), (("user", 87_386.03), ("steal", 53.4)));
        assert_eq!(cpus(stat), Some(2));
        // Linux before 2.6.11 had no `steal`.
        assert_eq!(cpu_seconds("cpu 100 0 0 200 x\n").last(), Some(&("idle", 2.0)));
        assert_eq!((cpu_seconds(""), cpus("")), (Vec::new(), None));
    }

    #[test]
    fn memory_is_read_in_bytes_and_by_its_whole_name() {
        let meminfo = "MemTotal:       24684092 kB\nMemFree:         7143712 kB\n\
                       MemAvailable:   18585532 kB\nHugePages_Total:       0\n";
        assert_eq!(memory(meminfo, "MemTotal"), Some(24_684_092 * 1024));
        assert_eq!(memory(meminfo, "MemAvailable"), Some(18_585_532 * 1024));
        assert_eq!(memory(meminfo, "Mem"), None);
        assert_eq!(memory(meminfo, "HugePages_Total"), None, "no size");
        assert_eq!(memory("MemTotal: 9223372036854775807 kB\n", "MemTotal"), None);
        assert_eq!(memory("", "MemTotal"), None);
    }

    #[test]
    fn free_handles_are_not_open_files() {
        assert_eq!(files("938\t0\t2466177\n"), Some((938, 2_466_177)));
        assert_eq!(files("2048\t48\t9223372036854775807\n"), Some((2000, i64::MAX)));
        assert_eq!(files("938\t0\n"), None);
        assert_eq!(files(""), None);
    }

    #[test]
    fn devices_are_read_whatever_their_names_are() {
        let dev = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 21463172760 6342584    0    0    0     0          0         0 21463172760 6342584    0    0    0     0       0          0\n  \
            eth0:1747607143   67754    1    2    0     0          0         9  3788155   40437    3    4    0     0       0          0\n \
            eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n   cut: 1 2 3\n";
        let found = devices(dev);
        let names: Vec<&str> = found.iter().map(|device| device.name).collect();
        assert_eq!(names, ["lo", "eth0", "eth0:1"]);
        assert_eq!(found[1].received, [1_747_607_143, 67_754, 1, 2]);
        assert_eq!(found[1].sent, [3_788_155, 40_437, 3, 4]);
        assert_eq!((found[2].received, found[2].sent), ([1, 2, 3, 4], [9, 10, 11, 12]));
        assert!(devices("").is_empty());
    }

    #[test]
    fn pressure_has_both_shares_or_those_that_there_are() {
        let text = "some avg10=52.02 avg60=53.71 avg300=64.94 total=29527478019\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n";
        assert_eq!(pressure(text), [("some", 29_527.478_019), ("full", 1.5)]);
        // Linux before 5.13 has no `full` for processors.
        assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"), [("some", 0.0)]);
        assert!(pressure("").is_empty());
    }
}
