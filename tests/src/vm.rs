//! What `cargo xtask vm` and the first process of its virtual machines say to each other: a plan in
//! a file of the initramfs, and events as JSON lines on the second serial port.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the plan lies in the initramfs.
pub const PLAN: &str = "/plan.json";
/// The serial port that events go to; the first one is the kernel's console.
pub const EVENTS: &str = "/dev/ttyS1";
/// The directory of every program in the initramfs, and the whole of `PATH`.
pub const PROGRAMS: &str = "/bin";
/// The directory of kernel modules in the initramfs.
pub const MODULES: &str = "/modules";

/// What a virtual machine has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Files in [`MODULES`], in the order in which the kernel takes them.
    pub modules: Vec<String>,
    /// Tests, in order.
    pub tests: Vec<PlannedTest>,
}

/// One test function of one test executable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTest {
    /// The executable's name in [`PROGRAMS`].
    pub program: String,
    /// The test's name, whole.
    pub test: String,
    /// How many seconds it may take.
    pub limit: u64,
}

impl PlannedTest {
    /// How it is called in results.
    pub fn name(&self) -> String {
        format!("{}::{}", self.program, self.test)
    }

    /// How long it may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

/// What a virtual machine reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The kernel is up, and has its modules.
    Booted {
        /// What `uname -r` says.
        release: String,
    },
    /// Something that the tests rest on could not be set up.
    SetupFailed {
        /// What, and why.
        reason: String,
    },
    /// What `undermesh verify -o json` says: a list of programs.
    Programs {
        /// The list.
        programs: serde_json::Value,
    },
    /// A test begins.
    Started {
        /// Its name, as [`PlannedTest::name`].
        name: String,
    },
    /// A test has ended.
    Finished {
        /// Its name, as [`PlannedTest::name`].
        name: String,
        /// Whether it passed.
        passed: bool,
        /// How long it took.
        seconds: f64,
        /// The end of what it wrote; empty where it passed.
        output: String,
    },
    /// Everything has been run; the machine powers off.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_quotes() {
        let event = Event::SetupFailed { reason: "two\nlines \"quoted\"".to_owned() };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }
}
