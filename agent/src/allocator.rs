//! The agent's allocator (docs/adr/0030), and what it is asked for beside memory.

#![expect(unsafe_code, reason = "jemalloc's controls have no safe wrapper that knows this one")]

use std::{ffi::CStr, ptr};

use tikv_jemallocator::Jemalloc;

/// How it is set up is in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Gives the pages of all arenas back that nothing occupies. 4096 stands for all of them.
const PURGE: &CStr = c"arena.4096.purge";

/// Gives what was freed back to the kernel now, and not in the course of the next second. For moments after
/// which much less is needed than before: it costs a system call for each run of free pages, and
/// whoever needs memory next has it made anew.
pub(crate) fn give_back() {
    // SAFETY: the name ends with a NUL, and this control neither takes nor returns a value.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            PURGE.as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            0,
        )
    };
    if code != 0 {
        tracing::warn!(code, "the allocator gives nothing back before its time");
    }
}
