//! `undermesh-vm`: the first process of a virtual machine that `cargo xtask vm` has booted. It makes
//! the place one that the tests can live in, runs them, tells what happened, and powers off.
//!
//! Two processes: the first one only collects children, as process 1 has to; the second does the
//! work, so that a test's orphans cannot be mistaken for what it waits for.

mod place;
mod run;

use std::{
    env,
    fs::File,
    io::Write,
    process::{self, Command},
    sync::Mutex,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    process::{WaitOptions, wait},
    system::{RebootCommand, reboot},
};
use undermesh_tests::vm::{EVENTS, Event, PLAN, PROGRAMS, Plan};

/// The argument by which the second process knows itself.
const WORK: &str = "work";

fn main() -> Result<()> {
    if env::args().nth(1).as_deref() == Some(WORK) {
        return work();
    }
    // Whoever starts this on a machine that is not ours must not see it power off.
    ensure!(
        process::id() == 1,
        "this is the first process of a virtual machine; see cargo xtask vm"
    );
    if let Err(error) = place::mount_everything().and_then(|()| supervise()) {
        // The console; there may be no serial port to report to.
        eprintln!("undermesh-vm: {error:#}");
    }
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

/// Starts the worker, and collects children until it is among them.
fn supervise() -> Result<()> {
    let worker = Command::new("/proc/self/exe")
        .arg(WORK)
        .env_clear()
        .env("PATH", PROGRAMS)
        .env("TMPDIR", "/tmp")
        .spawn()
        .context("cannot start the worker")?;
    loop {
        let ended = wait(WaitOptions::empty()).context("no worker to wait for")?;
        if ended.is_some_and(|(pid, _)| pid.as_raw_nonzero().get() as u32 == worker.id()) {
            return Ok(());
        }
    }
}

fn work() -> Result<()> {
    let events = Events::open()?;
    if let Err(error) = follow_plan(&events) {
        events.tell(&Event::SetupFailed { reason: format!("{error:#}") })?;
    }
    events.tell(&Event::Done)
}

fn follow_plan(events: &Events) -> Result<()> {
    let text = std::fs::read_to_string(PLAN).with_context(|| format!("no plan at {PLAN}"))?;
    let plan: Plan = serde_json::from_str(&text).context("the plan cannot be read")?;
    place::load_modules(&plan.modules)?;
    place::raise_loopback()?;
    events.tell(&Event::Booted { release: place::kernel_release()? })?;
    match run::programs() {
        Ok(programs) => events.tell(&Event::Programs { programs })?,
        // The tests may still say something.
        Err(error) => events.tell(&Event::SetupFailed { reason: format!("{error:#}") })?,
    }
    for test in &plan.tests {
        events.tell(&Event::Started { name: test.name() })?;
        events.tell(&run::test(test))?;
    }
    Ok(())
}

/// The way out: one line an event.
struct Events(Mutex<File>);

impl Events {
    fn open() -> Result<Self> {
        let port = File::options().write(true).open(EVENTS);
        Ok(Self(Mutex::new(port.with_context(|| format!("no serial port {EVENTS}"))?)))
    }

    fn tell(&self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_string(event)?;
        line.push('\n');
        let mut port = self.0.lock().map_err(|_| anyhow::anyhow!("a writer of events panicked"))?;
        port.write_all(line.as_bytes()).context("the serial port takes nothing")
    }
}
