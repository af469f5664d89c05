//! What is in a pin directory, without taking any of it over.

use std::{fs, path::Path};

use serde::Serialize;

use crate::bpffs;

/// Where a pin directory stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PinDirectory {
    /// It is on a BPF file system, or would be when made.
    pub on_bpffs: bool,
    /// It is not, but an agent mounts one there by itself.
    pub mounted_on_demand: bool,
    /// The sets of pins in it.
    pub sets: Vec<PinnedSet>,
}

/// The pins of one version of the maps' layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedSet {
    /// Name of its directory, `v6` for example.
    pub name: String,
    /// It is of the layout that this binary uses.
    pub is_ours: bool,
    /// Links at cgroups and in pods.
    pub links: usize,
    /// Maps.
    pub maps: usize,
}

impl PinDirectory {
    /// Looks at a directory, which need not be there.
    pub fn look(pin_dir: &Path) -> Self {
        let on_bpffs = bpffs::is_on_bpffs(pin_dir);
        let own = bpffs::version_name();
        let entries = fs::read_dir(pin_dir).into_iter().flatten().flatten();
        let mut sets: Vec<PinnedSet> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| bpffs::is_version(name))
            .map(|name| {
                let count = |kind: &str| {
                    fs::read_dir(pin_dir.join(&name).join(kind)).map_or(0, Iterator::count)
                };
                let (links, maps) = (count("links") + count("pods"), count("maps"));
                PinnedSet { is_ours: name == own, name, links, maps }
            })
            .collect();
        sets.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            on_bpffs,
            mounted_on_demand: !on_bpffs && bpffs::is_mounted_on_demand(pin_dir),
            sets,
        }
    }
}
