//! `image`: a container image with one static binary in it, made without a daemon and without root's stores being touched.
//! Two images of the same binary are the same, down to the digest.

mod binary;
mod buildah;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build_ebpf, command,
    install::{self, Need, Policy},
    progress::step,
    workspace::Workspace,
};
use buildah::Buildah;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Options of `image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name and tag of the image
    #[arg(long, value_name = "NAME", default_value = concat!("undermesh:", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// Push it to a registry: `docker://registry.example/undermesh:0.1.0`
    #[arg(long, value_name = "DESTINATION")]
    push: Option<String>,
    /// Build without optimisation, to try the image itself
    #[arg(long)]
    debug: bool,
    /// Build nothing; only see that the Containerfile is what it should be
    #[arg(long)]
    check: bool,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// Builds, tries, and says how large it is.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let file = workspace.root().join("deploy/Containerfile");
    let text = fs::read_to_string(&file).context("cannot read deploy/Containerfile")?;
    sound(&text)?;
    if args.check {
        println!("deploy/Containerfile has one binary on nothing");
        return Ok(ExitCode::SUCCESS);
    }
    let policy = Policy::from_flag(args.no_install);
    install::ensure(Need::Image, policy)?;
    build_ebpf::Builder::prepare(workspace, policy)?.build(false)?;
    let built = build(workspace, args.debug)?;
    let binary = binary::Binary::read(&built)?;
    ensure!(!binary.asks_for_others()?, "{} needs a loader or libraries", built.display());
    let object = fs::read(workspace.ebpf_object()).context("cannot read the programs' object")?;
    ensure!(binary.holds(&object), "{} does not hold the eBPF programs", built.display());

    let directory = workspace.root().join("target/image");
    let context = directory.join("context");
    fs::create_dir_all(&context)?;
    let staged = context.join("undermesh");
    fs::copy(&built, &staged).context("cannot copy the binary")?;
    // What is only for debuggers is not for nodes; the file beside has it.
    command::stdout(std::process::Command::new("strip").arg("--strip-debug").arg(&staged))?;
    let buildah = Buildah::new(&directory);
    let version = env!("CARGO_PKG_VERSION");
    let make = |tag: &str| buildah.build(&file, &context, tag, version);
    let first = step("building the image", || make(&args.tag))?;
    let again = step("building it again, to compare", || make("again"))?;
    ensure!(first == again, "two builds differ: {first} and {again}");
    smoke(&buildah, &args.tag)?;
    let archive = directory.join("undermesh.tar");
    buildah.save(&args.tag, &archive)?;
    if let Some(destination) = &args.push {
        step("pushing", || buildah.push(&args.tag, destination))?;
    }
    let size = |path: &Path| fs::metadata(path).map(|it| it.len() as f64 / f64::from(1 << 20));
    println!("image    {} {first}", args.tag);
    println!("binary   {:.1} MiB, static", size(&staged)?);
    println!(
        "archive  {}, {:.1} MiB (OCI)",
        workspace.relative(&archive).display(),
        size(&archive)?
    );
    Ok(ExitCode::SUCCESS)
}

/// The static binary. With `--target`, the flags are not for build scripts and macros.
fn build(workspace: &Workspace, debug: bool) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.current_dir(workspace.root()).env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo.args(["build", "--package", "undermesh", "--bin", "undermesh", "--locked"]);
    cargo.args(["--target", TARGET]);
    let profile = if debug { "debug" } else { "release" };
    if !debug {
        cargo.arg("--release");
    }
    command::run(&mut cargo)?;
    Ok(workspace.root().join("target").join(TARGET).join(profile).join("undermesh"))
}

/// Runs what is in the image, with nothing around it.
fn smoke(buildah: &Buildah, tag: &str) -> Result<()> {
    let said = buildah.run(tag, &["--version"])?;
    let version = concat!("undermesh ", env!("CARGO_PKG_VERSION"));
    ensure!(said.trim() == version, "`undermesh --version` in the image says {said:?}");
    let said = buildah.run(tag, &["crds"])?;
    ensure!(said.contains("CustomResourceDefinition"), "`undermesh crds` says nothing");
    // Whoever resolves names by the C library's plugins would need files that are not there.
    let said = buildah.run(tag, &["doctor", "--preflight", "--help"])?;
    ensure!(said.contains("preflight"), "`undermesh doctor` does not start");
    Ok(())
}

/// Nothing below the binary, and nothing beside it.
fn sound(containerfile: &str) -> Result<()> {
    let joined = containerfile.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let instructions: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let of = |word: &str| -> Vec<&str> {
        let these = instructions.iter().filter_map(|line| line.split_once(char::is_whitespace));
        these.filter(|(it, _)| *it == word).map(|(_, rest)| rest.trim()).collect()
    };
    ensure!(
        of("FROM") == ["scratch"],
        "deploy/Containerfile is to be built on nothing: `FROM scratch`"
    );
    ensure!(
        of("COPY") == ["undermesh /undermesh"],
        "the binary alone is to be copied, to /undermesh"
    );
    ensure!(of("ENTRYPOINT") == [r#"["/undermesh"]"#], "the entry point is to be the binary");
    for word in ["RUN", "ADD", "USER", "VOLUME", "SHELL", "CMD"] {
        ensure!(of(word).is_empty(), "deploy/Containerfile is to have no {word}");
    }
    let labels = of("LABEL").join(" ");
    for label in ["title", "description", "licenses", "version"] {
        let label = format!("org.opencontainers.image.{label}=");
        ensure!(labels.contains(&label), "deploy/Containerfile has no label {label}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../deploy/Containerfile");

    #[test]
    fn the_containerfile_has_one_binary_on_nothing() {
        sound(FILE).unwrap();
    }

    #[test]
    fn what_would_bring_more_into_the_image_is_refused() {
        for (from, to) in [
            ("FROM scratch", "FROM debian"),
            ("COPY undermesh /undermesh", "COPY . /"),
            ("ENTRYPOINT [", "RUN true\nENTRYPOINT ["),
            ("ENTRYPOINT [\"/undermesh\"]", "ENTRYPOINT /undermesh"),
            ("org.opencontainers.image.licenses", "licences"),
        ] {
            assert!(FILE.contains(from), "{from}");
            assert!(sound(&FILE.replace(from, to)).is_err(), "{to}");
        }
    }
}
