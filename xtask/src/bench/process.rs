//! Servers, relays and sidecars: what runs inside pods until whoever has started it goes.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use undermesh_tests::{Rig, wait_for};

/// They start in no time; a busy machine takes longer.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// Processes that are killed when this is dropped. A field before the rig, which ends them as well, in its
/// own way.
#[derive(Default)]
pub(super) struct Processes(Vec<Child>);

impl Processes {
    /// Starts another one; its process id.
    pub(super) fn start(&mut self, mut command: Command) -> Result<u32> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let id = child.id();
        self.0.push(child);
        Ok(id)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // Dead already is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Waits until something listens at an address, as seen from inside a pod.
pub(super) fn listening(rig: &Rig, pod: &str, at: SocketAddr) -> Result<()> {
    let place = rig.place(pod)?;
    wait_for(&format!("a server at {at} of pod {pod}"), WITHIN, || {
        place.netns.run(|| TcpStream::connect(at))??;
        Ok(Some(()))
    })
}
