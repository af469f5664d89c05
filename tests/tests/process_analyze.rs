//! `undermesh analyze` on files: what it says, how it says it, and its exit codes.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undermesh_tests::{Files, locate};

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec: {template: {metadata: {labels: {app: cart, version: v1}}}}
";
/// An error (line 6), and two warnings.
const WRONG: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - route: [{destination: {host: cart, subset: v2}}]
  - route: [{destination: {host: cart}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard, namespace: shop}
spec: {selector: {matchLabels: {app: carte}}, rules: [{}]}
";

fn analyze(files: &Files, args: &[&str]) -> Result<Output> {
    Ok(files.undermesh("analyze")?.args(args).output()?)
}

/// `file:line code` of a JSON report.
fn found(output: &Output) -> Result<Vec<String>> {
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = report["findings"].as_array().context("no findings")?;
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let line = |it: &Value| format!("{}:{} {}", text(it, "file"), it["line"], text(it, "code"));
    Ok(findings.iter().map(line).collect())
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_decides_the_exit_code() -> Result<()> {
    let files = Files::new(&[("shop.yaml", SHOP), ("wrong.yaml", WRONG)])?;
    let output = analyze(&files, &["shop.yaml"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = analyze(&files, &[".", "-o", "json"])?;
    assert_eq!(output.status.code(), Some(1));
    let all = [
        "./wrong.yaml:2 unusable-destination",
        "./wrong.yaml:9 unreachable-rule",
        "./wrong.yaml:11 selects-nothing",
    ];
    assert_eq!(found(&output)?, all);
    let text = String::from_utf8(analyze(&files, &["."])?.stdout)?;
    for part in ["error   unusable-destination", "VirtualService shop/cart", "1 errors, 2 warnings"]
    {
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }
    for (fail_on, code) in [("never", 0), ("error", 1), ("warning", 1), ("info", 1)] {
        assert_eq!(analyze(&files, &[".", "--fail-on", fail_on])?.status.code(), Some(code));
    }
    Ok(())
}

#[test]
fn what_is_suppressed_is_counted_and_does_not_fail() -> Result<()> {
    let files = Files::new(&[("shop.yaml", SHOP), ("wrong.yaml", WRONG)])?;
    let one = "unusable-destination=VirtualService shop/cart";
    let args = [".", "-o", "json", "--suppress", one, "--suppress", "selects-nothing=Pod */*"];
    let output = analyze(&files, &args)?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(found(&output)?.len(), 2);
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["suppressed"], 1);
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("selects-nothing=Pod */*") && !said.contains("unusable"), "{said}");
    let output = analyze(&files, &[".", "--suppress", "unusable-destination=cart"])?;
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}

#[test]
fn standard_input_is_read_and_nothing_at_all_is_an_error() -> Result<()> {
    let files = Files::new(&[("notes.txt", "no manifest")])?;
    let mut command = Command::new(locate("undermesh")?);
    command.args(["analyze", "-", "-o", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no stdin")?.write_all(format!("{SHOP}---{WRONG}").as_bytes())?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(found(&output)?.len(), 3);
    let output = analyze(&files, &["."])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("no manifest"), "it says nothing");
    let output = analyze(&files, &["nowhere"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout)?.contains("unreadable-file"));
    assert_eq!(analyze(&files, &[])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn forges_get_sarif_with_paths_below_their_root() -> Result<()> {
    let files = Files::new(&[("shop.yaml", SHOP), ("wrong.yaml", WRONG)])?;
    let output = analyze(&files, &[".", "-o", "sarif"])?;
    let log: Value = serde_json::from_slice(&output.stdout)?;
    let results = log["runs"][0]["results"].as_array().context("no results")?;
    assert_eq!(results.len(), 3);
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().context("no rules")?;
    for result in results {
        let index = result["ruleIndex"].as_u64().context("no index")?;
        assert_eq!(rules[usize::try_from(index)?]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "wrong.yaml");
        assert!(place["region"]["startLine"].as_u64().is_some_and(|line| line > 0));
    }
    Ok(())
}
