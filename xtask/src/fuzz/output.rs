//! What libFuzzer says, as far as it is wanted.

/// What was said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Inputs that were tried.
    pub(super) executions: u64,
    /// Edges that were reached.
    pub(super) coverage: u64,
    /// Inputs that are kept, because each reached something new.
    pub(super) corpus: u64,
    /// Where a finding was written.
    pub(super) reproducer: Option<String>,
    /// What went wrong, on one line.
    pub(super) wrong: Option<String>,
    /// The next line says what went wrong.
    message_follows: bool,
}

impl Seen {
    /// Takes what one line says.
    pub(super) fn read(&mut self, line: &str) {
        if std::mem::take(&mut self.message_follows) {
            let place = self.wrong.take().unwrap_or_default();
            self.wrong = Some(format!("{place} {}", line.trim()));
        }
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number(count).unwrap_or(self.executions);
        } else if let Some(rest) = line.strip_prefix('#') {
            self.executions = number(rest).unwrap_or(self.executions);
            self.coverage = after(line, "cov: ").unwrap_or(self.coverage);
            self.corpus = after(line, "corp: ").unwrap_or(self.corpus);
        } else if let Some((_, place)) = line.split_once("panicked at ") {
            self.wrong = Some(place.to_owned());
            self.message_follows = true;
        } else if let Some((_, what)) = line.split_once("ERROR: libFuzzer: ") {
            self.wrong.get_or_insert_with(|| what.to_owned());
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.reproducer = Some(path.trim().to_owned());
        }
    }
}

fn after(line: &str, word: &str) -> Option<u64> {
    number(line.split_once(word)?.1)
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str]) -> Seen {
        let mut seen = Seen::default();
        for line in lines {
            seen.read(line);
        }
        seen
    }

    #[test]
    fn the_last_numbers_count() {
        let seen = seen(&[
            "INFO: Seed: 1",
            "#1024\tINITED cov: 100 ft: 200 corp: 3/40b exec/s: 0 rss: 40Mb",
            "#2048\tpulse  cov: 101 ft: 205 corp: 14/2Kb lim: 8 exec/s: 9 rss: 41Mb",
            "stat::number_of_executed_units: 2100",
        ]);
        assert_eq!((seen.executions, seen.coverage, seen.corpus), (2100, 101, 14));
        assert_eq!((seen.wrong, seen.reproducer), (None, None));
    }

    #[test]
    fn a_finding_is_told_with_its_place_and_its_input() {
        let seen = seen(&[
            "thread '<unnamed>' (7) panicked at tests/fuzz/src/a.rs:3:9:",
            "assertion failed: one",
            "==1== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='/f/'; Test unit written to /f/crash-1",
        ]);
        assert_eq!(seen.wrong.unwrap(), "tests/fuzz/src/a.rs:3:9: assertion failed: one");
        assert_eq!(seen.reproducer.unwrap(), "/f/crash-1");
    }

    #[test]
    fn an_input_that_takes_too_long_is_a_finding_without_a_place() {
        let seen = seen(&["==1== ERROR: libFuzzer: timeout after 11 seconds"]);
        assert_eq!(seen.wrong.unwrap(), "timeout after 11 seconds");
    }
}
