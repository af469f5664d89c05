//! What is made of the types that objects are read into: the definitions of the mesh's own kinds, in the chart, and the
//! page about them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, workspace::Workspace};

const MARK: &str = "# Made of agent/control by `cargo xtask codegen`; not to be edited.\n";

/// Writes what is not as it should be.
pub(super) fn write(workspace: &Workspace) -> Result<()> {
    for (path, text) in made(workspace)? {
        fs::write(workspace.root().join(&path), &text)
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    eprintln!("now `cargo xtask chart` makes the manifest of it");
    Ok(())
}

/// Files that are not what they are to be.
pub(crate) fn stale(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let is_stale = |(path, text): &(PathBuf, String)| {
        fs::read_to_string(workspace.root().join(path)).ok().as_ref() != Some(text)
    };
    Ok(made(workspace)?.into_iter().filter(is_stale).map(|(path, _)| path).collect())
}

/// All files; builds what reads objects, as tests do: of the whole workspace, so that nothing is built in two ways.
fn made(workspace: &Workspace) -> Result<Vec<(PathBuf, String)>> {
    let mut cargo = command::cargo();
    cargo.current_dir(workspace.root());
    cargo.args(["build", "--quiet", "--workspace", "--example", "definitions"]);
    command::run(&mut cargo)?;
    let said = |output: &str| {
        let example = workspace.root().join("target/debug/examples/definitions");
        command::stdout(Command::new(example).arg(output)).context("the definitions cannot be made")
    };
    let template = workspace.chart().join("templates/crds.yaml");
    Ok(vec![
        (workspace.relative(&template).to_owned(), templates(&said("yaml")?)),
        (Path::new("docs/reference/custom-resources.md").to_owned(), said("markdown")?),
    ])
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
