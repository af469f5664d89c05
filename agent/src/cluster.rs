//! Commands about a whole cluster, which run wherever its API server can be reached: `check`, `install`, `upgrade`,
//! `uninstall`, and `status --all-nodes`; and for other commands the way to agents and controllers.
//!
//! ```text
//! manifest    the objects that are installed, which are in the binary
//! findings    what checks say
//! preflight   before: what of the cluster would be in the way; `neighbours`, of other meshes and plugins
//! installed   after: whether everything is there and does its work
//! rollout     waits for it, and says what it waits for
//! install     puts it there, or a new version of it
//! uninstall   takes it away, and what it has left on nodes
//! nodes       what the agents of all nodes say of themselves
//! ports       where its pods have their pages, and the option that says another place
//! reach       what agents and controllers serve at loopback alone; `remote`, who of them is meant
//! ```

mod findings;
mod install;
mod installed;
mod manifest;
mod neighbours;
mod nodes;
mod ports;
mod preflight;
mod reach;
mod remote;
mod rollout;
mod uninstall;

use std::{
    env,
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use undermesh_control::{ApiServer, ObjectPath};

pub(crate) use install::{InstallArgs, UpgradeArgs};
pub(crate) use nodes::{AGENTS, Metrics, Node, each, each_as_it_comes, names as node_names};
pub(crate) use ports::{AdminArgs, Ports};
pub(crate) use reach::{Place, Reach, Refused, agents, controllers};
pub(crate) use remote::{CONTROLLER_PORT, RemoteArgs};
pub(crate) use uninstall::UninstallArgs;

/// Where it is installed if nothing else is said; as the manifest has it.
pub(crate) const NAMESPACE: &str = "undermesh-system";
const AGENT: &str = "undermesh-agent";
const CONTROLLER: &str = "undermesh-controller";
/// Labels of its pods.
const CONTROLLERS: &str = "app.kubernetes.io/name=undermesh,app.kubernetes.io/component=controller";

/// Which cluster, and where in it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArgs {
    /// How to reach the API server; by default `~/.kube/config`, or the account of the pod that this runs in.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the mesh's own pods.
    #[arg(short, long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
}

/// The same for commands that are about namespaces of others, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct MeshArgs {
    /// How to reach the API server, for the nodes of a cluster; by default `~/.kube/config`, or the account of the pod that
    /// this runs in.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the mesh's own pods.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    mesh_namespace: String,
}

impl MeshArgs {
    pub(crate) async fn api(&self) -> Result<ApiServer> {
        api(self.kubeconfig.as_deref()).await
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.mesh_namespace
    }
}

impl ClusterArgs {
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) async fn api(&self) -> Result<ApiServer> {
        api(self.kubeconfig.as_deref()).await
    }

    fn object(&self, group: &str, resource: &str, name: &str) -> ObjectPath {
        ObjectPath {
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        }
    }
}

/// By a kubeconfig that was named, the one at home, or the account of the pod that this runs in.
pub(crate) async fn api(kubeconfig: Option<&Path>) -> Result<ApiServer> {
    let home = || {
        let path = PathBuf::from(env::var_os("HOME")?).join(".kube/config");
        path.is_file().then_some(path)
    };
    let kubeconfig = kubeconfig.map(Path::to_owned).or_else(home);
    ApiServer::new(kubeconfig.as_deref()).await.map_err(|error| anyhow!(error))
}

/// Options of `check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Look at the cluster before the mesh is installed.
    #[arg(long)]
    pre: bool,
}

/// Exit code 0: nothing is wrong; 1: there are warnings; 2: there are errors.
pub(crate) fn check(args: &CheckArgs) -> Result<ExitCode> {
    run(async {
        let api = args.cluster.api().await?;
        let findings = if args.pre {
            let wanted = manifest::Wanted::new(&args.cluster.namespace)?;
            preflight::check(&api, &args.cluster, &wanted.objects()?).await
        } else {
            installed::check(&api, &args.cluster).await
        };
        print!("{findings}");
        Ok(findings.exit_code())
    })
}

/// Exit code 0: all agents are ready; 1: one is not, or says nothing.
pub(crate) fn status(args: &ClusterArgs, json: bool) -> Result<ExitCode> {
    run(async {
        let api = args.api().await?;
        let nodes = nodes::ask(&api, args).await?;
        if json {
            println!("{}", serde_json::to_string(&nodes)?);
        } else {
            print!("{}", nodes::Table(&nodes));
        }
        let good = !nodes.is_empty() && nodes.iter().all(Node::is_good);
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

pub(crate) fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(work)
}
