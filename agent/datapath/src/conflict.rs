//! Who keeps us from attaching. A program that was attached without flags tolerates no other in its
//! cgroup nor below it, and the kernel answers EPERM without saying why. Socket load balancers of
//! some CNIs have attached so, and do so still on nodes that were upgraded from such a version.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;

use crate::{CgroupRoot, sys};

/// A program that tolerates no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exclusive {
    cgroup: PathBuf,
    programs: Vec<(u32, String)>,
}

impl std::fmt::Display for Exclusive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let programs: Vec<String> =
            self.programs.iter().map(|(id, name)| format!("{id} ({name})")).collect();
        write!(
            f,
            "program {} is attached to cgroup {} without BPF_F_ALLOW_MULTI and tolerates no other \
             there or below; detach it (`bpftool cgroup detach`), or have its owner attach it with \
             the flag, for example by draining and rebooting the node",
            programs.join(", "),
            self.cgroup.display()
        )
    }
}

/// Looks for one at a cgroup and all above it.
pub(crate) fn exclusive(cgroup: &Path, attach_type: u32) -> Option<Exclusive> {
    let root = CgroupRoot::find().ok()?;
    cgroup.ancestors().take_while(|above| above.starts_with(root.path())).find_map(|above| {
        let file = File::open(above).ok()?;
        let (flags, ids) = sys::cgroup_programs(file.as_fd(), attach_type).ok()?;
        let programs = || ids.iter().map(|id| (*id, name(*id))).collect();
        (flags == 0 && !ids.is_empty())
            .then(|| Exclusive { cgroup: above.to_owned(), programs: programs() })
    })
}

fn name(id: u32) -> String {
    loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| "unnamed".to_owned())
}
