//! Kernels and a QEMU to boot them, out of the cache or Debian's archive: for `vm`, and for the ring
//! `vm` of `test`.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use undermesh_tests::vm::PlannedTest;

use super::{
    Output,
    apt::Apt,
    catalog::{self, Catalog, Choice},
    kernel::Kernel,
    outcome::{Ending, Outcome},
    qemu::{Accelerator, Qemu},
    report, ring,
    run::{Manner, Place},
};
use crate::{
    install::{self, Need, Policy},
    test::build::Built,
    workspace::Workspace,
};

/// What has been fetched.
pub(crate) struct Machines {
    pub(super) qemu: Qemu,
    kernels: Vec<Kernel>,
    /// Kernels that cannot be had, and why.
    missing: Vec<(Choice, String)>,
}

impl Machines {
    /// Fetches what the cache does not have. A kernel that cannot be had is remembered as missing.
    pub(super) fn fetch(store: Store, choices: &[Choice], policy: Policy) -> Result<Self> {
        let Store { cache, apt, catalog } = store;
        let qemu = Qemu::find_or_fetch(&apt, &cache.directory, policy)?;
        let mut machines = Self { qemu, kernels: Vec::new(), missing: Vec::new() };
        for &choice in choices {
            match Kernel::fetch(choice, &catalog, &apt, &cache.directory) {
                Ok(kernel) if machines.has(&kernel) => {
                    eprintln!("{choice} is {}, which runs anyway", kernel.package.version.as_str());
                }
                Ok(kernel) => machines.kernels.push(kernel),
                Err(error) => machines.missing.push((choice, format!("{error:#}"))),
            }
        }
        // The cache is let go: what is there is only read from now on.
        Ok(machines)
    }

    /// What the ring `vm` runs: the oldest kernel, a middle one and the newest. The error is why
    /// this machine cannot boot any.
    pub(crate) fn of_the_ring(policy: Policy) -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "its kernels are for x86_64, this machine is not");
        let machines = Self::fetch(Store::open(policy)?, &catalog::choices(&[], false)?, policy)?;
        if machines.kernels.is_empty() {
            let reasons = machines.missing().map(|(_, why)| why).collect::<Vec<_>>();
            bail!("no kernel can be had: {}", reasons.join("; "));
        }
        Ok(machines)
    }

    /// Runs the kernel ring, as far as `filter` matches, as part of `test`; every check's kernel and
    /// name, and whether it has passed.
    pub(crate) fn run_ring(
        &self,
        workspace: &Workspace,
        built: &Built,
        filter: Option<&str>,
    ) -> Result<Vec<(String, bool)>> {
        let tests: Vec<_> = ring::tests()
            .into_iter()
            .filter(|test| filter.is_none_or(|filter| test.name().contains(filter)))
            .collect();
        if tests.is_empty() {
            return Ok(Vec::new());
        }
        let manner =
            Manner { accelerator: Accelerator::default(), jobs: None, output: Output::Table };
        let outcomes = self.run(workspace, built, tests, manner)?;
        eprint!("{}", report::failures(&outcomes));
        print!("\n{}", report::table(&outcomes));
        let verdicts = outcomes.iter().flat_map(|outcome| {
            let name = |check: &str| format!("{} {check}", outcome.kernel());
            outcome.checks.iter().map(move |check| (name(&check.name), check.passed))
        });
        Ok(verdicts.collect())
    }

    /// Kernels that cannot be had, and why.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (String, &str)> {
        self.missing.iter().map(|(choice, why)| (choice.to_string(), why.as_str()))
    }

    /// Boots every kernel and runs `tests` in it.
    pub(super) fn run(
        &self,
        workspace: &Workspace,
        built: &Built,
        tests: Vec<PlannedTest>,
        manner: Manner,
    ) -> Result<Vec<Outcome>> {
        let place = Place::prepare(workspace, built, tests, self.qemu.clone(), manner)?;
        place.run_all(&self.kernels)
    }

    /// What comes of kernels that cannot be had.
    pub(super) fn outcomes_of_missing(&self, output: Output) -> Vec<Outcome> {
        let outcome = |(choice, why): (String, &str)| {
            let mut outcome = Outcome::new(&choice, "", PathBuf::new());
            outcome.end(Ending::NotBooted(why.to_owned()), &[], 0.0);
            outcome.checks.iter().for_each(|it| output.say(&report::line(outcome.kernel(), it)));
            outcome
        };
        self.missing().map(outcome).collect()
    }

    fn has(&self, kernel: &Kernel) -> bool {
        self.kernels.iter().any(|it| it.package == kernel.package)
    }
}

/// Where kernels and QEMU come from.
pub(super) struct Store {
    cache: Cache,
    apt: Apt,
    pub(super) catalog: Catalog,
}

impl Store {
    /// Sees to the tools that fetching needs, and to fresh lists.
    pub(super) fn open(policy: Policy) -> Result<Self> {
        install::ensure(Need::Vm, policy)?;
        let cache = Cache::lock()?;
        let apt = Apt::open(&cache.directory)?;
        let catalog = apt.catalog()?;
        Ok(Self { cache, apt, catalog })
    }

    /// Where downloads are.
    pub(super) fn directory(&self) -> &Path {
        &self.cache.directory
    }
}

/// Downloads that outlive a build directory, shared by all clones of this user; one run at a time
/// fetches.
struct Cache {
    directory: PathBuf,
    _lock: File,
}

impl Cache {
    fn lock() -> Result<Self> {
        let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        let directory =
            base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("undermesh/vm");
        let shown = directory.display();
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {shown}"))?;
        let lock = File::create(directory.join("lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for another run that uses {shown}");
            lock.lock().with_context(|| format!("cannot lock {shown}"))?;
        }
        Ok(Self { directory, _lock: lock })
    }
}
