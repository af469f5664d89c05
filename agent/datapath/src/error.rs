//! What can go wrong between the agent and the kernel.

use std::{io, path::PathBuf};

use aya::maps::MapError;

use crate::READABLE_MAPS;

/// An error of the data path. Each says which object it is about and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The binary holds no programs.
    #[error(
        "this binary was built without its eBPF programs; run `cargo xtask build-ebpf` and build it again"
    )]
    NoPrograms,
    /// A file or directory could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pin directory is not on a BPF file system.
    #[error(
        "{} is not on a BPF file system; mount one with `mount -t bpf bpf DIR` and point pinDir below it",
        .0.display()
    )]
    NotBpffs(PathBuf),
    /// No cgroup v2 hierarchy.
    #[error("no cgroup2 file system is mounted; mount one with `mount -t cgroup2 none DIR`")]
    NoCgroup2,
    /// What is mounted is not the whole hierarchy.
    #[error(
        "{} is a part of the cgroup2 hierarchy and not its root; run the agent in the host's cgroup namespace, or set `startupGate: off`",
        .0.display()
    )]
    PartOfTheHierarchy(PathBuf),
    /// A path is no cgroup.
    #[error("{} is not below the cgroup2 mount", .0.display())]
    OutsideTheHierarchy(PathBuf),
    /// The object file or one of its maps was refused.
    #[error("cannot load the eBPF object: {0}")]
    Load(String),
    /// A program was refused.
    #[error("the kernel refuses program {program}: {reason}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// The verifier's last words, or the kernel's answer.
        reason: String,
    },
    /// A program could not be attached.
    #[error("cannot attach {program} to {target}: {reason}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// A cgroup or a network namespace.
        target: String,
        /// The kernel's answer.
        reason: String,
    },
    /// A map has no room.
    #[error(
        "map {map} is full ({max_entries} entries) at {entry}; raise `{setting}` and restart the agent after `undermesh cleanup`"
    )]
    MapFull {
        /// Name of the map.
        map: &'static str,
        /// Its size.
        max_entries: u32,
        /// The entry that found no place.
        entry: String,
        /// The setting that sizes it.
        setting: &'static str,
    },
    /// A map that nobody has, or that cannot be read entry by entry.
    #[error("there is no map {0:?} to read; there are {known}", known = READABLE_MAPS.join(", "))]
    NoSuchMap(String),
    /// A map operation failed otherwise.
    #[error("cannot {action} map {map}: {reason}")]
    Map {
        /// What was tried, as a verb.
        action: &'static str,
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// A namespace cannot lead clients' addresses back to the agent.
    #[error("cannot deliver from clients' own addresses inside {namespace}: {reason}")]
    ReturnRoute {
        /// Which.
        namespace: String,
        /// What is in the way, and what to do about it.
        reason: String,
    },
    /// A network namespace could not be entered or asked.
    #[error("cannot {action} network namespace {namespace}")]
    Netns {
        /// What was tried, as a verb.
        action: &'static str,
        /// Which.
        namespace: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl DatapathError {
    /// Builds a function that wraps an I/O error about `path`.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Builds a function that wraps an error of writing `entry` into a map; a full one is named with
    /// its size and the setting that it follows from.
    pub(crate) fn write(
        map: &'static str,
        max_entries: u32,
        setting: &'static str,
        entry: impl FnOnce() -> String,
    ) -> impl FnOnce(MapError) -> Self {
        move |error| match error {
            MapError::SyscallError(error)
                if matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) =>
            {
                Self::MapFull { map, max_entries, entry: entry(), setting }
            }
            error => Self::Map { action: "write", map, reason: chain(&error) },
        }
    }

    /// Builds a function that wraps any error about map `map`.
    pub(crate) fn map<E: std::error::Error>(
        action: &'static str,
        map: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::Map { action, map, reason: chain(&error) }
    }
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
