//! The cgroups of this node's pods: listed with the ids that the kernel reports, and watched for
//! coming, going, and becoming populated.

use std::{
    fs,
    io::{self, ErrorKind},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};
use undermesh_ebpf_common::GATE_LEVELS;

use crate::{CgroupRoot, DatapathError, cgroup::MEMBERS, sys};

/// Every directory of the hierarchy but its root has this file (cgroup v2, "Core Interface Files").
const NOT_THE_ROOT: &str = "cgroup.type";
/// The kernel says here, by a notification, when the first process comes and the last one goes.
const EVENTS: &str = "cgroup.events";

/// One cgroup below the one in which pods run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// The id that programs see.
    pub id: u64,
    /// Its directory.
    pub path: PathBuf,
}

impl PodCgroup {
    /// The processes of this very cgroup; none where it has gone.
    pub fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join(MEMBERS)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// The cgroup in which pods run.
#[derive(Debug)]
pub struct PodCgroups {
    path: PathBuf,
    id: u64,
    level: u32,
    inotify: AsyncFd<Inotify>,
    /// The kernel has refused to watch one more cgroup, and it has been said.
    refused: AtomicBool,
}

#[derive(Debug)]
struct Inotify(OwnedFd);

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl PodCgroups {
    /// Opens `path`, and begins to watch it.
    ///
    /// # Errors
    /// Where there is no such cgroup, where only a part of the hierarchy is mounted (levels could not
    /// be told), or where the kernel gives no inotify instance.
    pub fn open(root: &CgroupRoot, path: &Path) -> Result<Self, DatapathError> {
        if root.path().join(NOT_THE_ROOT).exists() {
            return Err(DatapathError::PartOfTheHierarchy(root.path().to_owned()));
        }
        let below = path
            .strip_prefix(root.path())
            .map_err(|_| DatapathError::OutsideTheHierarchy(path.to_owned()))?;
        let metadata = path.metadata().map_err(DatapathError::file("open cgroup", path))?;
        let refused = || DatapathError::file("watch", path);
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| refused()(error.into()))?;
        Ok(Self {
            path: path.to_owned(),
            id: metadata.ino(),
            level: below.components().count() as u32,
            inotify: sys::async_fd(Inotify(fd), Interest::READABLE).map_err(refused())?,
            refused: AtomicBool::new(false),
        })
    }

    /// The id of the cgroup in which pods run.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its level in the hierarchy; the root's is 0.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Lists the cgroups below it, outer ones first, as deep as the programs look; from then on
    /// [`Self::changed`] tells of changes.
    ///
    /// # Errors
    /// Where the cgroup itself cannot be read or watched.
    pub fn list(&self) -> Result<Vec<PodCgroup>, DatapathError> {
        let mut found = Vec::new();
        self.collect(&self.path, GATE_LEVELS, &mut found)
            .map_err(DatapathError::file("watch", &self.path))?;
        Ok(found)
    }

    /// Waits until something has changed; what, [`Self::list`] tells.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn changed(&mut self) -> Result<(), DatapathError> {
        let failed = |error| DatapathError::file("watch", &self.path)(error);
        loop {
            let mut ready = self.inotify.readable().await.map_err(failed)?;
            let heard = drain(&ready.get_inner().0).map_err(failed)?;
            ready.clear_ready();
            if heard {
                return Ok(());
            }
        }
    }

    /// Watches a directory before it is read, so that nothing comes in between unseen.
    fn collect(&self, dir: &Path, levels: u32, found: &mut Vec<PodCgroup>) -> io::Result<()> {
        if levels == 0 {
            return Ok(());
        }
        self.watch(dir, WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let path = entry.path();
            let seen = self.watch(&path.join(EVENTS), WatchFlags::MODIFY).and_then(|()| {
                found.push(PodCgroup { id: path.metadata()?.ino(), path: path.clone() });
                self.collect(&path, levels - 1, found)
            });
            match seen {
                // Removed meanwhile, of which the kernel tells.
                Err(error) if is_gone(&error) => {}
                seen => seen?,
            }
        }
        Ok(())
    }

    fn watch(&self, path: &Path, what: WatchFlags) -> io::Result<()> {
        match inotify::add_watch(&self.inotify.get_ref().0, path, what) {
            Err(Errno::NOSPC) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let path = path.display();
                    tracing::warn!(%path, "cannot be watched; raise fs.inotify.max_user_watches");
                }
                Ok(())
            }
            result => Ok(result.map(drop)?),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Reads everything that there is to read; whether there was anything. An overflow is an event too.
fn drain(fd: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(fd, &mut buffer);
    let mut heard = false;
    loop {
        match events.next() {
            Ok(_) => heard = true,
            Err(Errno::AGAIN) => return Ok(heard),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
