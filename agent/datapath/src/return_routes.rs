//! Where the answers go of applications that see their clients' own addresses: back to the agent's
//! sockets inside the pod, and not out to the clients, who know nothing of these connections.
//!
//! The agent's sockets carry [`DELIVERY_MARK`]. Sockets that the application accepts from them take
//! the mark over, one rule leads what is marked to a table of its own, and the one route of that
//! table says that every address is here. What is not marked is not touched.
//!
//! A record on the BPF file system says which namespaces were changed, and in what:
//! `<pinDir>/return-routes/<netns cookie>-<settings>` is a symbolic link to the namespace.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    DatapathError, Netns, bpffs,
    netlink::{Body, DUMP, Netlink, Protocol},
};

mod family;

use family::Family;

/// The mark of the agent's sockets that deliver.
pub const DELIVERY_MARK: u32 = 0x756d_0001;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DIRECTORY: &str = "return-routes";
/// Switches of a network namespace, and whether they are about IPv6 only: accepted sockets and
/// answers without a socket (resets) have the mark of what they answer.
const SETTINGS: [(&str, bool); 3] = [
    ("net/ipv4/tcp_fwmark_accept", false),
    ("net/ipv4/fwmark_reflect", false),
    ("net/ipv6/fwmark_reflect", true),
];

/// Rules and routes inside pods' network namespaces.
#[derive(Debug)]
pub struct ReturnRoutes {
    records: PathBuf,
    /// Cookies of the namespaces of pods that want them.
    wanted: BTreeSet<u64>,
}

impl ReturnRoutes {
    pub(crate) fn new(pin_dir: &Path) -> Self {
        Self { records: pin_dir.join(DIRECTORY), wanted: BTreeSet::new() }
    }

    /// Puts into a pod's namespace what is missing there.
    ///
    /// # Errors
    /// Where a rule, a route or a mark of the pod's own stands in the way, or the kernel refuses
    /// a change. What was made before that goes with the next [`Self::tidy`].
    pub fn add(&mut self, netns: &Netns, addresses: &[IpAddr]) -> Result<(), DatapathError> {
        let families = Family::of(addresses);
        let wrap = |reason: String| DatapathError::ReturnRoute {
            namespace: netns.path().display().to_string(),
            reason,
        };
        let inside = |error: io::Error| wrap(error.to_string());
        let off = netns.run(|| check(&families)).map_err(inside)?.map_err(wrap)?;
        self.record(netns, off)?;
        netns.run(|| make(&families)).map_err(inside)?.map_err(wrap)?;
        self.wanted.insert(netns.cookie());
        Ok(())
    }

    /// The pod wants them no more; they go when nobody needs them.
    pub fn release(&mut self, netns_cookie: u64) {
        self.wanted.remove(&netns_cookie);
    }

    /// Leaves namespaces as they were where no pod wants anything else and the last connection has
    /// ended that needs its way back, whichever agent has made it. Returns how many.
    ///
    /// # Errors
    /// Where the kernel refuses; a namespace that has gone is as good.
    pub fn tidy(&self) -> Result<usize, DatapathError> {
        undo(&self.records, |record| !self.wanted.contains(&record.cookie) && !record.is_in_use())
    }

    /// Adds to what is on record: a setting that an agent before this one has switched on is still
    /// to be switched off.
    fn record(&self, netns: &Netns, off: u8) -> Result<(), DatapathError> {
        let dir = &self.records;
        fs::create_dir_all(dir).map_err(DatapathError::file("create", dir))?;
        let old: Vec<Record> =
            records(dir)?.into_iter().filter(|found| found.cookie == netns.cookie()).collect();
        let settings = old.iter().fold(off, |all, found| all | found.settings);
        if old.iter().any(|found| found.settings == settings && found.netns == netns.path()) {
            return Ok(());
        }
        for stale in &old {
            bpffs::unpin(&stale.path)?;
        }
        let path = dir.join(format!("{}-{settings}", netns.cookie()));
        symlink(netns.path(), &path).map_err(DatapathError::file("create", path))
    }
}

/// Leaves every namespace as it was.
pub(crate) fn cleanup(pin_dir: &Path) -> Result<usize, DatapathError> {
    let dir = pin_dir.join(DIRECTORY);
    let count = undo(&dir, |_| true)?;
    // Not there where nobody has asked for a transparent source address.
    let _ = fs::remove_dir(dir);
    Ok(count)
}

fn undo(dir: &Path, chosen: impl Fn(&Record) -> bool) -> Result<usize, DatapathError> {
    let records: Vec<Record> = records(dir)?.into_iter().filter(chosen).collect();
    records.iter().try_for_each(Record::undo)?;
    Ok(records.len())
}

/// What was done to one namespace.
struct Record {
    path: PathBuf,
    cookie: u64,
    /// The [`SETTINGS`] that were off before, one bit each.
    settings: u8,
    netns: PathBuf,
}

impl Record {
    fn read(path: PathBuf) -> Option<Self> {
        let (cookie, settings) = path.file_name()?.to_str()?.split_once('-')?;
        let (cookie, settings) = (cookie.parse().ok()?, settings.parse().ok()?);
        let netns = fs::read_link(&path).ok()?;
        Some(Self { path, cookie, settings, netns })
    }

    /// Whether a connection is left that needs its way back. Not knowing is no reason to cut it.
    fn is_in_use(&self) -> bool {
        let Some(netns) = self.namespace() else { return false };
        let marked = netns.run(marked_sockets).and_then(|found| found);
        marked.unwrap_or_else(|error| {
            tracing::debug!(netns = %self.netns.display(), %error, "cannot list its sockets");
            true
        })
    }

    fn undo(&self) -> Result<(), DatapathError> {
        if let Some(netns) = self.namespace() {
            let undone = netns.run(|| unmake(self.settings)).and_then(|undone| undone);
            undone.map_err(|error| DatapathError::ReturnRoute {
                namespace: self.netns.display().to_string(),
                reason: format!("cannot remove what it needed: {error}"),
            })?;
        }
        bpffs::unpin(&self.path).map(drop)
    }

    /// The namespace, unless another one lives there now, or none.
    fn namespace(&self) -> Option<Netns> {
        Netns::open(&self.netns).ok().filter(|netns| netns.cookie() == self.cookie)
    }
}

fn records(dir: &Path) -> Result<Vec<Record>, DatapathError> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().filter_map(|e| Record::read(e.path())).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(DatapathError::file("list", dir)(error)),
    }
}

/// Settings that are to be switched on, one bit each; an error where something is in the way.
/// Runs inside the namespace, as do the two below.
fn check(families: &[Family]) -> Result<u8, String> {
    families.iter().try_for_each(|family| family.check())?;
    let mut off = 0;
    for (bit, (name, _)) in settings(families) {
        let value = fs::read_to_string(sysctl(name)).map_err(|error| no_setting(name, &error))?;
        if value.trim() == "0" {
            off |= 1 << bit;
        }
    }
    Ok(off)
}

fn make(families: &[Family]) -> Result<(), String> {
    for (_, (name, _)) in settings(families) {
        fs::write(sysctl(name), "1").map_err(|error| no_setting(name, &error))?;
    }
    families.iter().try_for_each(|family| family.make())
}

fn unmake(settings: u8) -> io::Result<()> {
    for family in [Family::V4, Family::V6] {
        family.unmake()?;
    }
    for (bit, (name, _)) in SETTINGS.iter().enumerate() {
        if settings & (1 << bit) != 0 {
            fs::write(sysctl(name), "0")?;
        }
    }
    Ok(())
}

/// Whether a TCP connection of this namespace carries our mark.
fn marked_sockets() -> io::Result<bool> {
    let mut netlink = Netlink::open(Protocol::Sockets)?;
    for family in [Family::V4, Family::V6] {
        if !netlink.ask(SOCK_DIAG_BY_FAMILY, DUMP, &marked(family))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Asks for the connections of a family that carry our mark: `struct inet_diag_req_v2`, and a
/// filter of one condition, which leads to its end or beyond (sock_diag(7)).
fn marked(family: Family) -> Body {
    const TCP: u8 = 6;
    // Everything but TIME_WAIT, CLOSE and LISTEN.
    const STATES: u32 = 0xfff & !(1 << 6 | 1 << 7 | 1 << 10);
    const ID_LENGTH: usize = 48;
    const FILTER: u16 = 1;
    const MARK_CONDITION: u8 = 10;
    let mut request = vec![family.number(), TCP, 0, 0];
    request.extend(STATES.to_ne_bytes());
    request.extend([0; ID_LENGTH]);
    let mut filter = vec![MARK_CONDITION, 12];
    filter.extend(16_u16.to_ne_bytes());
    filter.extend(DELIVERY_MARK.to_ne_bytes());
    filter.extend(u32::MAX.to_ne_bytes());
    Body::of(request).with(FILTER, &filter)
}

/// The settings that these families need, with their numbers.
fn settings(families: &[Family]) -> impl Iterator<Item = (usize, &(&str, bool))> {
    let v6 = families.contains(&Family::V6);
    SETTINGS.iter().enumerate().filter(move |(_, (_, only_v6))| v6 || !only_v6)
}

fn sysctl(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn no_setting(name: &str, error: &io::Error) -> String {
    format!("cannot set {name}: {error}; the agent needs /proc/sys to be writable")
}
