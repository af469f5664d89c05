//! Flame graphs: what the processors do while a kind of work goes one way. perf samples the rig's
//! processes, kernel and all; inferno folds and draws.
//!
//! ```text
//! stacks    what was sampled, read and with the mesh's processes named
//! summary   the same in figures
//! ```

mod stacks;
mod summary;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use undermesh_tests::cgroup2_mount;

use self::summary::Summary;
use super::{ground::Ground, work::Work};
use crate::{bench::load::found, command, install, progress::step, workspace::Workspace};

const INFERNO_VERSION: &str = "0.12.8";
/// Samples a second, of all processors together: what is recorded must not grow with their number.
const FREQUENCY: u32 = 499;
/// Stacks are unwound later, from a copy of so many bytes: nothing has to be compiled with frame pointers, which
/// neither the agent's release build nor those of others have. The agent's reach down to 52 KiB, and the kernel
/// copies no more than 64.
const CALL_GRAPH: &str = "dwarf,61440";
/// Pages of memory for each processor's samples until they are written; half a second of them.
const PAGES: &str = "4096";
/// How long work goes on before it is looked at, and after.
const AROUND: Duration = Duration::from_secs(1);

/// Draws flame graphs.
pub(super) struct Profiler {
    perf: PathBuf,
    collapse: PathBuf,
    draw: PathBuf,
    dir: PathBuf,
    processors: u32,
}

/// What has come of one.
pub(super) struct Profile {
    /// The flame graph; its stacks are beside it.
    pub(super) graph: PathBuf,
    /// In figures; the first line goes on behind the graph's name.
    pub(super) summary: String,
}

impl Profiler {
    /// Makes sure that the tools are there.
    pub(super) fn new(workspace: &Workspace, policy: install::Policy) -> Result<Self> {
        install::ensure(install::Need::Profile, policy)?;
        let purpose = "draws flame graphs";
        let tool = install::pinned_tool(workspace, "inferno", INFERNO_VERSION, purpose, policy)?;
        let dir = workspace.root().join("target/bench/profiles");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let perf = found("perf")?;
        let collapse = tool.with_file_name("inferno-collapse-perf");
        let draw = tool.with_file_name("inferno-flamegraph");
        let processors = u32::try_from(thread::available_parallelism()?.get())?;
        Ok(Self { perf, collapse, draw, dir, processors })
    }

    /// Does the work, and draws what it was that the processors did.
    pub(super) fn profile(&self, work: Work, ground: &Ground, time: Duration) -> Result<Profile> {
        let name = format!("{}-{}", ground.way.name(), work.name());
        let file = |kind: &str| self.dir.join(format!("{name}.{kind}"));
        let (samples, script, folded) = (file("perf"), file("script"), file("folded"));
        ground.forget_logs()?;
        let what = format!("profile {name}: recording for {} s", time.as_secs());
        step(&what, || self.record(work, ground, &samples, time))?;
        let mebibytes = fs::metadata(&samples)?.len() >> 20;
        let what = format!("profile {name}: unwinding {mebibytes} MiB of stacks, drawing");
        step(&what, || {
            let mut list = Command::new(&self.perf);
            // Functions that were inlined would be asked for one by one, which takes minutes.
            list.args(["script", "--no-inline", "--fields", "comm,pid,tid,time,event,ip,sym,dso"]);
            list.arg("--input").arg(&samples);
            into(list, None, &script)?;
            let mut collapse = Command::new(&self.collapse);
            collapse.args(["--quiet", "--kernel", "--pid"]);
            into(collapse, Some(&script), &folded)?;
            let stacks = stacks::read(&fs::read_to_string(&folded)?, &ground.processes())?;
            let mesh: Vec<&str> = ground.processes().into_iter().map(|(_, name)| name).collect();
            let summary = Summary::new(&stacks, &mesh);
            ensure!(summary.samples() > 0, "perf has seen none of the rig's processes run");
            fs::write(&folded, stacks::write(&stacks))?;
            let mut draw = Command::new(&self.draw);
            // Its colours for Java are those that tell the kernel from the rest.
            draw.args(["--title", &name, "--colors", "java", "--countname", "samples"]);
            let graph = file("svg");
            into(draw, Some(&folded), &graph)?;
            for file in [samples, script] {
                fs::remove_file(file)?;
            }
            let (samples, every) = (summary.samples(), self.processors * self.frequency());
            let share = 100.0 * samples as f64 / (f64::from(every) * time.as_secs_f64());
            let summary =
                format!("{samples} samples, {share:.0}% of the processors' time\n{summary}");
            Ok(Profile { graph, summary })
        })
    }

    /// Records the middle of the work.
    fn record(&self, work: Work, ground: &Ground, to: &Path, time: Duration) -> Result<()> {
        thread::scope(|scope| {
            let work = scope.spawn(|| work.run(ground, time + 2 * AROUND));
            thread::sleep(AROUND);
            let recorded = self.perf(ground.cgroup(), to, time);
            let done = work.join().map_err(|_| anyhow!("the work panicked"))??;
            ensure!(done.units > 0.0, "nothing was done while it was profiled");
            recorded
        })
    }

    /// Samples a second and processor.
    fn frequency(&self) -> u32 {
        (FREQUENCY / self.processors).max(1)
    }

    fn perf(&self, cgroup: &Path, to: &Path, time: Duration) -> Result<()> {
        let mount = cgroup2_mount()?;
        let group = cgroup.strip_prefix(&mount).context("the rig's cgroup is somewhere else")?;
        let mut perf = Command::new(&self.perf);
        // A clock's ticks, since virtual machines rarely count cycles.
        perf.args(["record", "--quiet", "--event", "cpu-clock", "--all-cpus", "--freq"]);
        perf.arg(self.frequency().to_string()).args(["--mmap-pages", PAGES]);
        perf.arg("--cgroup").arg(group).args(["--call-graph", CALL_GRAPH, "--output"]).arg(to);
        perf.args(["--", "sleep", &time.as_secs().to_string()]);
        command::stdout(&mut perf).map(drop)
    }
}

/// Runs a command whose output becomes a file.
fn into(mut command: Command, input: Option<&Path>, output: &Path) -> Result<()> {
    let shown = command::display(&command);
    let input = match input {
        Some(path) => Stdio::from(File::open(path)?),
        None => Stdio::null(),
    };
    command.stdin(input).stdout(File::create(output)?).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let ended = child.wait_with_output()?;
    ensure!(
        ended.status.success(),
        "`{shown}` failed ({}):\n{}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim_end()
    );
    Ok(())
}
