//! What is attached and how full the maps are, asked of the kernel and not of our own memory.

use std::{collections::BTreeMap, os::fd::AsFd, time::Duration};

use aya::programs::loaded_programs;
use serde::Serialize;
use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, GateKey, ListenerKey, LocalTuple, OriginalDst,
    OriginalDstKey, Pod, PolicyKey, PolicyVerdict, PortKey, Service, ServiceKey, WorkloadEntry,
};

use crate::{
    Datapath, DatapathError,
    load::POD_PROGRAM,
    open,
    sizes::setting_of,
    sys::{self, LinkTarget},
};

/// One program at one attach point.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Name in the object.
    pub name: &'static str,
    /// Kind of hook.
    pub hook: &'static str,
    /// The kernel's id of the program behind the link.
    pub program_id: u32,
    /// `cgroup ID`, `N network namespaces`, or `nothing`.
    pub attached_to: String,
    /// False where the link has lost its target or its pin.
    pub attached: bool,
}

/// How often one program has run, and for how long, since it was loaded and while the kernel counts
/// (`kernel.bpf_stats_enabled`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Name in the object.
    pub name: &'static str,
    /// Times that it has run.
    pub count: u64,
    /// Of all of them.
    pub time: Duration,
}

/// One map.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapStatus {
    /// Name of the map.
    pub name: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries that fit.
    pub max_entries: u64,
}

impl MapStatus {
    /// Occupancy in percent.
    pub fn percent(&self) -> u64 {
        (self.entries * 100).checked_div(self.max_entries).unwrap_or(0)
    }

    /// The setting that its size comes from.
    pub fn setting(&self) -> &'static str {
        setting_of(self.name)
    }
}

impl Datapath {
    /// Every program, as its pinned links say.
    pub fn programs(&self) -> Vec<ProgramStatus> {
        let mut programs: Vec<_> = self
            .attachments
            .iter()
            .map(|attachment| {
                let info =
                    sys::obj_get(&attachment.pin).and_then(|link| sys::link_info(link.as_fd()));
                let (program_id, attached_to, attached) = match info {
                    Ok((id, LinkTarget::Cgroup(cgroup))) if cgroup != 0 => {
                        (id, format!("cgroup {cgroup}"), true)
                    }
                    Ok((id, _)) => (id, "nothing".to_owned(), false),
                    Err(_) => (0, "nothing".to_owned(), false),
                };
                let (name, hook) = (attachment.program, attachment.hook);
                ProgramStatus { name, hook, program_id, attached_to, attached }
            })
            .collect();
        programs.push(self.pod_program());
        programs
    }

    /// Those of the attached programs that the kernel has counted, by name.
    pub fn program_runs(&self) -> Vec<ProgramRuns> {
        let programs = self.programs();
        let names: BTreeMap<u32, &'static str> =
            programs.iter().map(|program| (program.program_id, program.name)).collect();
        let mut runs: BTreeMap<&'static str, ProgramRuns> = BTreeMap::new();
        // What goes away in between is left out.
        for info in loaded_programs().flatten().filter(|info| info.run_count() > 0) {
            let Some(name) = names.get(&info.id()) else { continue };
            let none = ProgramRuns { name, count: 0, time: Duration::ZERO };
            let program = runs.entry(name).or_insert(none);
            program.count += info.run_count();
            program.time += info.run_time();
        }
        runs.into_values().collect()
    }

    fn pod_program(&self) -> ProgramStatus {
        let pins = std::fs::read_dir(&self.pins.pods).into_iter().flatten().flatten();
        let links: Vec<u32> = pins
            .filter_map(|pin| {
                let link = sys::obj_get(&pin.path()).ok()?;
                match sys::link_info(link.as_fd()).ok()? {
                    (id, LinkTarget::Netns(inode)) if inode != 0 => Some(id),
                    _ => None,
                }
            })
            .collect();
        ProgramStatus {
            name: POD_PROGRAM,
            hook: "sk_lookup",
            program_id: links.first().copied().unwrap_or(0),
            attached_to: format!("{} network namespaces", links.len()),
            attached: true,
        }
    }

    /// Every map whose entries can be counted, by opening its pin.
    ///
    /// # Errors
    /// Where a pinned map cannot be read.
    pub fn maps(&self) -> Result<Vec<MapStatus>, DatapathError> {
        Ok(vec![
            self.hash_status::<u64, Pod>("PODS")?,
            self.hash_status::<Addr, WorkloadEntry>("WORKLOADS")?,
            self.hash_status::<PolicyKey, PolicyVerdict>("POLICY")?,
            self.hash_status::<GateKey, u32>("GATE_MARKS")?,
            self.hash_status::<PortKey, u64>("LISTENING")?,
            self.hash_status::<PortKey, u32>("PROBE_PORTS")?,
            self.hash_status::<ServiceKey, Service>("SERVICES")?,
            self.hash_status::<BackendKey, Backend>("BACKENDS")?,
            self.blocks_status()?,
            self.hash_status::<OriginalDstKey, OriginalDst>("ORIGINAL_DST")?,
            self.hash_status::<LocalTuple, u64>("LOCAL_TUPLES")?,
            self.hash_status::<LocalTuple, u64>("DELIVERIES")?,
            self.listeners_status()?,
        ])
    }

    fn hash_status<K: aya::Pod, V: aya::Pod>(
        &self,
        name: &'static str,
    ) -> Result<MapStatus, DatapathError> {
        let opened = open::hash::<K, V>(&self.pins.maps, name)?;
        Ok(status(name, opened.max_entries, opened.map.keys()))
    }

    fn blocks_status(&self) -> Result<MapStatus, DatapathError> {
        let opened = open::trie::<BlockKey, Block>(&self.pins.maps, "BLOCKS")?;
        Ok(status("BLOCKS", opened.max_entries, opened.map.keys()))
    }

    fn listeners_status(&self) -> Result<MapStatus, DatapathError> {
        let opened = open::sockets::<ListenerKey>(&self.pins.maps, "LISTENERS")?;
        Ok(status("LISTENERS", opened.max_entries, opened.map.keys()))
    }
}

fn status<K, E>(
    name: &'static str,
    max_entries: u32,
    keys: impl Iterator<Item = Result<K, E>>,
) -> MapStatus {
    let entries = keys.filter(Result::is_ok).count() as u64;
    MapStatus { name, entries, max_entries: u64::from(max_entries) }
}
