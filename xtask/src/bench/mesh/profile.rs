//! Flame graphs: what the processors do while a kind of work goes one way. perf samples the rig's
//! processes, kernel and all; inferno draws.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use undermesh_tests::cgroup2_mount;

use super::{ground::Ground, work::Work};
use crate::{bench::load::found, command, install, workspace::Workspace};

const INFERNO_VERSION: &str = "0.12.8";
/// Samples a second and processor; no divisor of what ticks.
const FREQUENCY: &str = "499";
/// How long work goes on before it is looked at, and after.
const AROUND: Duration = Duration::from_secs(1);

/// Draws flame graphs.
pub(super) struct Profiler {
    perf: PathBuf,
    collapse: PathBuf,
    draw: PathBuf,
    dir: PathBuf,
}

impl Profiler {
    /// Makes sure that the tools are there.
    pub(super) fn new(workspace: &Workspace, policy: install::Policy) -> Result<Self> {
        install::ensure(install::Need::Profile, policy)?;
        let purpose = "draws flame graphs";
        let tool = install::pinned_tool(workspace, "inferno", INFERNO_VERSION, purpose, policy)?;
        let dir = workspace.root().join("target/bench/profiles");
        fs::create_dir_all(&dir)?;
        let perf = found("perf")?;
        let collapse = tool.with_file_name("inferno-collapse-perf");
        let draw = tool.with_file_name("inferno-flamegraph");
        Ok(Self { perf, collapse, draw, dir })
    }

    /// Does the work, and returns the file of its flame graph.
    pub(super) fn profile(&self, work: Work, ground: &Ground, time: Duration) -> Result<PathBuf> {
        let name = format!("{}-{}", ground.way.name(), work.name());
        let file = |kind: &str| self.dir.join(format!("{name}.{kind}"));
        let (samples, graph) = (file("perf"), file("svg"));
        std::thread::scope(|scope| {
            let work = scope.spawn(|| work.run(ground, time + 2 * AROUND));
            std::thread::sleep(AROUND);
            let recorded = self.record(ground.cgroup(), &samples, time);
            let done = work.join().map_err(|_| anyhow::anyhow!("the work panicked"))??;
            ensure!(done.units > 0.0, "nothing was done while it was profiled");
            recorded
        })?;
        let (script, folded) = (file("script"), file("folded"));
        let mut list = Command::new(&self.perf);
        list.args(["script", "--no-inline", "--input"]).arg(&samples);
        into(list, None, &script)?;
        into(Command::new(&self.collapse), Some(&script), &folded)?;
        let mut draw = Command::new(&self.draw);
        draw.args(["--title", &name]);
        into(draw, Some(&folded), &graph)?;
        for file in [samples, script] {
            fs::remove_file(file)?;
        }
        Ok(graph)
    }

    fn record(&self, cgroup: &Path, to: &Path, time: Duration) -> Result<()> {
        let mount = cgroup2_mount()?;
        let group = cgroup.strip_prefix(&mount).context("the rig's cgroup is somewhere else")?;
        let mut perf = Command::new(&self.perf);
        // A clock's ticks, since virtual machines rarely count cycles.
        perf.args(["record", "--quiet", "--event", "cpu-clock", "--freq", FREQUENCY, "--all-cpus"]);
        perf.arg("--cgroup").arg(group).args(["--call-graph", "dwarf,16384", "--output"]).arg(to);
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
    command.stdin(input).stdout(File::create(output)?).stderr(Stdio::null());
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}
