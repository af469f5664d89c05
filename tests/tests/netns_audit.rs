//! What an agent audits: what policies refuse, where they are enforced.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use undermesh_tests::{PORT, Rig, pod::protocol::Behaviour, wait_for};

const SOON: Duration = Duration::from_secs(20);
const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: shop}
spec:
  action: DENY
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/client]}
";

#[test]
fn a_connection_that_a_policy_refuses_is_audited_with_who_and_why() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let path = rig.node("b")?.dir.join("audit.log");
    rig.node_mut("b")?.settings.set("auditLog", &path.display().to_string());
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    client.connect(rig.at("server", PORT)?)?.exchange(b"allowed")?;
    assert_eq!(fs::read_to_string(&path)?, "");
    rig.apply("deny", DENY)?;
    // Refused at once, or as soon as something is sent.
    let refused = client.connect(rig.at("server", PORT)?).and_then(|conn| conn.exchange(b"no"));
    assert!(refused.is_err(), "the policy has let it pass");
    let line = wait_for("the audit line", SOON, || {
        let text = fs::read_to_string(&path)?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.find(|line| line["event"] == "policy_denied"))
    })?;
    assert_eq!(line["component"], "agent");
    assert_eq!(line["workload"], "shop/server");
    assert_eq!(line["identity"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(line["address"], rig.at("client", 0)?.ip().to_string());
    let said = line["detail"].as_str().context("no detail")?;
    assert!(said.contains("no-client"), "{line}");
    Ok(())
}
