//! Whether maps are charged to the memory cgroup or to RLIMIT_MEMLOCK.

use std::io;

use aya::maps::MapType;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Availability;
use crate::sys;

/// Makes a map while this process may lock no memory at all. Kernels that charge maps to that limit
/// refuse, whatever our capabilities. The limit is put back before this returns; nobody else must
/// make maps meanwhile.
pub(super) fn accounting() -> Availability {
    let before = getrlimit(Resource::Memlock);
    // Only the soft limit: raising that again is always allowed.
    if let Err(error) = setrlimit(Resource::Memlock, Rlimit { current: Some(0), ..before }) {
        return Availability::Unknown(format!("cannot lower RLIMIT_MEMLOCK: {error}"));
    }
    let lowered = make_map();
    if let Err(error) = setrlimit(Resource::Memlock, before) {
        tracing::warn!(%error, "cannot put RLIMIT_MEMLOCK back");
    }
    classify(lowered, make_map)
}

fn make_map() -> io::Result<()> {
    sys::map_create(MapType::Array as u32, 4, 4096, 1).map(drop)
}

/// A refusal is about the limit only where the same map can be made without it.
fn classify(lowered: io::Result<()>, again: impl FnOnce() -> io::Result<()>) -> Availability {
    match lowered {
        Ok(()) => Availability::Available,
        Err(refused) => match again() {
            Ok(()) => Availability::Missing(format!("maps count as locked memory: {refused}")),
            Err(error) => Availability::Unknown(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }

    #[test]
    fn a_refusal_counts_only_where_the_limit_makes_the_difference() {
        assert_eq!(classify(Ok(()), refused), Availability::Available);
        assert!(matches!(classify(refused(), || Ok(())), Availability::Missing(_)));
        assert!(matches!(classify(refused(), refused), Availability::Unknown(_)));
    }
}
