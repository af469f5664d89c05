//! The page on small screens, in the dark, and without a mouse.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{AGENT, PAGE, TABS, is_clean, look_at, open, pictures, shop::busy, texts};

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
