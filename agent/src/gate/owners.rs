//! Whose a cgroup is: by the manifest that names it, or by the network namespace of its processes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use undermesh_datapath::{CgroupRoot, GateMark, GateSubject, Netns, NetnsId, PodCgroup};
use undermesh_model::{NamespacedName, PodLocation};
use undermesh_snapshot::{PodPlace, Snapshot};

use crate::pod_cgroup::uid_of;

/// How many processes of a cgroup are looked at. Those of one container share their namespace.
const MAX_PROCESSES: usize = 64;

/// What is known of a cgroup or of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) mark: GateMark,
    /// The pod that it belongs to.
    pub(super) owner: Option<NamespacedName>,
}

/// What [`Owners::claims`] finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) claims: BTreeMap<GateSubject, Claim>,
    /// Cgroups with processes in a namespace of their own, of which nobody knows whose they are.
    pub(super) strangers: BTreeSet<u64>,
    /// Cgroups that are somebody's; should he disappear, they are not new.
    pub(super) known: BTreeSet<u64>,
}

/// The pods of this node by where they are.
pub(super) struct Owners {
    by_cgroup: HashMap<PathBuf, Claim>,
    by_uid: HashMap<String, Claim>,
    namespaces: HashSet<NetnsId>,
    marked: BTreeMap<GateSubject, Claim>,
    host: Option<NetnsId>,
}

impl Owners {
    /// Looks where the pods are. The namespaces of those that are programmed need no mark.
    pub(super) fn new(
        snapshot: &Snapshot,
        root: &CgroupRoot,
        exempt: &BTreeSet<String>,
        is_programmed: impl Fn(&NamespacedName) -> bool,
    ) -> Self {
        let host = NetnsId::of(Path::new("/proc/self/ns/net")).ok();
        let mut owners = Self {
            by_cgroup: HashMap::new(),
            by_uid: HashMap::new(),
            namespaces: HashSet::new(),
            marked: BTreeMap::new(),
            host,
        };
        for place in &snapshot.places {
            let claim = claim(place, exempt);
            match &place.location {
                PodLocation::Cgroup(path) => {
                    owners.by_cgroup.insert(root.resolve(path), claim);
                }
                PodLocation::Uid(uid) => {
                    owners.by_uid.insert(uid.to_ascii_lowercase(), claim);
                }
                PodLocation::Netns(path) => {
                    let programmed = place.enrolled && is_programmed(&place.name);
                    owners.add_namespace(path, (!programmed).then_some(claim));
                }
            }
        }
        owners
    }

    /// One that is not there yet has no processes either. By its cookie, as inodes are used again.
    fn add_namespace(&mut self, path: &Path, claim: Option<Claim>) {
        self.namespaces.extend(NetnsId::of(path));
        if let Some(claim) = claim
            && let Ok(netns) = Netns::open(path)
            && !netns.is_own()
        {
            self.marked.insert(GateSubject::Netns(netns.cookie()), claim);
        }
    }

    /// Sorts cgroups, outer ones first. A cgroup below one that belongs to somebody is left out, as it
    /// belongs to the same; so are those of which it is `settled` that they belong to nobody.
    pub(super) fn claims(&self, cgroups: &[PodCgroup], settled: &BTreeSet<u64>) -> Found {
        let mut found = Found { claims: self.marked.clone(), ..Found::default() };
        let mut named: Vec<&Path> = Vec::new();
        for cgroup in cgroups {
            if let Some(claim) = self.owner(&cgroup.path) {
                named.push(&cgroup.path);
                found.known.insert(cgroup.id);
                found.claims.insert(GateSubject::Cgroup(cgroup.id), claim.clone());
            } else if !settled.contains(&cgroup.id)
                && !named.iter().any(|path| cgroup.path.starts_with(path))
            {
                let namespaces = self.namespaces(cgroup);
                if namespaces.iter().any(|id| !self.namespaces.contains(id)) {
                    found.strangers.insert(cgroup.id);
                } else if !namespaces.is_empty() {
                    found.known.insert(cgroup.id);
                }
            }
        }
        found
    }

    /// What is known of a cgroup by its own name.
    fn owner(&self, path: &Path) -> Option<&Claim> {
        let by_uid = || self.by_uid.get(&uid_of(path.file_name()?)?);
        self.by_cgroup.get(path).or_else(by_uid)
    }

    /// The network namespaces of its processes, but the host's: who enters a pod comes from there.
    fn namespaces(&self, cgroup: &PodCgroup) -> BTreeSet<NetnsId> {
        let processes = cgroup.processes().into_iter();
        processes
            .take(MAX_PROCESSES)
            .filter_map(|pid| NetnsId::of(Path::new(&format!("/proc/{pid}/ns/net"))).ok())
            .filter(|id| Some(*id) != self.host)
            .collect()
    }
}

fn claim(place: &PodPlace, exempt: &BTreeSet<String>) -> Claim {
    let held = place.enrolled && !exempt.contains(&place.name.namespace);
    Claim {
        mark: if held { GateMark::Held } else { GateMark::Open },
        owner: Some(place.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, namespace: &str, path: &str, enrolled: bool) -> PodPlace {
        PodPlace {
            name: NamespacedName::new(namespace, name),
            location: PodLocation::Cgroup(path.into()),
            enrolled,
        }
    }

    fn cgroup(id: u64, path: &str) -> PodCgroup {
        PodCgroup { id, path: path.into() }
    }

    fn owners(places: Vec<PodPlace>) -> Owners {
        let snapshot = Snapshot { places, ..Snapshot::default() };
        let root = CgroupRoot::find().unwrap();
        Owners::new(&snapshot, &root, &["kube-system".to_owned()].into(), |_| false)
    }

    #[test]
    fn what_is_enrolled_is_held_unless_its_namespace_is_exempt() {
        let owners = owners(vec![
            place("web", "shop", "/c/web", true),
            place("listed", "shop", "/c/listed", false),
            place("dns", "kube-system", "/c/dns", true),
        ]);
        let cgroups = [cgroup(1, "/c/web"), cgroup(2, "/c/listed"), cgroup(3, "/c/dns")];
        let found = owners.claims(&cgroups, &BTreeSet::new());
        let marks: Vec<_> = found.claims.values().map(|claim| claim.mark).collect();
        assert_eq!(marks, [GateMark::Held, GateMark::Open, GateMark::Open]);
        assert_eq!(found.strangers, [].into());
    }

    #[test]
    fn what_lies_below_belongs_to_the_same_pod_and_what_lies_beside_does_not() {
        let owners = owners(vec![place("web", "shop", "/c/web", true)]);
        let cgroups = [cgroup(1, "/c/web"), cgroup(2, "/c/web/main"), cgroup(3, "/c/web2")];
        let found = owners.claims(&cgroups, &BTreeSet::new());
        assert_eq!(found.claims.keys().copied().collect::<Vec<_>>(), [GateSubject::Cgroup(1)]);
    }

    #[test]
    fn pods_are_known_by_their_uids_in_the_names_of_cgroups() {
        let uid = "1b4d2b6e-9a3f-4f6c-8a52-0c8c5ad3a0f1";
        let mut place = place("web", "shop", "", true);
        place.location = PodLocation::Uid(uid.to_owned());
        let owners = owners(vec![place]);
        let pod = format!("/c/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let inner = format!("{pod}/cri-containerd-0.scope");
        let other = pod.replace("1b4d", "ffff");
        let cgroups = [cgroup(1, &pod), cgroup(2, &inner), cgroup(3, &other)];
        let found = owners.claims(&cgroups, &BTreeSet::new());
        assert_eq!(found.claims.keys().copied().collect::<Vec<_>>(), [GateSubject::Cgroup(1)]);
    }

    #[test]
    fn an_empty_cgroup_says_nothing_yet() {
        let found = owners(vec![]).claims(&[cgroup(1, "/c/not-there")], &BTreeSet::new());
        assert_eq!((found.claims.len(), found.strangers.len()), (0, 0));
    }
}
