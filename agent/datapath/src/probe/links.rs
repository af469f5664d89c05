//! Ways to attach, tried on a cgroup and on a network namespace of our own.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use super::{
    Availability, Feature, PROBE,
    programs::{Hook, load_smallest},
};
use crate::{CgroupRoot, sys};

/// Tells probes of one process apart.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// What came of attaching.
#[derive(Clone, Debug)]
pub(super) struct Links {
    cgroup: Availability,
    netns: Availability,
    pub(super) update: Availability,
    pub(super) detach: Availability,
}

impl Links {
    /// Attaches, updates and detaches.
    pub(super) fn probe() -> Self {
        let netns = thread::spawn(netns).join();
        let netns = netns.unwrap_or_else(|_| Availability::Unknown("the probe failed".to_owned()));
        match cgroup() {
            Ok(tried) => Self { netns, ..tried },
            Err(reason) => {
                let unknown = Availability::Unknown(reason);
                Self { cgroup: unknown.clone(), netns, update: unknown.clone(), detach: unknown }
            }
        }
    }

    /// Whether links of a kind can be made.
    pub(super) fn create(&self, feature: Feature) -> Availability {
        if feature == Feature::NetnsLink { self.netns.clone() } else { self.cgroup.clone() }
    }
}

/// A cgroup of this process's own. Dropping it removes it.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn make() -> Result<Self, String> {
        let root = CgroupRoot::find().map_err(|error| error.to_string())?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = root.path().join(format!("{PROBE}{}-{serial}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(cgroup = %self.0.display(), %error, "cannot remove the probe's cgroup");
        }
    }
}

fn cgroup() -> Result<Links, String> {
    let cgroup = OwnCgroup::make()?;
    let file = File::open(&cgroup.0).map_err(|error| error.to_string())?;
    let load = || load_smallest(Hook::Connect4).map_err(|(error, _)| error.to_string());
    let (first, second) = (load()?, load()?);
    let (_, attach_type) = Hook::Connect4.types();
    let made = sys::link_create(first.as_fd(), file.as_fd(), attach_type);
    let with = |call: &dyn Fn(BorrowedFd<'_>) -> io::Result<()>| match &made {
        Ok(link) => Availability::of(call(link.as_fd()).as_ref()),
        Err(error) => Availability::Unknown(format!("there is no link to try it on: {error}")),
    };
    let update = with(&|link| sys::link_update(link, second.as_fd()));
    let detach = with(&sys::link_detach);
    let netns = Availability::Unknown(String::new());
    Ok(Links { cgroup: Availability::of(made.as_ref()), netns, update, detach })
}

/// Runs on a thread of its own, whose namespace goes with it.
fn netns() -> Availability {
    let unknown = |error: io::Error| Availability::Unknown(error.to_string());
    if let Err(error) = sys::leave_netns() {
        return unknown(io::Error::other(format!("cannot make a network namespace: {error}")));
    }
    let namespace = match File::open("/proc/thread-self/ns/net") {
        Ok(namespace) => namespace,
        Err(error) => return unknown(error),
    };
    let link: Result<OwnedFd, io::Error> = load_smallest(Hook::SkLookup)
        .map_err(|(error, _)| error)
        .and_then(|program| sys::netns_link(program.as_fd(), namespace.as_fd()));
    Availability::of(link.as_ref())
}
