//! Who is asked through an API server, in place of the agent of this node.

use anyhow::{Result, ensure};
use clap::Args;
use undermesh_control::ApiServer;

use super::{AdminArgs, ClusterArgs, Place, agents, controllers};

/// Port of the controllers' dashboard where nothing else is said.
pub(crate) const CONTROLLER_PORT: u16 = 15018;

/// Options of commands that are about one agent, or about the controllers.
#[derive(Args, Clone, Debug)]
pub(crate) struct RemoteArgs {
    /// Of the controllers of a cluster, through its API server.
    #[arg(long, conflicts_with = "node")]
    controller: bool,
    /// Port of the controllers' `dashboardAddress`, at loopback of their pods [default: what those say, or 15018].
    #[arg(long, value_name = "PORT")]
    controller_port: Option<u16>,
    /// Of the agent of this node of a cluster, through its API server.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

impl RemoteArgs {
    /// Whether somebody else is meant than the agent of this node.
    pub(crate) fn is_wanted(&self) -> bool {
        self.controller || self.node.is_some()
    }

    /// The port of a pod's pages.
    pub(crate) fn port(&self, place: &Place, admin: AdminArgs) -> u16 {
        if self.controller {
            self.controller_port.or(place.ports.admin).unwrap_or(CONTROLLER_PORT)
        } else {
            admin.port(place.ports)
        }
    }

    /// All that are meant, those first that are ready; one of them is.
    ///
    /// # Errors
    /// Where none is.
    pub(crate) async fn places(&self, api: &ApiServer) -> Result<Vec<Place>> {
        let namespace = self.cluster.namespace();
        let found = match &self.node {
            Some(node) => {
                let mut found = agents(api, namespace).await?;
                found.retain(|place| place.node == *node);
                ensure!(!found.is_empty(), "no agent runs on node {node}");
                found
            }
            None => {
                let found = controllers(api, namespace).await?;
                ensure!(!found.is_empty(), "no controller runs in namespace {namespace}");
                found
            }
        };
        ensure!(
            found.iter().any(|place| place.is_ready),
            "{} is not ready; `undermesh check` says what is wrong",
            found.iter().map(|it| format!("pod {}", it.pod)).collect::<Vec<_>>().join(", ")
        );
        Ok(found)
    }
}
