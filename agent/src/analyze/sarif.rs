//! SARIF 2.1.0 (OASIS), as far as forges and editors read it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use undermesh_model::Severity;

use super::{found::Found, report::Report, rules};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The log of one run.
pub(super) fn log(report: &Report) -> Value {
    let codes: BTreeSet<&str> = report.findings.iter().map(|it| it.code.as_str()).collect();
    let described = |code: &&str| {
        let mut rule = json!({"id": code});
        if let Some(text) = rules::meaning(code) {
            rule["shortDescription"] = json!({"text": text});
        }
        rule
    };
    let rules: Vec<Value> = codes.iter().map(described).collect();
    let index = |code: &str| codes.iter().position(|one| *one == code);
    let results: Vec<Value> =
        report.findings.iter().map(|it| result(it, index(&it.code))).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "undermesh analyze",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(finding: &Found, rule: Option<usize>) -> Value {
    let level = match finding.severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let object = finding.object();
    let about = if object.is_empty() { String::new() } else { format!("{object}: ") };
    let mut text = format!("{about}{}", finding.message);
    if !finding.remedy.is_empty() {
        text = format!("{text}; {}", finding.remedy);
    }
    let mut location = json!({});
    if !finding.file.is_empty() {
        location["physicalLocation"] = json!({
            "artifactLocation": {"uri": uri(&finding.file)},
            "region": {"startLine": finding.line.max(1)},
        });
    }
    if !object.is_empty() {
        location["logicalLocations"] = json!([{"fullyQualifiedName": object, "kind": "resource"}]);
    }
    let mut result = json!({
        "ruleId": finding.code, "ruleIndex": rule, "level": level, "message": {"text": text},
    });
    if location != json!({}) {
        result["locations"] = json!([location]);
    }
    result
}

/// A path as a URI (RFC 3986): relative ones stay so, below the root of whoever shows them.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        for (path, wanted) in [
            ("./deploy/a b.yaml", "deploy/a%20b.yaml"),
            ("/tmp/ä.yaml", "file:///tmp/%C3%A4.yaml"),
            ("a/b-c_d~e.yaml", "a/b-c_d~e.yaml"),
        ] {
            assert_eq!(uri(path), wanted);
        }
    }
}
