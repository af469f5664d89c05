//! Reading addresses out of the kernel's contexts.

use core::ptr;

use undermesh_ebpf_common::Addr;

/// Reads an IPv6 address word by word: read as an array, the verifier sees a "modified ctx pointer"
/// or a "modified sock pointer" and refuses the program.
///
/// # Safety
/// `words` must be a field of a context, or of a socket, that the kernel has handed to the program.
#[inline(always)]
pub unsafe fn address(words: *const [u32; 4]) -> Addr {
    // SAFETY: the caller's promise.
    let words_be = unsafe {
        [
            ptr::read_volatile(&raw const (*words)[0]),
            ptr::read_volatile(&raw const (*words)[1]),
            ptr::read_volatile(&raw const (*words)[2]),
            ptr::read_volatile(&raw const (*words)[3]),
        ]
    };
    Addr { words_be }
}
