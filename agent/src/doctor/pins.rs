//! The BPF file system, and what is pinned there.

use undermesh_datapath::{PinDirectory, PinnedSet};

use super::{catalogue::Kind, finding::Finding, situation::Situation};

pub(super) fn check_file_system(situation: &Situation) -> Vec<Finding> {
    let pin_dir = &situation.outline.pin_dir;
    let object = pin_dir.display().to_string();
    let directory = PinDirectory::look(pin_dir);
    if directory.mounted_on_demand {
        let found = "no BPF file system is mounted there";
        return vec![Finding::new(Kind::BpffsUnmounted, object, found)];
    }
    let missing = (!directory.on_bpffs)
        .then(|| Finding::new(Kind::BpffsMissing, object, "it is not on a BPF file system"));
    missing.into_iter().collect()
}

pub(super) fn check_pins(situation: &Situation) -> Vec<Finding> {
    let pin_dir = &situation.outline.pin_dir;
    let directory = PinDirectory::look(pin_dir);
    let pinned = directory.sets.iter().filter(|set| set.links + set.maps > 0);
    let finding = |set: &PinnedSet| {
        let object = pin_dir.join(&set.name).display().to_string();
        let PinnedSet { links, maps, .. } = set;
        let what = format!("links: {links}, maps: {maps}");
        match (set.is_ours, situation.status()) {
            (false, _) => Some(Finding::new(Kind::PinsOtherVersion, object, what)),
            (true, Err(_)) => Some(Finding::new(Kind::PinsWithoutAgent, object, what)),
            (true, Ok(_)) => None,
        }
    };
    pinned.filter_map(finding).collect()
}
