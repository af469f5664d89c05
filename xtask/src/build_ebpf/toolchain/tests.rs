//! The checks that pass a compiler over, fed with what compilers say.

use super::*;

const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                      binary: rustc\n\
                      host: x86_64-unknown-linux-gnu\n\
                      release: 1.96.0\n\
                      LLVM version: 22.1.8\n";

#[test]
fn the_release_and_llvm_are_read_from_the_verbose_version() {
    let version = Version::parse(DEBIAN).unwrap();
    assert_eq!(version.release, "1.96.0");
    assert_eq!(version.llvm, "22.1.8");
    version.check_llvm("it").unwrap();
}

#[test]
fn a_compiler_with_another_llvm_is_passed_over_and_both_versions_are_named() {
    let version = Version::parse(&DEBIAN.replace("22.1.8", "19.1.7")).unwrap();
    let error = version.check_llvm("nightly").unwrap_err().to_string();
    assert!(error.contains("uses LLVM 19.1.7"), "{error}");
    assert!(error.contains("reads only LLVM 22"), "{error}");
}

#[test]
fn sources_of_another_version_than_the_compiler_are_refused() {
    let version = Version::parse(DEBIAN).unwrap();
    version.check_sources("it", "1.96.0").unwrap();
    let error = version.check_sources("it", "1.85.0").unwrap_err().to_string();
    assert!(error.contains("rustc 1.96.0"), "{error}");
    assert!(error.contains("sources are of 1.85.0"), "{error}");
}

#[test]
fn a_prefix_without_a_compiler_is_said_to_be_not_installed() {
    let candidate = Candidate {
        name: "nightly-x".to_owned(),
        prefix: PathBuf::from("/no/such/prefix"),
        library_directories: Vec::new(),
    };
    let error = candidate.check().unwrap_err().to_string();
    assert_eq!(error, "nightly-x is not installed");
}

#[test]
fn the_advice_names_the_reason_and_both_ways_out() {
    let text = advice("nightly has no rust-src");
    assert!(text.contains("(nightly has no rust-src)"), "{text}");
    assert!(text.contains("apt-get install rustc-web"), "{text}");
    assert!(text.contains("rustup toolchain install"), "{text}");
}
