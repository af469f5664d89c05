//! Metrics are API. What agent and controller register is declared, `docs/reference/metrics.md` is made of the
//! declarations, and dashboards and alerts name nothing else.
//!
//! That types and labels are those of a real scrape, `netns_prometheus` and the tests of the crates show.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;

use super::{Finding, tree, tree::File};
use crate::{
    codegen::metrics::{self, Declared, PREFIXES, REFERENCE},
    workspace::Workspace,
};

/// Where names are used.
const MONITORING: &str = "deploy/helm/undermesh/files";
/// What is said without a declaration, and the one place that may.
const UNDECLARED: [&str; 3] =
    [".encode_descriptor(", "registry.register(", "registry.register_with_unit("];
const DECLARES: &str = "agent/telemetry/src/metric.rs";

/// Reads sources, reference, dashboards and rules.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let sources = tree::files(workspace, "agent", "rs")?;
    let mut found = undeclared(&sources);
    let (there, made) = metrics::page(workspace)?;
    if there != made {
        let message = "is not what the declarations make: run `cargo xtask codegen`";
        found.push(Finding::error(Path::new(REFERENCE), None, message));
    }
    let mut monitoring = tree::files(workspace, MONITORING, "json")?;
    monitoring.extend(tree::files(workspace, MONITORING, "yaml")?);
    let declared = metrics::declared(&sources)?;
    found.extend(unknown(&monitoring, &exposed(declared.values().flatten())));
    Ok(found)
}

/// Registrations of what is not declared.
fn undeclared(sources: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in sources {
        if file.path == Path::new(DECLARES) || metrics::is_test(file) {
            continue;
        }
        let lines = (1..).zip(file.text.lines());
        for (number, line) in lines.take_while(|(_, line)| !line.starts_with("mod tests {")) {
            if UNDECLARED.iter().any(|word| line.contains(word)) {
                let message = "declare it as a `Metric`, and register or describe that";
                found.push(Finding::error(&file.path, Some(number), message));
            }
        }
    }
    found
}

/// Names of samples.
fn exposed<'a>(declared: impl Iterator<Item = &'a Declared>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for metric in declared {
        let name = metric.exposed();
        if metric.kind == "histogram" {
            names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
        names.insert(name);
    }
    names
}

fn is_part(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// Names in dashboards and rules that nothing has.
fn unknown(files: &[File], exposed: &BTreeSet<String>) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            for name in line.split(|c| !is_part(c)) {
                let is_name = PREFIXES
                    .iter()
                    .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
                if is_name && !exposed.contains(name) {
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

    #[test]
    fn what_is_registered_without_a_declaration_is_found() {
        let source = "REQUESTS.register(registry, a);\nregistry.register(\"undermesh_a\", help, a);\n\
                      encoder.encode_descriptor(name, help, None, kind)?;\n\
                      registry.register_collector(b);\nmod tests {\nregistry.register(\"x\")";
        let found = undeclared(&[file("agent/a.rs", source)]);
        let lines: Vec<Option<usize>> = found.iter().map(|it| it.line).collect();
        assert_eq!(lines, [Some(2), Some(3)]);
        for path in [DECLARES, "agent/a/tests.rs"] {
            assert!(undeclared(&[file(path, source)]).is_empty());
        }
    }

    #[test]
    fn dashboards_and_rules_name_what_is_exposed() {
        let source = "static A: Metric = Metric::histogram(\"istio_c\", &[], \"x\");\n\
                      static B: Metric = Metric::counter(\"undermesh_a\", &[], \"x\");";
        let sources = [file("agent/a.rs", source)];
        let declared = metrics::declared(&sources).unwrap();
        let exposed = exposed(declared.values().flatten());
        let of = |text: &str| unknown(&[file("a.json", text)], &exposed).len();
        assert_eq!(
            of("rate(undermesh_a_total[5m]) / istio_c_bucket{le=\\\"1\\\"} + istio_c_sum"),
            0
        );
        assert_eq!(of("undermesh_a\nistio_c_quantile\nundermesh_a_total_total"), 3);
    }
}
