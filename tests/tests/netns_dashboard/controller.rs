//! The dashboard of a controller.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use undermesh_tests::Plane;

use super::{is_clean, look_at, open, pictures, shop::busy, texts};

/// Longer than a controller takes somebody to look after their last question, and a round.
const LOOKING: Duration = Duration::from_secs(25);

#[test]
fn a_controller_shows_all_nodes_and_asks_nobody_while_nobody_looks() -> Result<()> {
    let shop = busy()?;
    let rig = &shop.rig;
    let plane = Plane::with_manifests(rig)?;
    for node in ["a", "b"] {
        let address = rig.node(node)?.addresses[0];
        plane.api.put(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("undermesh-agent-{node}"), "namespace": "undermesh-system",
                "labels": {"app.kubernetes.io/name": "undermesh", "app.kubernetes.io/component": "agent"},
            },
            "spec": {"nodeName": node, "containers": []},
            "status": {
                "phase": "Running", "podIP": address.to_string(),
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))?;
    }
    let mut controller = plane.controller("one", &[])?;
    controller.wait_ready()?;
    let address = controller.address("dashboardAddress")?.to_string();

    let mut browser = look_at(rig)?;
    browser.go(&format!("http://{address}/dashboard/"))?;
    browser.wait("document.querySelectorAll('.graph .line.good').length >= 4")?;
    browser.wait("document.querySelectorAll('#nodes ~ * tbody tr').length === 2")?;
    let nodes = texts(&mut browser, "#nodes ~ * tbody tr")?.join("\n");
    assert_eq!(nodes.matches("ready").count(), 2, "{nodes}");
    // `catalog` and `orders` run on b, so that only its agent counts what is between them.
    let pairs = texts(&mut browser, "#graph ~ * tbody tr")?.join("\n");
    for pair in ["shop/catalogshop/orders", "shop/cartshop/payments"] {
        assert!(pairs.contains(pair), "{pair} is not in {pairs}");
    }
    browser.wait("document.querySelectorAll('.tile .spark .area').length >= 2")?;
    browser.picture(&pictures()?.join("controller.png"), true)?;

    let policies = "document.querySelectorAll('#content tbody tr').length === 2";
    open(&mut browser, "#/policies", policies)?;
    open(
        &mut browser,
        "#/policy/AuthorizationPolicy/shop/no-batch",
        "document.querySelectorAll('#matched ~ * tbody tr').length === 1",
    )?;
    assert_eq!(texts(&mut browser, "#matched ~ * tbody tr")?, ["shop/paymentsa"]);
    open(
        &mut browser,
        "#/services",
        "document.querySelectorAll('#content tbody tr').length === 4",
    )?;
    open(
        &mut browser,
        "#/certificates",
        "document.querySelectorAll('#issued ~ * tbody tr').length === 6",
    )?;
    browser.picture(&pictures()?.join("controller-certificates.png"), true)?;
    open(&mut browser, "#/findings", "document.body.textContent.includes('nowhere')")?;
    open(
        &mut browser,
        "#/flows",
        "document.body.textContent.includes('undermesh flows --all-nodes --follow --verdict denied')",
    )?;
    assert_eq!(browser.eval("document.body.textContent.includes('kubectl')")?, false);
    is_clean(&browser, &address);

    // Nobody looks any more: agents are let alone.
    drop(browser);
    let counters = |page: &str| -> Result<Value> {
        Ok(serde_json::from_str(&controller.page("dashboardAddress", page)?.1)?)
    };
    let last = counters("/edges")?["monotonicSeconds"].clone();
    std::thread::sleep(LOOKING);
    let idle = counters("/edges")?["monotonicSeconds"].clone();
    let gone = idle.as_f64().context("no time")? - last.as_f64().context("no time")?;
    assert!(
        gone < LOOKING.as_secs_f64() - 5.0,
        "agents were asked for {gone} s after the last look"
    );
    Ok(())
}
