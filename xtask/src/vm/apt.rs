//! Debian's archive through apt itself, beside the machine's own: an apt root in the cache, with the
//! mirrors of the machine's sources, more suites than those, and Debian's keyring. Signatures are
//! checked as ever. Nothing is installed, and nothing outside of the cache is written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::catalog::{Catalog, PACKAGE_NAMES};
use crate::{command, progress::step};

/// Suites with kernels that run in the world; from the main mirror, and from the one for security.
const SUITES: [&str; 5] = ["bullseye", "bookworm", "trixie", "trixie-backports", "experimental"];
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// How old the package lists may be.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// The keys of Debian's archive, as Debian installs them.
const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt root.
pub(crate) struct Apt {
    root: PathBuf,
    codename: String,
}

impl Apt {
    /// Opens the root below `cache`, or makes it, and sees to it that its lists are fresh. Without a
    /// network, lists that are there have to do.
    pub(crate) fn open(cache: &Path) -> Result<Self> {
        ensure!(
            command::find("apt-get").is_some(),
            "kernels come from Debian's archive, and this system has no apt-get"
        );
        let root = cache.join("apt");
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = codename(&release).context("/etc/os-release names no Debian release")?;
        let apt = Self { root, codename };
        apt.make_root()?;
        if !apt.is_fresh() {
            apt.refresh()?;
        }
        Ok(apt)
    }

    /// All kernels.
    pub(crate) fn catalog(&self) -> Result<Catalog> {
        let stanzas = command::stdout(self.apt("apt-cache").args([
            "search",
            "--full",
            "--names-only",
            PACKAGE_NAMES,
        ]))?;
        Ok(Catalog::read(&stanzas))
    }

    /// Fetches packages (`name=version`) into a directory.
    pub(crate) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        fs::create_dir_all(into)?;
        let mut apt = self.apt("apt-get");
        command::stdout(apt.current_dir(into).arg("download").args(packages)).map(drop)
    }

    /// Fetches a package and all that it needs and this machine does not have.
    pub(crate) fn download_with_needs(&self, package: &str, into: &Path) -> Result<()> {
        fs::create_dir_all(into.join("partial"))?;
        // What is installed counts as there; a copy, for apt locks what it reads.
        fs::copy("/var/lib/dpkg/status", self.root.join(STATUS)).context("no dpkg status")?;
        let fetched = command::stdout(
            self.apt("apt-get")
                .arg("install")
                .args(["--download-only", "--yes", "--no-install-recommends"])
                .args(["--target-release", &self.codename])
                .arg(format!("-oDir::Cache::archives={}", into.display()))
                .arg(package),
        );
        fs::write(self.root.join(STATUS), "")?;
        fetched.map(drop)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Cargo's own libraries must not be what apt's helpers load.
        command.env_remove("LD_LIBRARY_PATH").env("LC_ALL", "C.UTF-8");
        command.env("APT_CONFIG", self.root.join(CONFIG));
        command
    }

    fn make_root(&self) -> Result<()> {
        for dir in DIRECTORIES {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let root = self.root.display();
        fs::write(self.root.join(STATUS), "")?;
        fs::write(
            self.root.join(CONFIG),
            format!(
                "Dir \"{root}\";\nDir::State::status \"{root}/{STATUS}\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
                 APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\n\
                 Acquire::Retries \"2\";\nAcquire::http::Timeout \"20\";\n"
            ),
        )?;
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let modified = fs::metadata(self.root.join(STAMP)).and_then(|it| it.modified());
        modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < FRESH))
    }

    /// Brings the lists up to date. A suite that cannot be had (some leave the mirrors) is named and
    /// left out.
    fn refresh(&self) -> Result<()> {
        let uris = command::stdout(
            Command::new("apt-get").env_remove("LD_LIBRARY_PATH").args(["--print-uris", "update"]),
        )?;
        let mirrors = Mirrors::of(&uris, &self.codename)?;
        let machine = Path::new("/").join(KEYRING);
        ensure!(machine.is_file(), "no {}: install debian-archive-keyring", machine.display());
        let mut refused = self.update(&mirrors, &machine)?;
        if refused.iter().any(|line| line.contains("NO_PUBKEY")) {
            // A suite that is newer than this machine is signed by a newer key; the keyring that
            // holds it is signed by one that we have.
            let newer = self.newer_keyring()?;
            refused = self.update(&mirrors, &newer)?;
        }
        for line in &refused {
            eprintln!("apt: {line}");
        }
        // Without a network, apt keeps the old lists; the next run is to try again.
        if !refused.iter().any(|line| line.starts_with("W: Failed to fetch")) {
            fs::write(self.root.join(STAMP), "")?;
        }
        Ok(())
    }

    /// Updates; what apt complains of is the answer.
    fn update(&self, mirrors: &Mirrors, keyring: &Path) -> Result<Vec<String>> {
        let sources = mirrors.sources(&self.codename, keyring);
        fs::write(self.root.join("etc/apt/sources.list"), sources)?;
        let output = step("refreshing Debian's package lists", || {
            // Old lists do as well, so nothing is waited for.
            let mut update = self.apt("apt-get");
            update.args(["-oAcquire::Retries=0", "update"]);
            update.output().context("cannot start apt-get")
        })?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn newer_keyring(&self) -> Result<PathBuf> {
        let dir = self.root.join("keyring");
        self.download(&["debian-archive-keyring".to_owned()], &dir)?;
        unpack_all(&dir, &dir)?;
        Ok(dir.join(KEYRING))
    }
}

/// Unpacks every package in a directory.
pub(crate) fn unpack_all(packages: &Path, into: &Path) -> Result<()> {
    for entry in fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "deb") {
            command::stdout(Command::new("dpkg-deb").arg("-x").arg(&path).arg(into))?;
        }
    }
    Ok(())
}

const CONFIG: &str = "apt.conf";
const STATUS: &str = "var/lib/dpkg/status";
const STAMP: &str = "refreshed";
const DIRECTORIES: [&str; 6] = [
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "etc/apt/trusted.gpg.d",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
    "var/lib/dpkg",
];

/// Where this machine gets Debian from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Mirrors {
    /// Reads what `apt-get --print-uris update` prints: `'MIRROR/dists/SUITE/InRelease' FILE ...`.
    fn of(uris: &str, codename: &str) -> Result<Self> {
        let mirror = |suite: &str| {
            let end = format!("/dists/{suite}/InRelease");
            uris.lines()
                .filter_map(|line| line.strip_prefix('\'')?.split('\'').next())
                .find_map(|uri| uri.strip_suffix(&end))
                .map(str::to_owned)
        };
        let Some(main) = mirror(codename) else {
            bail!("this machine's apt sources have no suite {codename}; kernels come from there");
        };
        Ok(Self { main, security: mirror(&format!("{codename}-security")) })
    }

    fn sources(&self, codename: &str, keyring: &Path) -> String {
        // A mirror may lag behind: an old kernel is as good, and signatures are checked all the same.
        let options = format!("[signed-by={} check-valid-until=no]", keyring.display());
        let mut suites: Vec<(&str, &str)> = SUITES.map(|suite| (self.main.as_str(), suite)).into();
        if !SUITES.contains(&codename) {
            suites.push((&self.main, codename));
        }
        if let Some(security) = &self.security {
            suites.extend(SECURITY_SUITES.map(|suite| (security.as_str(), suite)));
        }
        suites
            .iter()
            .map(|(mirror, suite)| format!("deb {options} {mirror} {suite} main\n"))
            .collect()
    }
}

fn codename(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URIS: &str = "\
'http://mirror.test/debian/dists/bookworm/InRelease' mirror.test_debian_dists_bookworm_InRelease 0 
'http://mirror.test/debian/dists/bookworm-updates/InRelease' mirror.test_updates 0 
'http://security.test/deb/dists/bookworm-security/InRelease' security.test_InRelease 0 
'https://else.test/apt/dists/sdk-bookworm/InRelease' else.test_InRelease 0 
";

    #[test]
    fn mirrors_are_those_of_the_machines_own_sources() {
        let mirrors = Mirrors::of(URIS, "bookworm").unwrap();
        assert_eq!(mirrors.main, "http://mirror.test/debian");
        assert_eq!(mirrors.security.as_deref(), Some("http://security.test/deb"));
        let sources = mirrors.sources("bookworm", Path::new("/keys.gpg"));
        assert_eq!(sources.lines().count(), SUITES.len() + SECURITY_SUITES.len());
        assert!(sources.lines().all(|line| line.contains("signed-by=/keys.gpg")), "{sources}");
    }

    #[test]
    fn a_machine_that_is_not_debian_is_told_so() {
        let error = Mirrors::of(URIS, "noble").unwrap_err().to_string();
        assert!(error.contains("no suite noble"), "{error}");
    }

    #[test]
    fn a_release_that_has_no_kernel_of_ours_is_listed_for_its_tools() {
        let mirrors = Mirrors { main: "http://mirror.test/debian".to_owned(), security: None };
        let sources = mirrors.sources("forky", Path::new("/keys.gpg"));
        assert!(sources.contains("http://mirror.test/debian forky main\n"), "{sources}");
    }

    #[test]
    fn the_release_is_read_with_and_without_quotes() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=trixie\n").as_deref(), Some("trixie"));
        assert_eq!(codename("VERSION_CODENAME=\"noble\"\n").as_deref(), Some("noble"));
        assert_eq!(codename("ID=arch\n"), None);
    }
}
