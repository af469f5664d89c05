//! Names that users write down are API: environment variables, labels and annotations, metrics.
//! Each one in the agent's sources has to stand in `docs/reference/`.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Finding, tree, tree::File};
use crate::workspace::Workspace;

/// Prefixes of environment variables, and of labels and annotations.
const ENVIRONMENT: &str = "UNDERMESH_";
const ANNOTATION: &str = "undermesh.io/";
/// Prefixes of metrics, looked for only in files that are about metrics.
const METRICS: [&str; 2] = ["undermesh_", "istio_"];
/// Where the names have to be listed.
const REFERENCE: &str = "docs/reference";

/// Reads the agent's sources and the reference.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let sources = tree::files(workspace, "agent", "rs")?;
    let reference: String =
        tree::files(workspace, REFERENCE, "md")?.into_iter().map(|file| file.text + "\n").collect();
    Ok(undocumented(&sources, &reference))
}

fn undocumented(sources: &[File], reference: &str) -> Vec<Finding> {
    let documented: Vec<&str> = names(reference, true).into_iter().map(|(_, name)| name).collect();
    let mut missing = BTreeMap::new();
    for file in sources {
        if is_test(file) {
            continue;
        }
        let about_metrics = file.path.to_string_lossy().contains("metrics");
        for (line, name) in names(&file.text, about_metrics) {
            if !documented.iter().any(|it| is_same(it, name)) {
                missing.entry(name).or_insert((file, line));
            }
        }
    }
    missing
        .into_iter()
        .map(|(name, (file, line))| {
            let message = format!("`{name}` is API: describe it in {REFERENCE}/names.md");
            Finding::error(&file.path, Some(line), message)
        })
        .collect()
}

/// A metric is registered without the suffix that its exposition adds.
fn is_same(documented: &str, name: &str) -> bool {
    documented.strip_prefix(name).is_some_and(|suffix| {
        let is_metric = METRICS.iter().any(|prefix| name.starts_with(prefix));
        suffix.is_empty() || (is_metric && ["_total", "_bucket"].contains(&suffix))
    })
}

/// Tests make up names.
fn is_test(file: &File) -> bool {
    file.path.components().any(|part| {
        let part = part.as_os_str();
        part == "tests" || part == "tests.rs"
    })
}

/// Every name in `text` with its line, once per occurrence. In a source file, what follows the
/// first `#[cfg(test)]` module is tests.
fn names(text: &str, with_metrics: bool) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("mod tests {") {
            break;
        }
        let mut add = |prefix, is_part| {
            found.extend(words(line, prefix, is_part).map(|name| (index + 1, name)));
        };
        add(ENVIRONMENT, is_upper);
        add(ANNOTATION, is_lower);
        // The crates are called like metrics.
        if with_metrics && !line.starts_with("use ") {
            for prefix in METRICS {
                add(prefix, is_lower);
            }
        }
    }
    found
}

fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

fn is_lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)
}

/// Words that begin with `prefix`, go on with at least one character of the kind `is_part`, and
/// are not the end of a longer word.
fn words<'a>(
    line: &'a str,
    prefix: &'static str,
    is_part: fn(char) -> bool,
) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(start, _)| {
        let before = line[..start].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            return None;
        }
        let rest = &line[start + prefix.len()..];
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        // A full stop ends a sentence, not a name.
        let name = line[start..start + prefix.len() + length].trim_end_matches(['.', '-', '_']);
        (name.len() > prefix.len()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: PathBuf::from(path), text: text.to_owned() }
    }

    fn missing(path: &str, text: &str, reference: &str) -> Vec<String> {
        undocumented(&[file(path, text)], reference).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_undocumented_name_is_reported_where_it_is_first_used() {
        let source =
            "//! x\nconst A: &str = \"undermesh.io/netns\";\n#[arg(env = \"UNDERMESH_LOG\")]\n";
        let found = missing("agent/src/a.rs", source, "");
        assert_eq!(
            found,
            [
                "agent/src/a.rs:3: `UNDERMESH_LOG` is API: describe it in docs/reference/names.md",
                "agent/src/a.rs:2: `undermesh.io/netns` is API: describe it in docs/reference/names.md",
            ]
        );
    }

    #[test]
    fn a_documented_name_is_fine_but_a_longer_one_does_not_stand_for_it() {
        let source = "env = \"UNDERMESH_LOG\"";
        assert!(missing("agent/a.rs", source, "| `UNDERMESH_LOG` | level |").is_empty());
        assert_eq!(missing("agent/a.rs", source, "`UNDERMESH_LOG_FORMAT`").len(), 1);
    }

    #[test]
    fn metrics_are_looked_for_in_metrics_files_and_may_lack_their_suffix() {
        let source = "register(\"istio_tcp_sent_bytes\")";
        assert!(missing("agent/src/a.rs", source, "").is_empty());
        assert_eq!(missing("agent/proxy/src/metrics.rs", source, "").len(), 1);
        let reference = "- `istio_tcp_sent_bytes_total`";
        assert!(missing("agent/proxy/src/metrics.rs", source, reference).is_empty());
    }

    #[test]
    fn a_crate_that_is_used_is_no_metric() {
        let source = "use undermesh_model::Node;\n";
        assert!(missing("agent/src/metrics.rs", source, "").is_empty());
    }

    #[test]
    fn a_bare_prefix_a_host_name_and_the_names_in_tests_are_not_api() {
        let source = "\"undermesh.io/{name}\" \"x.undermesh.io/a\"\n#[cfg(test)]\nmod tests {\n\"UNDERMESH_X\"";
        assert!(missing("agent/src/a.rs", source, "").is_empty());
        assert!(missing("agent/src/a/tests.rs", "\"UNDERMESH_X\"", "").is_empty());
    }

    #[test]
    fn the_full_stop_of_a_sentence_is_not_part_of_a_name() {
        assert_eq!(names("by `x` or undermesh.io/cgroup.", false), [(1, "undermesh.io/cgroup")]);
    }
}
