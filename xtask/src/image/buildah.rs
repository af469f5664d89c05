//! buildah: images without a daemon. Its stores are below `target/image`; files are copied instead of mounted (`vfs`), and
//! processes are changed into the root (`chroot`), so that it works in containers as well.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::command;

/// Where stores and pid files are.
pub(super) struct Buildah {
    directory: PathBuf,
}

impl Buildah {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn command(&self, word: &str) -> Command {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(self.directory.join("store"));
        buildah.arg("--runroot").arg(self.directory.join("run"));
        buildah.args(["--storage-driver", "vfs", word]);
        buildah.env("BUILDAH_ISOLATION", "chroot");
        buildah
    }

    /// Builds an image in which every time is 0, and returns its digest.
    pub(super) fn build(
        &self,
        file: &Path,
        context: &Path,
        tag: &str,
        version: &str,
    ) -> Result<String> {
        let mut build = self.command("build");
        build.args(["--format", "oci", "--timestamp", "0", "--no-cache", "--layers=false"]);
        build.args(["--network", "none", "--build-arg"]).arg(format!("VERSION={version}"));
        build.args(["--platform", "linux/amd64", "--tag", tag, "--file"]).arg(file).arg(context);
        command::stdout(&mut build)?;
        let mut inspect = self.command("inspect");
        inspect.args(["--type", "image", "--format", "{{.FromImageDigest}}", tag]);
        Ok(command::stdout(&mut inspect)?.trim().to_owned())
    }

    /// Runs the entry point with arguments, and nothing of this machine around it but `/proc`, `/sys` and `/dev`.
    pub(super) fn run(&self, tag: &str, args: &[&str]) -> Result<String> {
        let mut from = self.command("from");
        let container = command::stdout(from.args(["--pull-never", tag]))?;
        let container = container.trim();
        let mut run = self.command("run");
        run.args(["--network", "none", container, "/undermesh"]).args(args);
        let said = command::stdout(&mut run).with_context(|| format!("in the image: {args:?}"));
        command::stdout(self.command("rm").arg(container))?;
        said
    }

    /// Writes it as an archive that every runtime can load.
    pub(super) fn save(&self, tag: &str, archive: &Path) -> Result<()> {
        if archive.exists() {
            std::fs::remove_file(archive)?;
        }
        self.push(tag, &format!("oci-archive:{}", archive.display()))
    }

    pub(super) fn push(&self, tag: &str, destination: &str) -> Result<()> {
        let mut push = self.command("push");
        command::stdout(push.args(["--quiet", tag, destination])).map(drop)
    }
}
