//! `undermesh uninstall`: away with everything, in an order in which nothing is left that would refuse traffic. The
//! webhook goes first, then the agents, then what they have left on nodes, then the controllers.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use undermesh_control::{ApiServer, ObjectPath};

use super::{AGENT, CONTROLLER, ClusterArgs, manifest::Wanted, rollout, run};

const MODE: &str = "istio.io/dataplane-mode=ambient";
const CLEANUP: &str = "undermesh-cleanup";
const AGENTS: &str = "app.kubernetes.io/name=undermesh,app.kubernetes.io/component=agent";
const INTERVAL: Duration = Duration::from_millis(500);
/// Removed in their place, or only with `--purge`.
const APART: [&str; 4] =
    ["customresourcedefinitions", "namespaces", "daemonsets", "validatingwebhookconfigurations"];
/// What controllers make, and what is the authority of all identities.
const KEPT: [(&str, &str, &str); 3] = [
    ("", "secrets", "undermesh-ca"),
    ("", "configmaps", "undermesh-ca-roots"),
    ("coordination.k8s.io", "leases", CONTROLLER),
];

/// Options of `uninstall`.
#[derive(Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Go on although pods are in the mesh, or objects of the mesh's kinds would be removed.
    #[arg(long)]
    force: bool,
    /// Leave programs and maps on the nodes: what was in the mesh stays refused where it would be in clear.
    #[arg(long)]
    keep_programs: bool,
    /// Also remove the definitions of the mesh's kinds with all objects of them, the authority, and the namespace.
    #[arg(long)]
    purge: bool,
    /// How long to wait for agents to end, and again for nodes to be cleaned.
    #[arg(long, value_name = "DURATION", default_value = "12m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl UninstallArgs {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        run(async {
            let api = self.cluster.api().await?;
            let objects = Wanted::new(&self.cluster.namespace)?.objects()?;
            let paths: Vec<ObjectPath> = objects.iter().filter_map(ObjectPath::of).collect();
            if !self.force {
                self.nobody_is_in_the_mesh(&api).await?;
                self.nothing_is_lost(&api, &paths).await?;
            }
            for path in paths.iter().filter(|it| it.resource == "validatingwebhookconfigurations") {
                remove(&api, path).await?;
            }
            self.agents(&api).await?;
            for path in paths.iter().rev().filter(|it| !APART.contains(&it.resource.as_str())) {
                remove(&api, path).await?;
            }
            if self.purge {
                for (group, resource, name) in KEPT {
                    remove(&api, &self.cluster.object(group, resource, name)).await?;
                }
                let last = ["customresourcedefinitions", "namespaces"];
                for path in paths.iter().rev().filter(|it| last.contains(&it.resource.as_str())) {
                    remove(&api, path).await?;
                }
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    /// Pods that are labelled would be refused, or talk in clear.
    async fn nobody_is_in_the_mesh(&self, api: &ApiServer) -> Result<()> {
        let mut found = Vec::new();
        for (path, what) in [("/api/v1/namespaces", "namespace"), ("/api/v1/pods", "pod")] {
            for object in api.objects(path, MODE).await? {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                let slash = if text("namespace").is_empty() { "" } else { "/" };
                found.push(format!("{what} {}{slash}{}", text("namespace"), text("name")));
            }
        }
        let more = if found.len() > 5 { ", ..." } else { "" };
        ensure!(
            found.is_empty(),
            "still in the mesh: {}{more}; nothing was changed. Take them out with `kubectl label namespace --all \
             istio.io/dataplane-mode-`, or pass --force to have them talk in clear, or be refused by STRICT ones",
            found.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    /// Objects go with the definition of their kind.
    async fn nothing_is_lost(&self, api: &ApiServer, paths: &[ObjectPath]) -> Result<()> {
        let definitions = paths.iter().filter(|it| it.resource == "customresourcedefinitions");
        for path in definitions.filter(|_| self.purge) {
            let Some(definition) = api.object(path).await? else { continue };
            let spec = &definition["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
            let version = text(&spec["versions"][0]["name"]);
            let there = api.objects(&format!("/apis/{group}/{version}/{plural}"), "").await?;
            ensure!(
                there.is_empty(),
                "{} {plural} would be removed with their definition; nothing was changed. Save them, or pass --force",
                there.len()
            );
        }
        Ok(())
    }

    /// Ends agents, and removes what they have left on their nodes.
    async fn agents(&self, api: &ApiServer) -> Result<()> {
        let agents = self.cluster.object("apps", "daemonsets", AGENT);
        let cleanup = self.cluster.object("apps", "daemonsets", CLEANUP);
        let there = api.object(&agents).await?;
        remove(api, &agents).await?;
        self.agents_have_ended(api).await?;
        if self.keep_programs {
            eprintln!("programs stay on the nodes; `undermesh cleanup` there removes them");
            return Ok(());
        }
        match there {
            Some(there) => {
                let set = cleaning(&there);
                if let Err(error) = api.apply(&set, true).await {
                    bail!("nodes cannot be cleaned: {error}; `undermesh cleanup` on each does it");
                }
            }
            // A former attempt has come as far as this.
            None if api.object(&cleanup).await?.is_none() => return Ok(()),
            None => {}
        }
        let awaited = [cleanup.clone()];
        if let Err(error) = rollout::wait(api, &self.cluster, &awaited, self.timeout).await {
            bail!(
                "not all nodes are clean: {error}. Run this again to wait longer, or with --keep-programs, and \
                 `undermesh cleanup` on those nodes"
            );
        }
        remove(api, &cleanup).await
    }

    async fn agents_have_ended(&self, api: &ApiServer) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods", self.cluster.namespace);
        let deadline = Instant::now() + self.timeout;
        let mut said = usize::MAX;
        loop {
            let left = api.objects(&path, AGENTS).await?.len();
            if left == 0 {
                return Ok(());
            }
            if left != said {
                eprintln!("{left} agents let their connections end");
                said = left;
            }
            ensure!(
                Instant::now() < deadline,
                "{left} agents have not ended in time; run this again"
            );
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

async fn remove(api: &ApiServer, path: &ObjectPath) -> Result<()> {
    if api.remove(path).await? {
        eprintln!("{} {}: removed", path.resource, path.name);
    }
    Ok(())
}

/// A DaemonSet that cleans every node on which there were agents, with the rights that they had.
fn cleaning(agents: &Value) -> Value {
    let labels =
        json!({"app.kubernetes.io/name": "undermesh", "app.kubernetes.io/component": "cleanup"});
    let mut pod = agents["spec"]["template"]["spec"].clone();
    let agent = &agents["spec"]["template"]["spec"]["containers"][0];
    let bpf = |list: &Value| {
        let all = list.as_array().cloned().unwrap_or_default();
        Value::from(all.into_iter().filter(|it| it["name"] == "bpf").collect::<Vec<_>>())
    };
    let container = |name: &str, args: &[&str]| {
        json!({
            "name": name, "image": agent["image"], "imagePullPolicy": agent["imagePullPolicy"],
            "args": args, "securityContext": agent["securityContext"],
            "volumeMounts": bpf(&agent["volumeMounts"]),
        })
    };
    // A DaemonSet's pods must not end: what cleans comes before what waits, and a pod that is ready is clean.
    pod["initContainers"] = json!([container("cleanup", &["cleanup"])]);
    pod["containers"] = json!([container("done", &["cleanup", "--stay"])]);
    pod["volumes"] = bpf(&pod["volumes"]);
    pod["terminationGracePeriodSeconds"] = json!(5);
    pod["automountServiceAccountToken"] = json!(false);
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": CLEANUP, "namespace": agents["metadata"]["namespace"], "labels": labels,
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_cleaned_with_the_rights_of_agents_and_without_their_secrets() {
        let objects = Wanted::new("undermesh-system").unwrap().objects().unwrap();
        let agents = objects.iter().find(|it| it["kind"] == "DaemonSet").unwrap();
        let set = cleaning(agents);
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!((&pod["hostNetwork"], &pod["hostPID"]), (&json!(true), &json!(true)));
        let first = &pod["initContainers"][0];
        assert_eq!(
            (&first["args"], &pod["containers"][0]["args"][1]),
            (&json!(["cleanup"]), &json!("--stay"))
        );
        let agent = &agents["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(first["securityContext"], agent["securityContext"]);
        assert_eq!(first["volumeMounts"], json!([{"name": "bpf", "mountPath": "/sys/fs/bpf"}]));
        assert_eq!(pod["volumes"].as_array().unwrap().len(), 1);
        // Not one of the agents, which are waited for.
        assert_eq!(
            set["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"],
            "cleanup"
        );
    }
}
