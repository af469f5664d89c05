//! Helpers, one for each type of program that calls it: the same helper is there for one and not
//! for another.

use socket2::{Domain, Socket, Type};

use super::{
    Availability,
    instructions::{call, exit},
    programs::{Hook, load},
};
use crate::sys;

/// Numbers of `enum bpf_func_id`.
pub(super) const MAP_LOOKUP: u32 = 1;
pub(super) const SETSOCKOPT: u32 = 49;
pub(super) const BIND: u32 = 64;
pub(super) const SK_LOOKUP_TCP: u32 = 84;
pub(super) const SK_RELEASE: u32 = 86;
pub(super) const SK_STORAGE_GET: u32 = 107;
pub(super) const GET_NETNS_COOKIE: u32 = 122;
pub(super) const ANCESTOR_CGROUP_ID: u32 = 123;
pub(super) const SK_ASSIGN: u32 = 124;
pub(super) const SET_RETVAL: u32 = 187;

/// How verifiers say that a helper is not there at all, or not for this type of program.
const UNKNOWN: [&str; 3] =
    ["invalid func ", "unknown func ", "program of this type cannot use helper "];

/// Asks for a helper by calling it without arguments. The verifier looks for the helper first and
/// for its arguments afterwards, so that every other complaint means that it has found it. aya's own
/// probe does the same, but cannot name an attach type, on which some helpers depend.
pub(super) fn probe(hook: Hook, helper: u32) -> Availability {
    match load(hook, &[call(helper), exit()]) {
        Ok(_) => Availability::Available,
        Err((error, log)) if log.is_empty() => Availability::of::<()>(Err(&error)),
        Err((_, log)) => classify(&log),
    }
}

fn classify(log: &str) -> Availability {
    let complaint = log.lines().find(|line| UNKNOWN.iter().any(|words| line.contains(words)));
    match complaint {
        Some(line) => Availability::Missing(line.trim().to_owned()),
        None => Availability::Available,
    }
}

/// Asks a socket for the cookie of its namespace.
pub(super) fn socket_netns_cookie() -> Availability {
    let asked = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(sys::netns_cookie);
    Availability::of(asked.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of 5.10, 6.1 and 6.18.
    #[test]
    fn only_a_helper_that_the_verifier_does_not_find_is_missing() {
        for log in [
            "0: (85) call bpf_get_netns_cookie#122\nunknown func bpf_get_netns_cookie#122\n",
            "0: (85) call unknown#187\ninvalid func unknown#187\n",
            "0: (85) call bpf_bind#64\nprogram of this type cannot use helper bpf_bind#64\n",
        ] {
            assert!(matches!(classify(log), Availability::Missing(_)), "{log}");
        }
        for log in ["0: (85) call bpf_bind#64\nR2 !read_ok\n", "R1 type=ctx expected=map_ptr\n"] {
            assert_eq!(classify(log), Availability::Available, "{log}");
        }
    }
}
