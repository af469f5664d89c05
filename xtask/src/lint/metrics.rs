//! Metrics are API. What agent and controller register has a row in `docs/reference/metrics.md`, with the suffix that its
//! type has in an exposition, and what has a row is registered. Dashboards and alerts name nothing else.
//!
//! That types and labels are those of a real scrape, `netns_prometheus` shows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Finding, tree, tree::File};
use crate::workspace::Workspace;

const REFERENCE: &str = "docs/reference/metrics.md";
/// Prefixes of names; the last are the ones that every process has.
const PREFIXES: [&str; 3] = ["undermesh_", "istio_", "process_"];
/// Where names are used.
const MONITORING: &str = "deploy/helm/undermesh/files";
/// What the client library and Prometheus add to the name of a family.
const SUFFIXES: [&str; 6] = ["_total", "_info", "_bucket", "_sum", "_count", ""];
/// Words of files that register metrics.
const REGISTERS: [&str; 2] = ["registry::Registry", "encoding::{DescriptorEncoder"];

/// Reads sources, reference, dashboards and rules.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let sources = tree::files(workspace, "agent", "rs")?;
    let reference = tree::files(workspace, "docs/reference", "md")?;
    let Some(reference) = reference.iter().find(|file| file.path.ends_with("metrics.md")) else {
        return Ok(Vec::new());
    };
    let mut monitoring = tree::files(workspace, MONITORING, "json")?;
    monitoring.extend(tree::files(workspace, MONITORING, "yaml")?);
    let mut found = unmatched(&sources, reference);
    found.extend(unknown(&monitoring, reference));
    Ok(found)
}

/// Name and type of each row, and its line.
fn rows(reference: &File) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(reference.text.lines()) {
        let row = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | "));
        let Some((name, rest)) = row else { continue };
        if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            found.push((number, name, rest.split(" |").next().unwrap_or_default()));
        }
    }
    found
}

fn suffix(kind: &str) -> Option<&'static str> {
    match kind {
        "counter" => Some("_total"),
        "info" => Some("_info"),
        "gauge" | "histogram" => Some(""),
        _ => None,
    }
}

/// Rows and registrations without each other.
fn unmatched(sources: &[File], reference: &File) -> Vec<Finding> {
    let mut registered: BTreeMap<&str, (&File, usize)> = BTreeMap::new();
    for file in sources.iter().filter(|file| registers(file)) {
        for (line, name) in literals(&file.text) {
            registered.entry(name).or_insert((file, line));
        }
    }
    let (mut found, mut documented) = (Vec::new(), BTreeSet::new());
    for (line, name, kind) in rows(reference) {
        let Some(suffix) = suffix(kind) else {
            let message = format!("`{name}`: {kind:?} is no type of a metric");
            found.push(Finding::error(&reference.path, Some(line), message));
            continue;
        };
        let family =
            name.strip_suffix(suffix).filter(|_| kind != "gauge" || !name.ends_with("_total"));
        match family {
            Some(family) if registered.contains_key(family) => {
                if !documented.insert(family) {
                    let message = format!("`{name}` has two rows");
                    found.push(Finding::error(&reference.path, Some(line), message));
                }
            }
            Some(_) => {
                let message = format!("`{name}`: no {kind} of this name is registered");
                found.push(Finding::error(&reference.path, Some(line), message));
            }
            None => {
                let message = format!("`{name}`: a {kind} is exposed with {suffix:?} at its end");
                found.push(Finding::error(&reference.path, Some(line), message));
            }
        }
    }
    for (name, (file, line)) in registered {
        if !documented.contains(name) {
            let message = format!("metric `{name}` has no row in {REFERENCE}");
            found.push(Finding::error(&file.path, Some(line), message));
        }
    }
    found
}

/// A source that registers metrics, outside of tests.
fn registers(file: &File) -> bool {
    let is_test = file.path.components().any(|part| {
        let part = part.as_os_str();
        part == "tests" || part == "tests.rs" || part == "testing.rs"
    });
    !is_test && (REGISTERS.iter().any(|word| file.text.contains(word)) || is_about_metrics(file))
}

fn is_about_metrics(file: &File) -> bool {
    file.path.to_string_lossy().contains("metrics") && file.text.contains("prometheus_client")
}

/// Names that are whole string literals, with their lines; what follows the first module of tests is none.
fn literals(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("mod tests {") {
            break;
        }
        let is_name = |text: &&str| {
            PREFIXES.iter().any(|prefix| text.starts_with(prefix)) && text.chars().all(is_part)
        };
        found.extend(line.split('"').skip(1).step_by(2).filter(is_name).map(|name| (number, name)));
    }
    found
}

fn is_part(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// Names in dashboards and rules that have no row.
fn unknown(files: &[File], reference: &File) -> Vec<Finding> {
    let rows = rows(reference);
    let is_known = |name: &str| {
        rows.iter().any(|(_, row, kind)| {
            *row == name
                || (*kind == "histogram"
                    && SUFFIXES.iter().any(|suffix| name.strip_suffix(suffix) == Some(row)))
        })
    };
    let mut found = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            for name in line.split(|c| !is_part(c)) {
                let is_name = PREFIXES
                    .iter()
                    .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
                if is_name && !is_known(name) {
                    let message = format!("`{name}` is no metric of {REFERENCE}");
                    found.push(Finding::error(&file.path, Some(number), message));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: PathBuf::from(path), text: text.to_owned() }
    }

    fn complaints(source: &str, rows: &str) -> Vec<String> {
        let source = format!("use prometheus_client::registry::Registry;\n{source}");
        let reference = file("metrics.md", &format!("| metric | type |\n|---|---|\n{rows}\n"));
        let found = unmatched(&[file("agent/a.rs", &source)], &reference);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_metric_and_its_row_find_each_other_by_the_suffix_of_its_type() {
        let rows = "| `undermesh_a_total` | counter | | x |\n| `undermesh_b` | gauge | `l` | x |\n\
                    | `istio_c` | histogram | x |\n| `undermesh_d_info` | info | | x |";
        let source = "register(\"undermesh_a\", \"undermesh_b\", \"istio_c\", \"undermesh_d\")";
        assert_eq!(complaints(source, rows), Vec::<String>::new());
    }

    #[test]
    fn a_row_without_a_metric_and_a_metric_without_a_row_are_found() {
        let row = "| `undermesh_a_total` | counter | | x |";
        assert_eq!(
            complaints("register(\"undermesh_b\", \"Help\")", row),
            [
                "metrics.md:3: `undermesh_a_total`: no counter of this name is registered",
                "agent/a.rs:2: metric `undermesh_b` has no row in docs/reference/metrics.md",
            ]
        );
    }

    #[test]
    fn a_type_has_its_suffix_and_is_one() {
        let of = |row: &str| complaints("register(\"undermesh_a\")", row).remove(0);
        let counter = of("| `undermesh_a` | counter | | x |");
        assert_eq!(
            counter,
            "metrics.md:3: `undermesh_a`: a counter is exposed with \"_total\" at its end"
        );
        assert!(of("| `undermesh_a_total` | gauge | | x |").contains("a gauge is exposed"));
        assert!(of("| `undermesh_a` | number | | x |").contains("no type of a metric"));
        let twice = "| `undermesh_a` | gauge | | x |\n| `undermesh_a` | gauge | | y |";
        assert_eq!(of(twice), "metrics.md:4: `undermesh_a` has two rows");
    }

    #[test]
    fn names_of_tests_and_parts_of_texts_are_no_registrations() {
        let source = "\"see undermesh_x\"\n#[cfg(test)]\nmod tests {\n\"undermesh_y\"";
        assert_eq!(complaints(source, ""), Vec::<String>::new());
    }

    #[test]
    fn dashboards_and_rules_name_what_is_exposed() {
        let reference = file(
            "metrics.md",
            "| `istio_c` | histogram | x |\n| `undermesh_a_total` | counter | | x |\n",
        );
        let of = |text: &str| unknown(&[file("a.json", text)], &reference).len();
        assert_eq!(
            of("rate(undermesh_a_total[5m]) / istio_c_bucket{le=\\\"1\\\"} + istio_c_sum"),
            0
        );
        assert_eq!(of("undermesh_a\nistio_c_quantile\nundermesh_a_total_total"), 3);
    }
}
