//! `codegen`: Rust types from the protobuf files of `agent/control/proto`, without a `protoc`. What comes of it is
//! committed, so that nobody else needs this; `lint` says where it is not what comes of the files. So are pages and
//! definitions that are made of the sources.

pub(crate) mod definitions;
pub(crate) mod metrics;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::Workspace;

/// Where the protobuf files are.
const PROTO: &str = "agent/control/proto";
/// Where the types go.
const OUT: &str = "agent/control/src/distribution/proto";
/// What is generated for; what these import comes along.
const FILES: [&str; 2] =
    ["envoy/service/discovery/v3/discovery.proto", "undermesh/distribution/v1/object.proto"];

/// Options of `codegen`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail where a file is not what it is to be
    #[arg(long)]
    check: bool,
}

/// Writes the types.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.check {
        let mut stale = [stale(workspace)?, definitions::stale(workspace)?].concat();
        let (there, made) = metrics::page(workspace)?;
        stale.extend((there != made).then(|| PathBuf::from(metrics::REFERENCE)));
        for path in &stale {
            println!("{} is stale: run `cargo xtask codegen`", path.display());
        }
        return Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for (path, text) in generated(workspace)? {
        let full = workspace.root().join(&path);
        full.parent().map(fs::create_dir_all).transpose()?;
        fs::write(full, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    let (_, page) = metrics::page(workspace)?;
    fs::write(workspace.root().join(metrics::REFERENCE), page)?;
    eprintln!("{}", metrics::REFERENCE);
    definitions::write(workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// Files that are not what they are to be.
pub(crate) fn stale(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let is_stale = |(path, text): &(PathBuf, String)| {
        fs::read_to_string(workspace.root().join(path)).ok().as_ref() != Some(text)
    };
    Ok(generated(workspace)?.into_iter().filter(is_stale).map(|(path, _)| path).collect())
}

/// Paths below the workspace, and texts.
fn generated(workspace: &Workspace) -> Result<Vec<(PathBuf, String)>> {
    let root = workspace.root().join(PROTO);
    let files = protox::compile(FILES, [&root]).context("the protobuf files cannot be read")?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    let requests = files
        .file
        .into_iter()
        .map(|file| (prost_build::Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let modules = config.generate(requests).context("no types can be made of them")?;
    let named: BTreeMap<PathBuf, String> = modules
        .into_iter()
        .map(|(module, text)| (module.parts().collect::<PathBuf>().with_extension("rs"), text))
        .collect();
    named
        .into_iter()
        .map(|(path, text)| Ok((Path::new(OUT).join(path), formatted(workspace, &text)?)))
        .collect()
}

/// As `cargo fmt` would leave it.
fn formatted(workspace: &Workspace, text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(workspace.root().join("rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt")?;
    let text = format!("//! Made by `cargo xtask codegen` of the files in `{PROTO}`.\n\n{text}");
    rustfmt.stdin.take().context("rustfmt takes nothing")?.write_all(text.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt does not take what was generated");
    Ok(String::from_utf8(output.stdout)?)
}
