//! Program types and attach types, by loading the smallest program of each.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use aya::maps::MapType;
use zerocopy::IntoBytes;

use super::{
    Availability,
    helpers::{MAP_LOOKUP, SK_ASSIGN, SK_RELEASE},
    instructions::{
        Instruction, R0, R1, R2, R3, R6, R7, STACK, add, call, copy, exit, if_zero, load_map, set,
        store,
    },
};
use crate::sys::{
    self,
    verifier::{LogLevel, ProgramImage, prog_load},
};

/// More than the verifier says about a few instructions.
const LOG_BYTES: usize = 16 << 10;

/// Where programs attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Connect4,
    Connect6,
    Bind4,
    Bind6,
    Getpeername4,
    Getpeername6,
    SockOps,
    SkLookup,
}

impl Hook {
    /// `enum bpf_prog_type` and `enum bpf_attach_type`.
    pub(super) const fn types(self) -> (u32, u32) {
        const SOCK_OPS: u32 = 13;
        const SOCK_ADDR: u32 = 18;
        const SK_LOOKUP: u32 = 30;
        match self {
            Self::Bind4 => (SOCK_ADDR, 8),
            Self::Bind6 => (SOCK_ADDR, 9),
            Self::Connect4 => (SOCK_ADDR, 10),
            Self::Connect6 => (SOCK_ADDR, 11),
            Self::Getpeername4 => (SOCK_ADDR, 29),
            Self::Getpeername6 => (SOCK_ADDR, 30),
            Self::SockOps => (SOCK_OPS, 3),
            Self::SkLookup => (SK_LOOKUP, sys::BPF_SK_LOOKUP),
        }
    }
}

/// Loads a program for a hook; the error comes with the verifier's words.
pub(super) fn load(hook: Hook, code: &[Instruction]) -> Result<OwnedFd, (io::Error, String)> {
    let (kind, attach_type) = hook.types();
    let instructions = code.as_bytes();
    let image = ProgramImage { kind, attach_type, instructions, license: c"GPL", btf: None };
    let (program, log) = prog_load(image, LogLevel::Path, LOG_BYTES);
    program.map_err(|error| (error, log))
}

/// A program that lets everything be as it is: 1 everywhere, which for sk_lookup is `SK_PASS`.
pub(super) fn load_smallest(hook: Hook) -> Result<OwnedFd, (io::Error, String)> {
    load(hook, &[set(R0, 1), exit()])
}

/// Asks for a hook.
pub(super) fn probe(hook: Hook) -> Availability {
    Availability::of(load_smallest(hook).as_ref().map_err(|(error, _)| error))
}

/// Asks for a whole program that finds a listener in a sockhash and leads a connection to it: the
/// verifier lets only some program types take sockets out of such maps.
pub(super) fn probe_assign() -> Availability {
    let assign = [copy(R1, R6), copy(R2, R7), set(R3, 0), call(SK_ASSIGN)];
    probe_sockhash(Hook::SkLookup, &assign)
}

/// Asks for a whole program that finds a socket in a sockhash, and does no more with it.
pub(super) fn probe_find() -> Availability {
    probe_sockhash(Hook::Connect4, &[])
}

fn probe_sockhash(hook: Hook, with_socket: &[Instruction]) -> Availability {
    match load_sockhash(hook, with_socket) {
        Ok(_) => Availability::Available,
        Err((error, log)) if log.is_empty() => Availability::of::<()>(Err(&error)),
        Err((_, log)) => Availability::Missing(complaint(&log).to_owned()),
    }
}

/// The verifier's last word, after which it only counts instructions.
fn complaint(log: &str) -> &str {
    let said = |line: &&str| !line.is_empty() && !line.starts_with("processed ");
    log.lines().rev().map(str::trim).find(said).unwrap_or_default()
}

/// Looks a socket up, does something `with_socket` (in R7; the context is in R6), and releases it.
fn load_sockhash(hook: Hook, with_socket: &[Instruction]) -> Result<OwnedFd, (io::Error, String)> {
    let (key, value) = (4, 8);
    let map = sys::map_create(MapType::SockHash as u32, key, value, 1)
        .map_err(|error| (error, String::new()))?;
    let found = [&[copy(R7, R0)], with_socket, &[copy(R1, R7), call(SK_RELEASE)]].concat();
    let key = [store(STACK, -4, 0), copy(R2, STACK), add(R2, -4)];
    let skip = i16::try_from(found.len()).unwrap_or_default();
    let look = [call(MAP_LOOKUP), if_zero(R0, skip)];
    let map_in_r1 = load_map(R1, map.as_raw_fd());
    let code = [&[copy(R6, R1)][..], &key, &map_in_r1, &look, &found, &[set(R0, 1), exit()]];
    load(hook, &code.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_verifier_says_only_the_complaint_is_kept() {
        let log = "0: (bf) r6 = r1\ncannot pass map_type 18 into func bpf_map_lookup_elem#1\n\
                   processed 7 insns (limit 1000000)\n";
        assert_eq!(complaint(log), "cannot pass map_type 18 into func bpf_map_lookup_elem#1");
        assert_eq!(complaint(""), "");
    }
}
