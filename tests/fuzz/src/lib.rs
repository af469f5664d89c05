//! Fuzz targets: one for each family of parsers that read what a peer, a client or a configuration
//! says. A target is a function of bytes that panics where something does not hold that has to hold
//! whatever the bytes are: one verdict however they are cut, the same answer as a second, naive
//! reader, nothing passed on that was not judged.
//!
//! `cargo xtask fuzz` drives them with libFuzzer (`main.rs`), and the tests of this crate with inputs
//! from a generator that always makes the same ones (`generate.rs`).

#![expect(clippy::expect_used, clippy::panic, reason = "whatever does not hold is a panic here")]

mod generate;
mod poll;
mod source;
mod targets;

pub use generate::Generator;
pub use targets::{TARGETS, Target};

impl Target {
    /// The target of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Panics where a property does not hold for these bytes.
    pub fn run(&self, bytes: &[u8]) {
        (self.run)(bytes);
    }
}
