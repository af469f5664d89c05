//! Which kernels there are, from the stanzas of Debian's package index, and which of them a name
//! that the user has typed, or the matrix, means.

use std::fmt;

use anyhow::{Result, bail};

use super::version::{Series, Version};

/// The names of packages that hold a kernel for virtual machines, as a regular expression for apt.
pub(crate) const PACKAGE_NAMES: &str = "^linux-image-[0-9].*cloud-amd64(-unsigned)?$";

/// What `--all` runs, oldest first: the series of Debian's releases, two between the last two of
/// them, and the newest there is.
const MATRIX: [Choice; 7] = [
    Choice::Series(Series(5, 10)),
    Choice::Series(Series(6, 1)),
    Choice::Series(Series(6, 12)),
    Choice::Series(Series(6, 16)),
    Choice::Series(Series(6, 18)),
    Choice::Newest,
    Choice::Candidate,
];

/// What runs where nothing is said, and in CI: the oldest, one in the middle, the newest.
const DEFAULT: [Choice; 3] =
    [Choice::Series(Series(5, 10)), Choice::Series(Series(6, 12)), Choice::Newest];

/// What a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The newest release of a series.
    Series(Series),
    /// The newest release of all.
    Newest,
    /// The newest release candidate.
    Candidate,
}

impl Choice {
    /// `6.12`, `newest` or `rc`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "newest" => Ok(Self::Newest),
            "rc" => Ok(Self::Candidate),
            text => match Version::new(text).series() {
                Some(series) if series.to_string() == text => Ok(Self::Series(series)),
                _ => bail!("no kernel is called {text:?}: say a series (6.12), `newest` or `rc`"),
            },
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(series) => series.fmt(f),
            Self::Newest => f.pad("newest"),
            Self::Candidate => f.pad("rc"),
        }
    }
}

/// One package that holds a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Name of the package.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: Version,
    /// Series of the kernel.
    pub(crate) series: Series,
    /// Packages with the rest of the kernel, where it has been split (from 6.19 on).
    pub(crate) parts: Vec<String>,
}

impl Package {
    /// What to fetch: the parts, or the package itself where it is whole.
    pub(crate) fn downloads(&self) -> Vec<String> {
        let names =
            if self.parts.is_empty() { std::slice::from_ref(&self.name) } else { &self.parts };
        names.iter().map(|name| format!("{name}={}", self.version.as_str())).collect()
    }

    /// A name for a directory.
    pub(crate) fn label(&self) -> String {
        format!("{}_{}", self.name, self.version.as_str().replace([':', '~'], "-"))
    }
}

/// All kernels of the index, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog(Vec<Package>);

impl Catalog {
    /// Reads stanzas as `apt-cache search --full` prints them.
    pub(crate) fn read(stanzas: &str) -> Self {
        let mut packages: Vec<Package> = stanzas.split("\n\n").filter_map(package).collect();
        // Of the same version, the unsigned one is smaller and needs no secure boot.
        packages.sort_by(|a, b| {
            let unsigned = |it: &Package| it.name.ends_with("-unsigned");
            b.version.cmp(&a.version).then(unsigned(b).cmp(&unsigned(a)))
        });
        Self(packages)
    }

    /// The packages that a choice may mean, the best first; an index may name packages that its
    /// mirror has no longer.
    pub(crate) fn candidates(&self, choice: Choice) -> Vec<&Package> {
        let releases = || self.0.iter().filter(|it| !it.version.is_candidate());
        match choice {
            Choice::Series(series) => releases().filter(|it| it.series == series).collect(),
            Choice::Newest => releases().collect(),
            Choice::Candidate => self.0.iter().filter(|it| it.version.is_candidate()).collect(),
        }
    }

    /// Every series that has a release.
    pub(crate) fn series(&self) -> Vec<Series> {
        let releases = self.0.iter().filter(|it| !it.version.is_candidate());
        let mut series: Vec<Series> = releases.map(|it| it.series).collect();
        series.sort_unstable();
        series.dedup();
        series
    }
}

/// The kernels that a command line asks for.
pub(crate) fn choices(named: &[String], all: bool) -> Result<Vec<Choice>> {
    let mut choices = match (named.is_empty(), all) {
        (true, false) => DEFAULT.to_vec(),
        (_, true) => MATRIX.to_vec(),
        (false, false) => Vec::new(),
    };
    for name in named {
        let choice = Choice::parse(name)?;
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    Ok(choices)
}

/// Whether the matrix, and whether the default, has a choice.
pub(crate) fn membership(choice: Choice) -> (bool, bool) {
    (MATRIX.contains(&choice), DEFAULT.contains(&choice))
}

fn package(stanza: &str) -> Option<Package> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let depends = field("Depends")?;
    // What needs an initramfs is a kernel; the others are names that lead to the current one.
    if !depends.contains("linux-initramfs-tool") {
        return None;
    }
    let version = Version::new(field("Version")?);
    let is_part =
        |name: &&str| name.starts_with("linux-binary-") || name.starts_with("linux-modules-");
    let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
    Some(Package {
        name: field("Package")?.to_owned(),
        series: version.series()?,
        version,
        parts: names.filter(is_part).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests;
