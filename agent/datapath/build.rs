//! Embeds the eBPF object that `cargo xtask build-ebpf` has built. Without one the crate still
//! compiles, so that checks and unit tests need neither bpf-linker nor a nightly compiler; loading
//! then fails with a sentence that says what to do.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = manifest_dir
        .join("../../ebpf-programs/programs/target/bpfel-unknown-none/release/undermesh-programs");
    let embedded =
        PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("undermesh-programs");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");
    let bytes = fs::read(&object).unwrap_or_default();
    if let Err(error) = fs::write(&embedded, bytes) {
        println!("cargo::error=cannot write {}: {error}", embedded.display());
    }
}
