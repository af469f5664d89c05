//! The far ends of the native connections to one pod.
//!
//! A delivery that shows its client's own address and port (`sourceAddress: transparent`) has the
//! addresses of a connection from there to the application. Where a native connection has the very
//! same, the kernel could not tell the two apart.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Pairs of far and near address.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<HashSet<(SocketAddr, SocketAddr)>>);

/// One connection; forgotten when dropped.
pub(crate) struct Calling<'a> {
    callers: &'a Callers,
    addresses: (SocketAddr, SocketAddr),
}

impl Callers {
    /// Notes a connection from `peer` to `local`.
    pub(crate) fn add(&self, peer: SocketAddr, local: SocketAddr) -> Calling<'_> {
        let addresses = (peer, local);
        self.lock().insert(addresses);
        Calling { callers: self, addresses }
    }

    /// True while there is a connection from `peer` to `local`.
    pub(crate) fn has(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        self.lock().contains(&(peer, local))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.callers.lock().remove(&self.addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_for_as_long_as_it_is_connected_and_by_both_ends() {
        let callers = Callers::default();
        let (peer, local) = ("10.0.0.1:4711".parse().unwrap(), "10.0.1.1:80".parse().unwrap());
        let calling = callers.add(peer, local);
        assert!(callers.has(peer, local));
        assert!(!callers.has(peer, "10.0.1.1:81".parse().unwrap()));
        assert!(!callers.has("10.0.0.1:4712".parse().unwrap(), local));
        drop(calling);
        assert!(!callers.has(peer, local));
    }
}
