//! All machines of a run: what they share is built once, then as many boot at a time as the machine
//! can bear.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, bail};
use undermesh_tests::vm::{Plan, PlannedTest};

use super::{
    Output,
    boot::Run,
    initramfs::{Programs, Userland},
    kernel::Kernel,
    outcome::{Check, Ending, Outcome},
    qemu::{Accelerator, MEMORY, Machine, Qemu},
    report,
};
use crate::{command, test::build::Built, workspace::Workspace};

/// Memory that QEMU takes beside the machine's, in MiB.
const OVERHEAD: u64 = 512;
/// Programs that are not tests, besides the agent; they lie beside it.
const TOOLS: [&str; 1] = ["undermesh-pod"];
/// Programs of this system that tests run, and their packages.
const SYSTEM: [(&str, &str); 4] =
    [("ip", "iproute2"), ("ss", "iproute2"), ("prlimit", "util-linux"), ("setpriv", "util-linux")];
/// What the kernel starts.
const INIT: &str = "undermesh-vm";

/// How machines are run, as far as the user may choose.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// How processors are had.
    pub(crate) accelerator: Accelerator,
    /// How many run at once; none leaves it to this machine.
    pub(crate) jobs: Option<usize>,
    /// Where progress goes.
    pub(crate) output: Output,
}

/// Everything that all machines share.
pub(crate) struct Place {
    directory: PathBuf,
    userland: Userland,
    plan: Plan,
    qemu: Qemu,
    manner: Manner,
}

impl Place {
    /// Collects what the machines run: what has been built, as far as `tests` need it.
    pub(crate) fn prepare(
        workspace: &Workspace,
        built: &Built,
        tests: Vec<PlannedTest>,
        qemu: Qemu,
        manner: Manner,
    ) -> Result<Self> {
        let directory = workspace.root().join("target/vm");
        fs::create_dir_all(&directory).context("cannot make target/vm")?;
        let bin = built.agent.parent().context("the agent has no directory")?;
        let programs = programs(built, &tests, bin)?;
        let userland = Userland::collect(&bin.join(INIT), &programs, &directory)?;
        Ok(Self { directory, userland, plan: Plan { modules: Vec::new(), tests }, qemu, manner })
    }

    /// Runs every kernel; the outcomes come in the kernels' order.
    pub(crate) fn run_all(&self, kernels: &[Kernel]) -> Result<Vec<Outcome>> {
        let jobs = self.manner.jobs.unwrap_or_else(jobs).max(1);
        let queue = Mutex::new(kernels.iter().enumerate());
        let outcomes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let worker = || -> Result<()> {
                loop {
                    // In a statement of its own: the lock is held for taking one, not for running it.
                    let next = lock(&queue)?.next();
                    let Some((at, kernel)) = next else { return Ok(()) };
                    let outcome = self.run(kernel)?;
                    lock(&outcomes)?.push((at, outcome));
                }
            };
            let workers: Vec<_> =
                (0..jobs.min(kernels.len())).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("a run of a machine panicked"),
            })
        })?;
        let mut outcomes = std::mem::take(&mut *lock(&outcomes)?);
        outcomes.sort_by_key(|(at, _)| *at);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    fn run(&self, kernel: &Kernel) -> Result<Outcome> {
        let version = kernel.package.version.as_str();
        let console = self.directory.join(format!("{version}.log"));
        let initramfs = self.directory.join(format!("{version}.cpio"));
        // A console of a run before must not be taken for this one's.
        fs::write(&console, "")?;
        self.userland.write(kernel, &self.plan, &initramfs)?;
        let command = self.qemu.boot(&Machine {
            series: kernel.package.series,
            kernel: &kernel.image(),
            initramfs: &initramfs,
            console: &console,
            accelerator: self.manner.accelerator,
        });
        let mut outcome = Outcome::new(&kernel.choice.to_string(), version, console.clone());
        self.manner.output.say(&format!("{version:<18} booting, {} tests", self.plan.tests.len()));
        let run = Run { command, console: &console, tests: &self.plan.tests };
        let show = |check: &Check| self.manner.output.say(&report::line(version, check));
        if let Err(error) = run.finish(&mut outcome, show) {
            let ending = Ending::NotBooted(format!("{error:#}"));
            outcome.end(ending, &self.plan.tests, 0.0);
        }
        fs::remove_file(&initramfs)?;
        Ok(outcome)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| anyhow::anyhow!("a run of a machine panicked"))
}

/// The programs that a machine needs for its tests.
fn programs(built: &Built, tests: &[PlannedTest], bin: &Path) -> Result<Programs> {
    let mut programs: Programs = vec![("undermesh".to_owned(), built.agent.clone())];
    for (name, package) in SYSTEM {
        let program = command::find(name)
            .with_context(|| format!("no {name}: install Debian's package {package}"))?;
        programs.push((name.to_owned(), program.canonicalize()?));
    }
    programs.extend(TOOLS.map(|tool| (tool.to_owned(), bin.join(tool))));
    for test in tests {
        if programs.iter().any(|(name, _)| *name == test.program) {
            continue;
        }
        let executable = built
            .netns_test(&test.program)
            .with_context(|| format!("no test executable {} has been built", test.program))?;
        programs.push((test.program.clone(), executable.to_owned()));
    }
    Ok(programs)
}

/// How many machines run at once.
fn jobs() -> usize {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    jobs_for(processors, &memory)
}

/// Three for two processors, if there is memory for them: a machine that is emulated keeps one processor busy at
/// most, and none while its tests wait; and of three machines the last would run alone.
fn jobs_for(processors: usize, meminfo: &str) -> usize {
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    let fitting = available / 1024 / (MEMORY + OVERHEAD);
    (processors + processors / 2).min(usize::try_from(fitting).unwrap_or(processors)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_memory_bound_how_many_machines_run() {
        let with =
            |gigabytes: u64| format!("MemFree: 1 kB\nMemAvailable: {} kB\n", gigabytes << 20);
        assert_eq!(jobs_for(1, &with(24)), 1);
        assert_eq!(jobs_for(2, &with(24)), 3);
        assert_eq!(jobs_for(16, &with(6)), 4);
        assert_eq!(jobs_for(8, &with(1)), 1);
        assert_eq!(jobs_for(8, ""), 1);
    }
}
