//! What `undermesh doctor` says of a kernel: features that this one lacks, and what a sandbox or a
//! limit takes away. Runs on every kernel of the matrix, each of which lacks something else.

use std::fs;

use anyhow::{Context, Result};
use undermesh_tests::{Diagnosis, PodSpec, Rig};

/// A feature, the first kernel with it, and whether anything takes its place.
type Later = (&'static str, Option<(u32, u32)>, bool);

/// Features that came after the oldest kernel that Undermesh is meant for.
const LATER: [Later; 5] = [
    ("helper.sockops.get_netns_cookie", Some((5, 15)), true),
    ("helper.connect.set_retval", Some((5, 18)), false),
    // No kernel has had it so far: a probe can say no on each.
    ("helper.sk_lookup.get_netns_cookie", None, false),
    ("socket.netns_cookie", Some((5, 14)), true),
    ("memory.memcg", Some((5, 11)), true),
];

fn kernel() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']);
    let mut part = || parts.next().context("a release without version")?.parse().context("version");
    Ok((part()?, part()?))
}

/// Rows of [`LATER`] that this kernel lacks.
fn lacking() -> Result<impl Iterator<Item = (&'static str, bool)>> {
    let kernel = kernel()?;
    let lacks = move |since: Option<(u32, u32)>| since.is_none_or(|since| kernel < since);
    let rows = LATER.into_iter().filter(move |(_, since, _)| lacks(*since));
    Ok(rows.map(|(name, _, replaced)| (name, replaced)))
}

/// One node and one pod, without an agent.
fn rig() -> Result<Rig> {
    let rig = Rig::builder().node("a", [PodSpec::new("client")]).build()?;
    rig.init_ca()?;
    Ok(rig)
}

/// What findings of a name are about.
fn objects<'a>(diagnosis: &'a Diagnosis, id: &str) -> Vec<&'a str> {
    let rows = diagnosis.findings.iter().filter(|row| row.id == id);
    rows.map(|row| row.object.as_str()).collect()
}

#[test]
fn a_kernel_lacks_what_came_after_it_and_nothing_else_and_degrades_where_something_replaces_it()
-> Result<()> {
    let diagnosis = rig()?.preflight("a")?.run()?;
    let missing: Vec<_> = diagnosis
        .features
        .iter()
        .filter(|row| row.availability.state != "available")
        .map(|row| (row.feature.as_str(), row.availability.state.as_str()))
        .collect();
    assert_eq!(missing, lacking()?.map(|(name, _)| (name, "missing")).collect::<Vec<_>>());
    assert!(diagnosis.features.len() > 25);

    let replaced = lacking()?.filter(|(_, replaced)| *replaced);
    let replaced: Vec<_> = replaced.map(|(name, _)| name).collect();
    assert_eq!(objects(&diagnosis, "feature-degraded"), replaced);
    diagnosis.lacks("feature-missing")?;
    diagnosis.lacks("feature-unknown")?;
    assert!(diagnosis.is_ok("kernel"), "{:#?}", diagnosis.findings);
    Ok(())
}

#[test]
fn a_limit_of_locked_memory_is_found_where_maps_count_against_it() -> Result<()> {
    let limited = ["prlimit", "--memlock=65536:65536"];
    let counted = lacking()?.any(|(name, _)| name == "memory.memcg");
    let diagnosis = rig()?.preflight("a")?.by(limited).run()?;
    diagnosis.lacks("memlock-limited")?;

    let weak = limited.into_iter().chain(["setpriv", "--bounding-set", "-sys_resource"]);
    let diagnosis = rig()?.preflight("a")?.by(weak).run()?;
    if counted {
        let finding = diagnosis.find("memlock-limited")?;
        assert_eq!(finding.severity, "error");
        assert!(finding.found.contains("65536"), "{finding:?}");
    } else {
        diagnosis.lacks("memlock-limited")?;
    }
    Ok(())
}

/// Runs a program in a sandbox whose kernel has no bpf(2): the call is answered with ENOSYS.
const WITHOUT_BPF: &str = r#"
import ctypes, os, struct, sys
bpf = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
# Load the call's number; if it is bpf, ENOSYS, else allow.
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, bpf), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
program = Program(len(rules), ctypes.cast(text, ctypes.c_void_p))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit("no seccomp")
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_sandbox_without_bpf_lacks_what_the_agent_needs() -> Result<()> {
    let diagnosis = rig()?.preflight("a")?.by(["python3", "-c", WITHOUT_BPF]).run()?;
    let missing = objects(&diagnosis, "feature-missing");
    for feature in ["program.connect4", "program.sk_lookup", "map.hash", "helper.connect.bind"] {
        assert!(missing.contains(&feature), "{feature} in {:#?}", diagnosis.findings);
    }
    assert_eq!(diagnosis.find("feature-missing")?.severity, "error");
    assert_eq!(diagnosis.code, 2);
    Ok(())
}

#[test]
fn a_file_that_never_answers_costs_only_the_check_that_reads_it() -> Result<()> {
    let rig = rig()?;
    let pipe = rig.node("a")?.dir.join("silent").display().to_string();
    let setup = format!("mkfifo {pipe}; mount --bind {pipe} /etc/resolv.conf");
    let diagnosis = rig.preflight("a")?.after(&setup).run()?;
    assert_eq!(objects(&diagnosis, "check-timed-out"), ["dns"]);
    assert!(diagnosis.is_ok("kernel"), "{:#?}", diagnosis.findings);
    Ok(())
}
