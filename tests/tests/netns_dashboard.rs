//! The dashboard of an agent, looked at with a browser while there is traffic.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_tests::{
    Browser, Plane, PodSpec, Rig, ServiceSpec, locate,
    pod::{
        Pod,
        http::{Ask, Load, PLAN},
        protocol::Behaviour,
    },
};

const AGENT: &str = "127.0.0.1:15000";
const PAGE: &str = "http://127.0.0.1:15000/dashboard/";
const TABS: [&str; 7] =
    ["Overview", "Services", "Workloads", "Flows", "Policies", "Certificates", "Findings"];

/// A policy that refuses somebody, one that would, one about requests, and a route to nowhere.
const OBJECTS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-batch, namespace: shop}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [batch]}}], to: [{operation: {ports: ['8080']}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules:
  - to: [{operation: {methods: [DELETE], paths: ['/admin*']}}]
    when: [{key: 'request.headers[x-key]', values: [very-secret]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost, namespace: shop}
spec: {hosts: [catalog], http: [{match: [{uri: {prefix: /lost}}], route: [{destination: {host: nowhere}}]}, {route: [{destination: {host: catalog}}]}]}
";

struct Shop {
    // Processes end before their namespaces go.
    _pods: Vec<Pod>,
    rig: Rig,
}

/// `web` asks `cart` (same node) and `catalog`, `catalog` asks `orders`, some of whose answers are failures, `orders` asks
/// `payments`, and `batch` is refused there.
fn busy() -> Result<Shop> {
    let service = |name: &str| ServiceSpec::new(name, 80, 8080, &[name]).port(80, 8080, "http");
    let names = ["cart", "catalog", "orders", "payments"];
    let mut builder = Rig::builder()
        .node("a", ["web", "batch", "cart", "payments"].map(PodSpec::new))
        .node("b", ["catalog", "orders"].map(PodSpec::new));
    for name in names {
        builder = builder.service(service(name).looked_at());
    }
    let mut rig = builder.build()?;
    rig.start()?;
    rig.apply("objects", OBJECTS)?;
    let mut pods = Vec::new();
    for name in names {
        let pod = rig.pod(name)?;
        pod.listen("[::]:8080".parse()?, Behaviour::Http(name.to_owned()))?;
        pods.push(pod);
    }
    for (from, to, plan, pause) in [
        ("web", "cart", "200", 20),
        ("web", "catalog", "wait=8", 25),
        ("catalog", "orders", "wait=20", 40),
        ("catalog", "orders", "503", 900),
        ("orders", "payments", "wait=3", 60),
        ("cart", "payments", "wait=1", 90),
    ] {
        let pod = rig.pod(from)?;
        let ask = Ask {
            to: Some(rig.vip(to, 80)?),
            method: "GET".to_owned(),
            path: format!("/{to}/items?user=somebody"),
            authority: to.to_owned(),
            headers: [(PLAN.to_owned(), plan.to_owned())].into(),
            ..Ask::default()
        };
        pod.begin_load(Load { ask, askers: 2, pause })?;
        pods.push(pod);
    }
    Ok(Shop { _pods: pods, rig })
}

fn pictures() -> Result<PathBuf> {
    let target = locate("undermesh")?;
    Ok(target.ancestors().nth(2).context("no target directory")?.join("dashboard"))
}

fn look_at(rig: &Rig) -> Result<Browser> {
    Browser::start(rig.command_on("a")?, &rig.footprint().dir().join("browser"))
}

/// No error in the console, and nobody asked but the page's own server.
fn is_clean(browser: &Browser, server: &str) {
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    let own = format!("http://{server}/");
    let all = browser.requests().iter().filter(|url| *url != "about:blank");
    let others: Vec<_> = all.filter(|url| !url.starts_with(&own)).collect();
    assert!(others.is_empty(), "{others:?}");
}

fn texts(browser: &mut Browser, selector: &str) -> Result<Vec<String>> {
    let all = format!("[...document.querySelectorAll({selector:?})].map((it) => it.textContent)");
    let found: Value = browser.eval(&all)?;
    Ok(serde_json::from_value(found)?)
}

fn open(browser: &mut Browser, page: &str, ready: &str) -> Result<()> {
    browser.eval(&format!("location.hash = {page:?}"))?;
    browser.wait(ready)
}

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

#[test]
fn it_fits_a_small_screen_is_dark_for_who_likes_it_and_needs_no_mouse() -> Result<()> {
    let shop = busy()?;
    let mut browser = look_at(&shop.rig)?;
    browser.go(PAGE)?;
    browser.wait("document.querySelectorAll('.graph .line').length >= 3")?;
    let back = "getComputedStyle(document.body).backgroundColor";
    let bright = browser.eval(back)?;
    browser.prefer("prefers-color-scheme", "dark")?;
    assert_ne!(browser.eval(back)?, bright);
    browser.picture(&pictures()?.join("dark.png"), true)?;
    for scheme in ["light", "dark"] {
        browser.prefer("prefers-color-scheme", scheme)?;
        for page in ["#/", "#/flows", "#/policies", "#/certificates", "#/findings"] {
            open(
                &mut browser,
                page,
                "document.querySelectorAll('#content tbody tr, #content .none').length > 0",
            )?;
            let pale = browser.eval(PALE)?;
            assert_eq!(pale, Value::Array(Vec::new()), "{scheme} {page}");
            let doubled = browser.eval(DOUBLED)?;
            assert_eq!(doubled, Value::Array(Vec::new()), "{page}");
        }
    }

    browser.resize(360, 740)?;
    for page in
        ["#/", "#/services", "#/workloads", "#/flows", "#/policies", "#/certificates", "#/findings"]
    {
        open(&mut browser, page, "document.querySelectorAll('#content h1').length === 1")?;
        let over = browser
            .eval("Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)")?;
        assert_eq!(over, 0, "{page} is wider than the screen");
        assert_eq!(browser.eval("innerWidth")?, 360);
    }
    open(&mut browser, "#/", "document.querySelectorAll('.graph .line').length >= 3")?;
    browser.picture(&pictures()?.join("small.png"), false)?;
    browser.resize(1280, 900)?;

    // From the top: the way past the navigation, then every page by its link.
    browser.go("about:blank")?;
    browser.go(PAGE)?;
    browser.wait("document.querySelectorAll('.graph .line').length >= 3")?;
    let focus = "document.activeElement.textContent.trim()";
    browser.press("Tab")?;
    assert_eq!(browser.eval(focus)?, "Skip to content");
    for tab in TABS {
        browser.press("Tab")?;
        let at = browser.eval(focus)?;
        ensure!(at.as_str().is_some_and(|at| at.starts_with(tab)), "{at} has the focus, not {tab}");
        let ring = browser.eval("getComputedStyle(document.activeElement).outlineStyle")?;
        assert_eq!(ring, "solid", "{tab}");
    }
    browser.press("Enter")?;
    browser.wait("document.querySelector('h1').textContent === 'Findings'")?;
    assert_eq!(browser.eval("document.activeElement.id")?, "content");
    assert_eq!(
        browser
            .eval("document.querySelector('[aria-current]').textContent.startsWith('Findings')")?,
        true
    );

    // What is typed, and where the focus is, stays while the page is made anew.
    open(
        &mut browser,
        "#/services",
        "document.querySelectorAll('#content tbody tr').length === 4",
    )?;
    browser.eval("document.querySelector('#services').focus()")?;
    browser.call("Input.insertText", &json!({"text": "cart"}))?;
    browser.wait("document.querySelectorAll('#content tbody tr').length === 1")?;
    let asked = browser.requests().len();
    while browser.requests().len() < asked + 6 {
        browser.eval("new Promise((done) => setTimeout(done, 100))")?;
    }
    assert_eq!(
        browser.eval("document.activeElement.id + document.activeElement.value")?,
        "servicescart"
    );
    assert_eq!(texts(&mut browser, "#content tbody tr")?.len(), 1);

    browser.prefer("prefers-reduced-motion", "reduce")?;
    open(&mut browser, "#/", "document.querySelectorAll('.graph .line path').length >= 3")?;
    let moving = "getComputedStyle(document.querySelector('.graph .line path')).transitionDuration";
    assert_eq!(browser.eval(moving)?, "0s");
    is_clean(&browser, AGENT);
    Ok(())
}

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

/// Longer than a controller takes somebody to look after their last question, and a round.
const LOOKING: Duration = Duration::from_secs(25);

/// Names that more than one element has.
const DOUBLED: &str = "(() => {
  const ids = [...document.querySelectorAll('[id]')].map((it) => it.id);
  return ids.filter((id, at) => ids.indexOf(id) !== at);
})()";

/// Texts whose contrast with what is behind them is below 4.5.
const PALE: &str = "(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((channels(color)[3] ?? 1) === 1) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || at.closest('svg, noscript, [hidden]') || at.getClientRects().length === 0) continue;
    const [a, b] = [light(getComputedStyle(at).color), light(behind(at))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.add(`${walk.currentNode.data} ${getComputedStyle(at).color}`);
  }
  return [...found];
})()";

#[test]
fn other_sites_learn_nothing() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let curl = |args: &[&str]| -> Result<String> {
        let output = rig.command_on("a")?.arg("curl").args(["-s", "-i"]).args(args).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).to_lowercase())
    };
    let page = curl(&[PAGE])?;
    for header in [
        "http/1.1 200 ok",
        "content-security-policy: default-src 'none'; script-src 'self'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cross-origin-resource-policy: same-origin",
        "x-frame-options: deny",
    ] {
        assert!(page.contains(header), "no {header:?} in {page}");
    }
    assert!(!page.contains("<script>") && !page.contains("style="), "{page}");
    for path in ["/dashboard/", "/status", "/flows", "/mesh", "/config_dump"] {
        let asked =
            curl(&["-H", "Host: rebound.example", &format!("http://127.0.0.1:15000{path}")])?;
        assert!(asked.starts_with("http/1.1 403"), "{path}: {asked}");
        assert!(!asked.contains("10.1."), "{path}: {asked}");
    }
    let asked = curl(&["-X", "POST", PAGE])?;
    assert!(asked.starts_with("http/1.1 405"), "{asked}");
    let logging = "http://127.0.0.1:15000/logging?level=info";
    let asked = curl(&["-X", "POST", "-H", "Origin: https://other.example", logging])?;
    assert!(asked.starts_with("http/1.1 403"), "{asked}");
    assert!(curl(&["-X", "POST", logging])?.starts_with("http/1.1 200"));

    let said = rig.undermesh_on("a")?.arg("dashboard").output()?;
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), PAGE);
    let said = rig.undermesh_on("a")?.args(["dashboard", "--admin", "127.0.0.1:1"]).output()?;
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(
        complaint.contains("there is no dashboard: no agent answers at 127.0.0.1:1"),
        "{complaint}"
    );

    // Another site, in a browser on the node: it can ask, and reads nothing.
    let mut browser = look_at(&rig)?;
    browser.go("data:text/html,<p>another site</p>")?;
    let read = browser
        .eval("fetch('http://127.0.0.1:15000/status').then((it) => it.text(), () => 'nothing')")?;
    assert_eq!(read, "nothing");
    Ok(())
}
