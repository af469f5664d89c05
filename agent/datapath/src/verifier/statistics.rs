//! The line with which the verifier sums up its work.

/// What one verification has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Instructions looked at, once per path.
    pub(super) processed: u32,
    /// States kept, all in all.
    pub(super) total_states: u32,
    /// States kept at a time, at most.
    pub(super) peak_states: u32,
}

impl Statistics {
    /// Reads the last line of its kind (`print_verification_stats` in the kernel's `verifier.c`);
    /// zeros where a log has none.
    pub(super) fn read(log: &str) -> Self {
        let Some(line) = log.lines().rev().find(|line| line.starts_with("processed ")) else {
            return Self::default();
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let pair = words.windows(2).find(|pair| pair[0] == name);
            pair.and_then(|pair| pair[1].parse().ok()).unwrap_or(0)
        };
        Self {
            processed: after("processed"),
            total_states: after("total_states"),
            peak_states: after("peak_states"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summing_up_is_read_wherever_it_stands() {
        let log = "func#0 @0\nverification time 57 usec\nstack depth 96\nprocessed 1284 insns \
                   (limit 1000000) max_states_per_insn 4 total_states 97 peak_states 61 mark_read 12\n";
        let statistics = Statistics { processed: 1284, total_states: 97, peak_states: 61 };
        assert_eq!(Statistics::read(log), statistics);
    }

    #[test]
    fn a_log_without_it_counts_nothing() {
        assert_eq!(
            Statistics::read("unknown func bpf_get_netns_cookie#122\n"),
            Statistics::default()
        );
    }
}
