//! `passthrough`: from a pod of the mesh to a destination outside it, which must cost what it costs
//! without a mesh.

use anyhow::{Result, ensure};

use super::{
    ground::{Ground, Variant},
    load::Load,
    report::Findings,
    rounds::{self, Plan},
};

pub(super) fn run(plan: Plan) -> Result<Findings> {
    let without = Ground::without_mesh("w")?;
    let with = Ground::with_mesh("m")?;
    let (plain, meshed) = (without.address("outside")?, with.address("outside")?);
    let variants = [
        Variant { name: "no mesh", ground: &without, from: "client", to: plain },
        Variant { name: "not enrolled", ground: &with, from: "other", to: meshed },
        Variant { name: "enrolled", ground: &with, from: "client", to: meshed },
    ];
    let mut findings =
        Findings::new("passthrough: to a destination outside the mesh, on another node", None);
    for load in [Load::KeepAlive, Load::NewConnections, Load::Bulk] {
        findings.comparisons.extend(rounds::run(load, &variants, plan)?);
    }
    let agent = with.rig.agent("a")?;
    let status = agent.status()?;
    let outside = status.verdict("outside_mesh");
    ensure!(outside > 0, "no connection went outside the mesh: {:?}", status.verdicts);
    let mut bytes = 0;
    for direction in ["sent", "received"] {
        bytes += agent.metric(&format!("istio_tcp_{direction}_bytes_total"), "")?;
    }
    let proxied = status.verdict("proxied");
    ensure!(proxied + bytes == 0, "{proxied} connections and {bytes} bytes went through the agent");
    findings.note(format!(
        "{outside} connections were let pass in the kernel; the agent has carried none, and 0 bytes"
    ));
    Ok(findings)
}
