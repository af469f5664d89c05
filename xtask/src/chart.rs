//! `chart`: lints the Helm chart, renders it, and writes `deploy/kubernetes/undermesh.yaml` from it. Helm is
//! its own library (v4), as a package of PyPI binds it; no cluster is asked.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    install::{Policy, python_package},
    workspace::Workspace,
};

/// Helm 4.2.3.
const HELM: (&str, &str) = ("helm-python-sdk", "0.2.2");
const RENDER: &str = include_str!("chart/render.py");
const NAMESPACE: &str = "undermesh-system";
/// Begins the line with the sums.
const SUMS: &str = "# sums: ";
/// What has to be there before other objects can be made.
const FIRST: [&str; 2] = ["namespace.yaml", "crds.yaml"];

/// Options of `chart`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail where the manifest is not what the chart makes
    #[arg(long)]
    check: bool,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// What `render.py` answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    findings: Vec<String>,
    refused: Option<String>,
}

/// Values other than the manifest's: everything on, and everything off.
fn variants() -> [Value; 3] {
    [
        json!({
            "image": {"digest": format!("sha256:{}", "0".repeat(64)), "pullSecrets": ["registry"]},
            "agent": {
                "secretNames": ["upstream"],
                "settings": {"mtls": "STRICT"},
                "nodeSelector": {"kubernetes.io/os": "linux"},
            },
            "controller": {
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "tolerations": [{"operator": "Exists"}],
            },
            "webhook": {"exemptNamespaces": ["elsewhere"]},
            "monitoring": {
                "enabled": true,
                "labels": {"release": "prometheus"},
                "rules": true,
                "dashboards": {"enabled": true},
            },
        }),
        json!({"webhook": {"enabled": false}, "networkPolicy": {"enabled": false}}),
        json!({
            "agent": {"caAddress": "https://istiod.istio-system.svc:15012", "seLinuxOptions": null},
            "controller": {"enabled": false},
        }),
    ]
}

/// What says in a manifest that controllers distribute the configuration: settings of both sides.
const DISTRIBUTED: [&str; 4] =
    ["source: controller", "distribute: true", "controllerAddresses:", "resources: [sidecars]"];

/// Agents that have their configuration from controllers, and those that do not.
fn distribution() -> [(Value, bool); 2] {
    [(json!({"agent": {"source": "controller"}}), true), (json!({}), false)]
}

/// Values that the schema or the chart has to refuse.
fn refused() -> [Value; 6] {
    [
        json!({"agent": {"source": "elsewhere"}}),
        json!({"agent": {"source": "controller"}, "controller": {"enabled": false}}),
        json!({"agents": {}}),
        json!({"agent": {"secretNames": ["undermesh-ca"]}}),
        json!({"agent": {"settings": {"node": "a"}}}),
        json!({"image": {"digest": "sha256:0"}}),
    ]
}

/// Renders, lints, and writes or compares.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policy = Policy::from_flag(args.no_install);
    let helm = python_package(workspace, HELM.0, HELM.1, "lints and renders the chart", policy)?;
    let render = |values: &Value| ask(workspace, &helm, values);
    for values in variants() {
        sound(render(&values)?).with_context(|| format!("with the values {values}"))?;
    }
    for (values, distributed) in distribution() {
        let manifest = join(sound(render(&values)?)?);
        for word in DISTRIBUTED {
            ensure!(manifest.contains(word) == distributed, "{word:?} with the values {values}");
        }
    }
    for values in refused() {
        ensure!(render(&values)?.refused.is_some(), "the schema lets pass: {values}");
    }
    let files = sound(render(&json!({"namespace": {"create": true}}))?)?;
    let manifest = signed(workspace, &join(files))?;
    let path = workspace.manifest();
    let shown = workspace.relative(&path).display().to_string();
    if args.check {
        let there = fs::read_to_string(&path).unwrap_or_default();
        ensure!(there == manifest, "{shown} is not what the chart makes: run `cargo xtask chart`");
        println!("{shown} is what the chart makes");
        return Ok(ExitCode::SUCCESS);
    }
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    fs::write(&path, &manifest).with_context(|| format!("cannot write {shown}"))?;
    println!("{shown}: {} lines", manifest.lines().count());
    Ok(ExitCode::SUCCESS)
}

fn ask(workspace: &Workspace, helm: &Path, values: &Value) -> Result<Answer> {
    let asked = json!({"chart": workspace.chart(), "namespace": NAMESPACE, "values": values});
    let mut python = Command::new("python3")
        .args(["-c", RENDER])
        .env("PYTHONPATH", helm)
        // No one's configuration and no one's plugins.
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start python3")?;
    let mut input = python.stdin.take().context("python3 has no standard input")?;
    input.write_all(asked.to_string().as_bytes())?;
    drop(input);
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "helm ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("helm's answer cannot be read")
}

/// The rendered files, if there is nothing to say against them.
fn sound(answer: Answer) -> Result<BTreeMap<String, String>> {
    if let Some(reason) = answer.refused {
        bail!("helm refuses the chart: {reason}");
    }
    ensure!(answer.findings.is_empty(), "helm lint: {}", answer.findings.join("\n"));
    ensure!(!answer.files.is_empty(), "helm has rendered nothing");
    Ok(answer.files)
}

/// One file of many: what others need first, the rest by name.
fn join(files: BTreeMap<String, String>) -> String {
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut files: Vec<(String, String)> = files
        .into_iter()
        .map(|(path, text)| (name(&path), text))
        .filter(|(name, text)| name.ends_with(".yaml") && !text.trim().is_empty())
        .collect();
    files.sort_by_key(|(name, _)| {
        (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), name.clone())
    });
    let mut manifest = String::new();
    for (_, text) in files {
        let text = text.trim();
        manifest.push_str("---\n");
        for line in text.strip_prefix("---").unwrap_or(text).trim_start().lines() {
            manifest.push_str(line.trim_end());
            manifest.push('\n');
        }
    }
    manifest
}

/// The manifest with a head that says what it was made of.
fn signed(workspace: &Workspace, manifest: &str) -> Result<String> {
    Ok(format!(
        "# Made of deploy/helm/undermesh by `cargo xtask chart`; not to be edited.\n\
         # kubectl apply --server-side -f undermesh.yaml\n\
         {SUMS}{:016x} {:016x}\n{manifest}",
        sum_of_chart(workspace)?,
        sum([manifest.as_bytes()])
    ))
}

/// Whether the manifest is of this chart, and as it was made. Needs no Helm: sums of both are in its head.
pub(crate) fn is_fresh(workspace: &Workspace) -> Result<bool> {
    let text = fs::read_to_string(workspace.manifest())?;
    let body = text.find("---\n").map_or("", |at| &text[at..]);
    Ok(text == signed(workspace, body)?)
}

fn sum_of_chart(workspace: &Workspace) -> Result<u64> {
    let mut files = BTreeMap::new();
    for directory in [workspace.chart(), workspace.chart().join("templates")] {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_file() {
                files.insert(workspace.relative(&path).display().to_string(), fs::read(&path)?);
            }
        }
    }
    Ok(sum(files.iter().flat_map(|(path, text)| [path.as_bytes(), text.as_slice()])))
}

/// FNV-1a: against forgetting, not against forgery.
fn sum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    // What no file holds stands between the parts.
    let bytes = parts.into_iter().flat_map(|part| part.iter().copied().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_and_a_manifest_that_were_changed_have_other_sums() {
        assert_eq!(sum([]), 0xcbf2_9ce4_8422_2325);
        assert_ne!(sum([&b"ab"[..], b"c"]), sum([&b"a"[..], b"bc"]));
        let workspace =
            Workspace::at(&std::env::temp_dir().join(format!("chart-{}", std::process::id())));
        fs::create_dir_all(workspace.chart().join("templates")).unwrap();
        fs::create_dir_all(workspace.manifest().parent().unwrap()).unwrap();
        let template = workspace.chart().join("templates/a.yaml");
        fs::write(&template, "a: 1\n").unwrap();
        let manifest = signed(&workspace, "---\na: 1\n").unwrap();
        fs::write(workspace.manifest(), &manifest).unwrap();
        assert!(is_fresh(&workspace).unwrap());
        fs::write(workspace.manifest(), manifest.replace("a: 1", "a: 2")).unwrap();
        assert!(!is_fresh(&workspace).unwrap());
        fs::write(workspace.manifest(), &manifest).unwrap();
        fs::write(&template, "a: 3\n").unwrap();
        assert!(!is_fresh(&workspace).unwrap());
        fs::remove_dir_all(workspace.root()).unwrap();
    }

    #[test]
    fn the_namespace_comes_first_and_empty_files_and_notes_are_left_out() {
        let files = [
            ("undermesh/templates/agent.yaml", "a: 1\n---\nb: 2  \n"),
            ("undermesh/templates/crds.yaml", "\n---\nc: 3\n"),
            ("undermesh/templates/namespace.yaml", "d: 4\n"),
            ("undermesh/templates/monitoring.yaml", "\n"),
            ("undermesh/templates/NOTES.txt", "Done."),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let manifest = join(files.into());
        assert_eq!(manifest, "---\nd: 4\n---\nc: 3\n---\na: 1\n---\nb: 2\n");
    }

    #[test]
    fn what_helm_says_against_a_chart_is_an_error() {
        let answer = |text: &str| sound(serde_json::from_str(text).unwrap());
        assert!(answer(r#"{"refused": "at '/image'"}"#).is_err());
        assert!(answer(r#"{"files": {"a": "b"}, "findings": ["values.yaml: no"]}"#).is_err());
        assert!(answer(r#"{"files": {}}"#).is_err());
        assert_eq!(answer(r#"{"files": {"a": "b"}}"#).unwrap()["a"], "b");
    }
}
