//! What sites of others can do to it.

use anyhow::Result;
use undermesh_tests::Rig;

use super::{PAGE, look_at};

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
