//! An API server with pods of the mesh, and commands that know where it is.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use anyhow::Result;
use undermesh_tests::{
    Plane,
    apiserver::{Door, MeshPods},
    locate,
};

use super::{ADMIN, Agent};

/// An API server with pods of the mesh.
pub(super) struct Cluster {
    pub(super) plane: Plane,
    pub(super) pods: Arc<MeshPods>,
    pub(super) kubeconfig: PathBuf,
}

impl Cluster {
    pub(super) fn new() -> Result<Self> {
        let plane = Plane::new()?;
        let pods = MeshPods::of(&plane.api)?;
        let kubeconfig = plane.api.kubeconfig("admin", "127.0.0.1", plane.api.token())?;
        Ok(Self { plane, pods, kubeconfig })
    }

    pub(super) fn agent(&self, node: &str, agent: &Agent) -> Result<()> {
        let pod = format!("agent-{node}");
        self.pods.add(&self.plane.api, "agent", &pod, node)?;
        self.pods.open(&pod, ADMIN, Door::here(agent.address));
        Ok(())
    }

    pub(super) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(locate("undermesh")?);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        Ok(command)
    }

    pub(super) fn run(&self, args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let Output { status, stdout, stderr } = self.command(args)?.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((status.code(), text(&stdout), text(&stderr)))
    }

    pub(super) fn forwards(&self) -> usize {
        self.plane.api.calls().iter().filter(|call| call.subresource == "portforward").count()
    }
}
