//! The dashboard of agents and controllers, looked at with a browser while there is traffic.

mod controller;
mod pages;
mod screen;
mod shop;
mod sites;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use undermesh_tests::{Browser, Rig, locate};

const AGENT: &str = "127.0.0.1:15000";
const PAGE: &str = "http://127.0.0.1:15000/dashboard/";
const TABS: [&str; 7] =
    ["Overview", "Services", "Workloads", "Flows", "Policies", "Certificates", "Findings"];

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
