//! `local`: between two pods of one node, where nothing of the mesh stands in the way of a byte.

use anyhow::{Result, ensure};

use super::{
    ground::{Ground, Variant},
    load::Load,
    report::{Findings, Goal},
    rounds::{self, Plan},
};

/// What the local path promises.
const GOAL: Goal = Goal { rate: 0.95, cpu: 1.05 };

pub(super) fn run(plan: Plan) -> Result<Findings> {
    let without = Ground::without_mesh("w")?;
    let with = Ground::with_mesh("m")?;
    let variants = [
        Variant {
            name: "no mesh",
            ground: &without,
            from: "client",
            to: without.address("server")?,
        },
        Variant { name: "undermesh", ground: &with, from: "client", to: with.address("server")? },
    ];
    let mut findings = Findings::new("local: pod to pod on one node", Some(GOAL));
    for load in [Load::KeepAlive, Load::NewConnections, Load::Bulk] {
        findings.comparisons.extend(rounds::run(load, &variants, plan)?);
    }
    let status = with.rig.agent("a")?.status()?;
    let (local, proxied) = (status.verdict("local"), status.verdict("proxied"));
    ensure!(local > 0 && proxied == 0, "that was not the local path: {:?}", status.verdicts);
    findings.note(format!("{local} connections took the local path, none the proxy"));
    let lost = status.verdict("event_lost");
    findings.note(format!("{lost} reports of connections were lost"));
    Ok(findings)
}
