//! The rings: how much of the world a test needs. Which one a test executable belongs to follows
//! from its package and file name alone.

use std::{fmt, time::Duration};

use anyhow::{Result, bail};

use super::execute::Limits;

/// The package whose integration tests are named after their ring.
const TESTS_PACKAGE: &str = "undermesh-tests";
/// The package whose own tests run whole proxies.
const PROXY_PACKAGE: &str = "undermesh-proxy";

/// How much of the world a test needs, from nothing to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// Nothing but the code.
    Unit,
    /// Sockets and processes of an ordinary user.
    Process,
    /// Root, network namespaces and the real programs.
    Netns,
    /// The kernel ring, in virtual machines. No executable is of it: it runs those of the one before.
    Vm,
}

impl Ring {
    /// The ring of the test executable `target` of `package`; `integration` says that it comes
    /// from the package's `tests` directory.
    pub(crate) fn of(package: &str, target: &str, integration: bool) -> Result<Self> {
        if package == PROXY_PACKAGE {
            // Whole proxies in one process, with real sockets and real TLS.
            return Ok(Self::Process);
        }
        if package != TESTS_PACKAGE || !integration {
            return Ok(Self::Unit);
        }
        match target.split('_').next() {
            Some("netns") => Ok(Self::Netns),
            Some("process") => Ok(Self::Process),
            _ => bail!("tests/tests/{target}.rs: name it process_*.rs or netns_*.rs, its ring"),
        }
    }

    /// How many executables run at once. Those that start agents wait more than they work.
    pub(crate) fn at_once(self) -> usize {
        match self {
            Self::Unit | Self::Vm => 1,
            Self::Process | Self::Netns => 2,
        }
    }

    /// How many tests of one executable run at once; `None` leaves it to the test harness.
    /// Namespace tests start several agents each and would starve one another on a small machine.
    pub(crate) fn threads(self) -> Option<u32> {
        match self {
            Self::Unit | Self::Process | Self::Vm => None,
            Self::Netns => Some(1),
        }
    }

    /// How long one executable may take before it is killed and counted as failed: as long as each of its tests ends in
    /// time, however many there are. The slowest takes a minute and a half on two cores.
    pub(crate) fn limits(self) -> Limits {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let silence = match self {
            // Examples in the documentation are compiled before the first of them says anything.
            Self::Unit => minutes(10),
            Self::Process | Self::Netns => minutes(5),
            // Of one machine; see `vm`.
            Self::Vm => minutes(45),
        };
        Limits { silence, whole: minutes(60) }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unit => "unit",
            Self::Process => "process",
            Self::Netns => "netns",
            Self::Vm => "vm",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_of_the_tests_package_belong_to_the_ring_in_their_name() {
        let ring = |target| Ring::of("undermesh-tests", target, true);
        assert_eq!(ring("netns_redirect").unwrap(), Ring::Netns);
        assert_eq!(ring("process_agent").unwrap(), Ring::Process);
        let error = ring("redirect").unwrap_err().to_string();
        assert!(error.contains("tests/tests/redirect.rs"), "{error}");
    }

    #[test]
    fn everything_beside_the_code_is_a_unit_test() {
        assert_eq!(Ring::of("undermesh-tests", "undermesh_tests", false).unwrap(), Ring::Unit);
        assert_eq!(Ring::of("undermesh-model", "netns_like", true).unwrap(), Ring::Unit);
    }

    #[test]
    fn the_proxys_own_tests_are_of_the_process_ring() {
        let ring = Ring::of("undermesh-proxy", "undermesh_proxy", false).unwrap();
        assert_eq!(ring, Ring::Process);
    }
}
