//! Undermesh's eBPF programs: a table of contents. What each is attached to, which maps it uses and
//! what an error means stands in `ebpf-programs/README.md`; the decisions themselves are in
//! `undermesh-ebpf-common`, where the host tests them.
#![no_std]
#![no_main]

mod bind;
mod connect;
mod context;
mod cookie;
mod features;
mod gate;
mod listen;
mod lookup;
mod maps;
mod peername;
mod probe;
mod publish;
mod report;
mod steer;

/// No program can panic: the verifier refuses what could, and LLVM removes this.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
