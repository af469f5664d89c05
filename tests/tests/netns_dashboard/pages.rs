//! Every page of an agent's dashboard.

use anyhow::Result;

use super::{AGENT, PAGE, TABS, is_clean, look_at, open, pictures, shop::busy, texts};

/// Shows every page with what the agent knows, to eyes and to ears.
#[test]
fn every_page_shows_what_happens_in_the_mesh() -> Result<()> {
    let shop = busy()?;
    let rig = &shop.rig;
    let mut browser = look_at(rig)?;
    browser.go(PAGE)?;
    browser.wait("document.querySelectorAll('.graph .line.good').length >= 3")?;
    let refused = rig.pod("batch")?;
    for _ in 0..5 {
        assert!(refused.connect(rig.at("payments", 8080)?).is_err());
    }
    // Rates of ten seconds.
    browser.wait("Number(document.querySelector('.tile dd')?.textContent.split(' ')[0]) > 20")?;
    // A line of some length, for who looks at the picture.
    browser.wait(
        "document.querySelector('.tile .spark .area')?.getAttribute('d').split('L').length > 9",
    )?;
    let rows = texts(&mut browser, "#content tbody tr")?.join("\n");
    for pair in ["shop/webshop/cart", "shop/webshop/catalog", "shop/cartshop/payments"] {
        assert!(rows.contains(pair), "{pair} is not in {rows}");
    }
    browser.picture(&pictures()?.join("overview.png"), true)?;

    let told = browser.spoken()?;
    let tells =
        |role: &str, name: &str| told.iter().any(|it| it.role == role && it.name.contains(name));
    for (role, name) in [
        ("navigation", "Pages"),
        ("main", ""),
        ("heading", "Who talks to whom"),
        ("table", "Who talks to whom"),
        ("columnheader", "Req/s"),
        ("link", "shop/cart, shop · 1 pod"),
    ] {
        assert!(tells(role, name), "no {role} {name:?} in {told:?}");
    }
    assert_eq!(texts(&mut browser, "nav a")?.len(), TABS.len());

    open(
        &mut browser,
        "#/services",
        "document.querySelectorAll('#content tbody tr').length === 4",
    )?;
    browser.picture(&pictures()?.join("services.png"), true)?;
    open(
        &mut browser,
        "#/service/cart.shop.svc.cluster.local",
        "document.querySelectorAll('#content tbody tr').length >= 2",
    )?;
    assert!(texts(&mut browser, "#content")?.concat().contains("10.1."), "no endpoint");
    open(
        &mut browser,
        "#/workload/shop/web",
        "document.querySelector('h1').textContent.includes('web')",
    )?;
    browser.picture(&pictures()?.join("workload.png"), true)?;

    open(&mut browser, "#/flows", "document.querySelectorAll('#content tbody tr').length > 20")?;
    browser.eval("document.querySelector('[data-filter=denied]').click()")?;
    browser.wait("[...document.querySelectorAll('#content tbody tr')].some((row) => row.textContent.includes('no-batch'))")?;
    browser.picture(&pictures()?.join("flows.png"), false)?;
    browser.wait("!document.body.textContent.includes('somebody')")?;

    open(
        &mut browser,
        "#/policies",
        "document.querySelectorAll('#content tbody tr').length === 2",
    )?;
    browser.picture(&pictures()?.join("policies.png"), true)?;
    open(
        &mut browser,
        "#/policy/AuthorizationPolicy/shop/no-batch",
        "document.querySelectorAll('#matched ~ * tbody tr').length === 1",
    )?;
    let page = texts(&mut browser, "#content")?.concat();
    for part in ["service accounts shop/batch", "8080", "shop/payments", "enforced"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    browser.picture(&pictures()?.join("policy.png"), true)?;
    open(
        &mut browser,
        "#/policy/AuthorizationPolicy/shop/readers",
        "document.body.textContent.includes('header x-key')",
    )?;
    assert!(!rig.agent("a")?.admin("/mesh")?.contains("very-secret"));

    open(
        &mut browser,
        "#/certificates",
        "document.querySelectorAll('#content tbody tr').length === 4",
    )?;
    browser.picture(&pictures()?.join("certificates.png"), true)?;
    open(&mut browser, "#/findings", "document.querySelectorAll('#content tbody tr').length >= 1")?;
    browser.picture(&pictures()?.join("findings.png"), true)?;
    browser.eval("document.querySelector('#content tbody a').click()")?;
    browser.wait("location.hash.startsWith('#/reference/') && document.querySelector('#content p:not(.back)').textContent.length > 20")?;
    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: Not A Name, namespace: shop}\n";
    rig.submit("bad", bad)?;
    open(
        &mut browser,
        "#/",
        "document.querySelector('.troubles')?.textContent.includes('configuration rejected')",
    )?;
    is_clean(&browser, AGENT);
    Ok(())
}
