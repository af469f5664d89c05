//! Where things are in the repository, so that no other file spells a path twice.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The repository this xtask was built from.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Cargo says where xtask's manifest is; the root is the directory above it.
    pub(crate) fn locate() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .context("xtask's manifest has no directory above it: run `cargo xtask` in a clone")?;
        Ok(Self::at(root))
    }

    /// A workspace whose root is `root`.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The repository's root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The package that holds the eBPF programs.
    pub(crate) fn ebpf_package(&self) -> PathBuf {
        self.root.join("ebpf-programs/programs")
    }

    /// The eBPF object that `build-ebpf` writes; the build script of `undermesh-datapath` embeds it
    /// from this path.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.ebpf_package().join("target/bpfel-unknown-none/release/undermesh-programs")
    }

    /// The Helm chart.
    pub(crate) fn chart(&self) -> PathBuf {
        self.root.join("deploy/helm/undermesh")
    }

    /// What `chart` makes of it.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("deploy/kubernetes/undermesh.yaml")
    }

    /// Where tools are put that xtask builds for itself; not in the user's home.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The package that holds the fuzz targets.
    pub(crate) fn fuzz_package(&self) -> PathBuf {
        self.root.join("tests/fuzz")
    }

    /// Where fuzz targets are built and run: they are instrumented, unlike everything else.
    pub(crate) fn fuzzing(&self) -> PathBuf {
        self.root.join("target/fuzz")
    }

    /// `path` as a reader at the root would write it.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}
