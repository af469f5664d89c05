//! Codes are described, and what is printed has the shape that is documented.

use std::{collections::BTreeSet, fs, path::Path};

use undermesh_model::{Diagnostic, ResourceRef, SourcePosition};

use super::{report::Report, rules::RULES, *};

/// Words of the sources that look like codes and are none.
const NO_CODES: [&str; 23] = [
    "date-time",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
    "0-9",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "grpc-web",
    "http3-post-connect-failure",
    "istio-locality",
    "large-body",
    "pod-template-hash",
    "refused-stream",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "undermesh-controller",
    "x-invalid",
];

#[test]
fn every_code_has_a_meaning_and_a_row_in_the_reference() {
    let page = include_str!("../../../docs/reference/analyze.md");
    assert!(RULES.is_sorted());
    for (code, meaning) in RULES {
        assert!(
            page.contains(&format!("| `{code}` | {meaning} |\n")),
            "{code} is not in analyze.md"
        );
    }
    assert_eq!(page.matches("\n| `").count(), RULES.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut words = BTreeSet::new();
    for sources in ["control/src", "snapshot/src"] {
        collect(&root.join(sources), &mut words);
    }
    assert!(words.len() > RULES.len(), "the sources were not read");
    let codes: BTreeSet<&str> = RULES.iter().map(|(code, _)| *code).collect();
    for word in &words {
        let known = codes.contains(word.as_str()) || NO_CODES.contains(&word.as_str());
        assert!(known, "{word:?} has no meaning in rules.rs");
    }
    let unsaid: Vec<&&str> = codes.iter().filter(|code| !words.contains(**code)).collect();
    assert_eq!(unsaid, Vec::<&&str>::new(), "nobody says these");
}

/// Literals of two or more words, outside tests.
fn collect(dir: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            collect(&path, words);
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "fixtures.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            words.extend(text.split('"').filter(|word| is_kebab(word)).map(str::to_owned));
        }
    }
}

fn is_kebab(word: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    word.contains('-') && word.split('-').all(part)
}

fn one() -> Report {
    let finding = Diagnostic {
        severity: Severity::Warning,
        code: "selects-nothing",
        object: Some(ResourceRef::namespaced("AuthorizationPolicy", "shop", "p")),
        position: Some(SourcePosition { file: "shop/p.yaml".into(), line: 4 }),
        message: "selects no pod: none has app=x".to_owned(),
        remedy: "correct the selector".to_owned(),
    };
    Report {
        scope: "1 objects in 1 files".to_owned(),
        suppressed: 2,
        findings: vec![Found::from(&finding)],
    }
}

#[test]
fn the_text_has_place_object_and_remedy() {
    assert_eq!(
        one().to_string(),
        "warning selects-nothing  shop/p.yaml:4  AuthorizationPolicy shop/p\n        \
         selects no pod: none has app=x\n        -> correct the selector\n\n\
         1 objects in 1 files: 0 errors, 1 warnings, 0 infos; 2 suppressed\n"
    );
}

#[test]
fn what_an_agent_says_is_read_again_as_it_was() {
    let found = one().findings;
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Found>>(&json).unwrap(), found);
}

#[test]
fn sarif_has_rule_level_and_places() {
    let log = sarif::log(&one());
    let run = &log["runs"][0];
    assert_eq!(log["version"], "2.1.0");
    let rule = &run["tool"]["driver"]["rules"][0];
    assert_eq!(rule["id"], "selects-nothing");
    assert_eq!(rule["shortDescription"]["text"], "the selector of a policy selects no pod");
    let result = &run["results"][0];
    assert_eq!((&result["ruleId"], &result["ruleIndex"]), (&rule["id"], &serde_json::json!(0)));
    assert_eq!(result["level"], "warning");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "shop/p.yaml");
    assert_eq!(place["region"]["startLine"], 4);
    let object = &result["locations"][0]["logicalLocations"][0];
    assert_eq!(object["fullyQualifiedName"], "AuthorizationPolicy shop/p");
}
