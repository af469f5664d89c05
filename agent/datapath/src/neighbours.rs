//! Who else has programs where ours are, or will be: in our cgroup, above it and below it. What
//! runs for a connection are the programs of its own cgroup first, and then its ancestors', one
//! level after the other.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;
use serde::Serialize;

use crate::{CgroupRoot, attach::attach_type, probe::PROBE, sys};

/// Cgroups below ours that are looked at.
const MAX_BELOW: usize = 512;
/// Every name that our programs have, as the kernel cuts it short.
const OURS: &str = "undermesh_";
/// The hooks that we attach to.
const HOOKS: [&str; 7] = [
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/bind4",
    "cgroup/bind6",
    "cgroup/getpeername4",
    "cgroup/getpeername6",
    "sockops",
];

/// How a program has been attached with regard to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// `BPF_F_ALLOW_MULTI`, as every link is: others may be beside it.
    Shared,
    /// `BPF_F_ALLOW_OVERRIDE`: one in a cgroup below replaces it there.
    Overridable,
    /// No flags: nobody else may attach, there or below.
    Exclusive,
}

/// Where another program is, seen from our attach point; so also when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Relation {
    /// In a cgroup below ours: it runs first.
    Below,
    /// In our cgroup: those that were attached earlier run first.
    Same {
        /// It was attached before ours, or ours are not there.
        first: bool,
    },
    /// In an ancestor: it runs after ours.
    Above,
}

/// A program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// `cgroup/connect4` for example.
    pub hook: &'static str,
    /// Where it is attached.
    pub cgroup: PathBuf,
    /// The kernel's id of it.
    pub program_id: u32,
    /// Its name, of which the kernel keeps 15 characters.
    pub name: String,
    /// How it was attached.
    pub sharing: Sharing,
    /// Where and when.
    pub relation: Relation,
}

/// Programs of others at the hooks that we use: at `cgroup`, above it and below it. Cgroups that
/// cannot be read are left out.
pub fn neighbours(cgroup: &Path) -> Vec<Neighbour> {
    let Ok(root) = CgroupRoot::find() else { return Vec::new() };
    let names: Vec<(u32, String)> = loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect();
    let mut found = Vec::new();
    let above = cgroup.ancestors().skip(1).take_while(|dir| dir.starts_with(root.path()));
    let places = below(cgroup).into_iter().map(|dir| (dir, Place::Below));
    let places = places.chain([(cgroup.to_owned(), Place::Same)]);
    for (dir, place) in places.chain(above.map(|dir| (dir.to_owned(), Place::Above))) {
        let Ok(file) = File::open(&dir) else { continue };
        for hook in HOOKS {
            let programs = sys::cgroup_programs(file.as_fd(), attach_type(hook));
            let Ok((flags, ids)) = programs else { continue };
            found.extend(others(hook, &dir, place, flags, &ids, &names));
        }
    }
    found
}

#[derive(Clone, Copy)]
enum Place {
    Below,
    Same,
    Above,
}

/// The programs of one hook at one cgroup, without ours.
fn others(
    hook: &'static str,
    dir: &Path,
    place: Place,
    flags: u32,
    ids: &[u32],
    names: &[(u32, String)],
) -> Vec<Neighbour> {
    let name = |id: u32| {
        let known = names.iter().find(|(other, _)| *other == id);
        known.map_or_else(|| "unnamed".to_owned(), |(_, name)| name.clone())
    };
    // Ours are always shared: a program of that name which is not has been put there by hand.
    let is_ours = |id: u32| sharing(flags) == Sharing::Shared && name(id).starts_with(OURS);
    let ours = ids.iter().position(|id| is_ours(*id));
    let programs = ids.iter().enumerate().filter(|(_, id)| !is_ours(**id));
    let neighbour = |(index, id): (usize, &u32)| Neighbour {
        hook,
        cgroup: dir.to_owned(),
        program_id: *id,
        name: name(*id),
        sharing: sharing(flags),
        relation: match place {
            Place::Below => Relation::Below,
            Place::Same => Relation::Same { first: ours.is_none_or(|ours| index < ours) },
            Place::Above => Relation::Above,
        },
    };
    programs.map(neighbour).collect()
}

fn sharing(flags: u32) -> Sharing {
    const ALLOW_OVERRIDE: u32 = 1;
    const ALLOW_MULTI: u32 = 2;
    match flags {
        flags if flags & ALLOW_MULTI != 0 => Sharing::Shared,
        flags if flags & ALLOW_OVERRIDE != 0 => Sharing::Overridable,
        _ => Sharing::Exclusive,
    }
}

/// Cgroups below one, as far as there are not too many.
fn below(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![cgroup.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if found.len() >= MAX_BELOW {
                return found;
            }
            // A probe's own comes and goes.
            let is_probe = entry.file_name().as_encoded_bytes().starts_with(PROBE.as_bytes());
            if !is_probe && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
                next.push(entry.path());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_attached_before_ours_runs_first_and_ours_are_not_listed() {
        let names = [(1, "other"), (2, "undermesh_conne"), (3, "late")];
        let names = names.map(|(id, name)| (id, name.to_owned()));
        let dir = Path::new("/c");
        let found = others("cgroup/connect4", dir, Place::Same, 2, &[1, 2, 3], &names);
        let seen: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.relation)).collect();
        let same = |first| Relation::Same { first };
        assert_eq!(seen, [("other", same(true)), ("late", same(false))]);
        let alone = others("cgroup/connect4", dir, Place::Same, 2, &[3], &names);
        assert_eq!(alone[0].relation, same(true), "ours will be attached after it");
    }

    #[test]
    fn flags_say_whether_others_are_tolerated() {
        for (flags, expected) in
            [(0, Sharing::Exclusive), (1, Sharing::Overridable), (2, Sharing::Shared)]
        {
            assert_eq!(sharing(flags), expected);
        }
    }
}
