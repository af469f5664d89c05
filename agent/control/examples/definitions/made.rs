//! Files that are made of the types that objects are read into: the definitions of the mesh's own kinds, in the chart, and
//! the page about them. `cargo xtask codegen` writes them, and a test (`tests/definitions`) sees that they are as they should be.

use std::collections::BTreeMap;

const MARK: &str = "# Made of agent/control by `cargo xtask codegen`; not to be edited.\n";

/// Names below the repository, and texts.
pub(crate) fn files() -> Result<BTreeMap<&'static str, String>, serde_yaml_ng::Error> {
    let mut definitions = String::new();
    for definition in undermesh_control::definitions() {
        definitions += &format!("---\n{}", serde_yaml_ng::to_string(&definition)?);
    }
    Ok(BTreeMap::from([
        ("deploy/helm/undermesh/templates/crds.yaml", templates(&definitions)),
        ("docs/reference/custom-resources.md", undermesh_control::definitions_page()),
    ]))
}

/// What Helm makes the definitions of again.
fn templates(definitions: &str) -> String {
    let text = definitions.replace("{{", "{{ \"{{\" }}");
    let text = text.strip_prefix("---\n").unwrap_or(&text);
    // Below the separator: a comment alone is no object.
    format!("---\n{MARK}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_say_where_they_come_from_and_are_no_templates_by_accident() {
        let made = templates("---\na: '{{ x }}'\n---\nb: 1\n");
        assert_eq!(made, format!("---\n{MARK}a: '{{{{ \"{{{{\" }}}} x }}}}'\n---\nb: 1\n"));
    }
}
