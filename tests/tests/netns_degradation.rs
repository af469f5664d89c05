//! What older kernels lack, and what takes its place there. Each claim holds on every kernel: on some
//! by what the kernel offers, on others by the stand-in. What a kernel lacks is `netns_doctor_kernel`'s.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{PORT, Rig, pod::protocol::Behaviour};

fn kernel() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']);
    let mut part = || parts.next().context("a release without version")?.parse().context("version");
    Ok((part()?, part()?))
}

/// Stand-ins, and the first kernel that needs none.
const STAND_INS: [(&str, (u32, u32)); 3] = [
    // Notes of the netns cookie, for sockops programs that cannot ask for it.
    ("undermesh_bind4", (5, 15)),
    ("undermesh_bind6", (5, 15)),
    // An answer at the agent's own cgroup, for the lack of SO_NETNS_COOKIE.
    ("undermesh_cookie", (5, 14)),
];

#[test]
fn stand_ins_run_where_the_kernel_lacks_something_and_nowhere_else() -> Result<()> {
    let rig = Rig::started()?;
    let kernel = kernel()?;
    for node in ["a", "b"] {
        let programs = rig.agent(node)?.status()?.programs;
        for (name, first_without) in STAND_INS {
            let attached = programs.iter().any(|row| row.name == name && row.attached);
            assert_eq!(attached, kernel < first_without, "{name} on {kernel:?}: {programs:?}");
        }
    }
    // Either way the pod of a connection and that of a listener are known.
    let (client, server) = (rig.pod("client")?, rig.pod("near")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for to in [rig.at("near", PORT)?, rig.at6("near", PORT)?] {
        assert_eq!(client.connect(to)?.exchange(b"who?")?, b"who?");
    }
    let line = rig.agent("a")?.access_log().wait(&[("event", "open"), ("transport", "local")])?;
    assert_eq!(line.get("source.identity"), "spiffe://cluster.local/ns/shop/sa/client");
    Ok(())
}

#[test]
fn an_agent_under_a_small_limit_of_locked_memory_serves() -> Result<()> {
    // Maps count against it before Linux 5.11, and the agent inherits it from this process.
    let own = std::process::id().to_string();
    let limited =
        Command::new("prlimit").args(["--memlock=65536:65536", "--pid", &own]).status()?;
    ensure!(limited.success(), "prlimit: {limited}");
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let conn = client.connect(rig.at("server", PORT)?)?;
    assert_eq!(conn.exchange(b"there?")?, b"there?");
    assert_eq!(rig.agent("a")?.status()?.verdict("proxied"), 1);
    Ok(())
}
