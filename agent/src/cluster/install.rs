//! `undermesh install` and `undermesh upgrade`: the manifest of this binary, by server-side apply.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use undermesh_control::{ApiServer, ObjectPath};

use super::{
    AGENT, CONTROLLER, ClusterArgs,
    findings::{Findings, Level},
    installed,
    manifest::{self, Wanted},
    preflight, rollout, run,
};

/// How long after everything is ready the first findings may be too early, and when it is looked again.
const SETTLING: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(1);
const HELM: &str = "meta.helm.sh/release-name";

#[derive(Args)]
struct Common {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The image of agents and controllers, as a registry has it.
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Name of the cluster in metrics and logs, and towards the authority.
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// How long to wait until everything runs.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Go on although checks have found errors, and take fields over that others have set.
    #[arg(long)]
    force: bool,
}

/// Options of `install`.
#[derive(Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    common: Common,
}

/// Options of `upgrade`.
#[derive(Args)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    common: Common,
}

impl InstallArgs {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        run(async {
            let api = self.common.cluster.api().await?;
            if let Some(there) = self.common.there(&api).await? {
                bail!("it is installed already, {}; `undermesh upgrade` changes it", image(&there));
            }
            self.common.put(&api, None).await
        })
    }
}

impl UpgradeArgs {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        run(async {
            let api = self.common.cluster.api().await?;
            let there = self.common.there(&api).await?;
            let there = there.context("it is not installed; `undermesh install` does that")?;
            eprintln!("from {} to {}", image(&there), self.common.image);
            let settings = self.common.cluster.object("", "configmaps", AGENT);
            let settings = api.object(&settings).await?;
            self.common.put(&api, settings.as_ref().and_then(manifest::cluster_of)).await
        })
    }
}

impl Common {
    /// The agents' DaemonSet, unless it is another tool's.
    async fn there(&self, api: &ApiServer) -> Result<Option<Value>> {
        let there = api.object(&self.cluster.object("apps", "daemonsets", AGENT)).await?;
        let release = there.as_ref().and_then(|it| it["metadata"]["annotations"][HELM].as_str());
        if let Some(release) = release {
            bail!("Helm has installed it, as release {release:?}; let Helm change it");
        }
        Ok(there)
    }

    async fn put(&self, api: &ApiServer, cluster: Option<String>) -> Result<ExitCode> {
        let mut wanted = Wanted::new(&self.cluster.namespace)?;
        wanted.image = Some(self.image.clone());
        wanted.cluster = self.cluster_name.clone().or(cluster);
        let objects = wanted.objects()?;
        let findings = preflight::check(api, &self.cluster, &objects).await;
        print!("{findings}");
        if findings.level() == Level::Error && !self.force {
            bail!("nothing was changed; --force goes on in spite of these errors");
        }
        for object in &objects {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let shown = format!("{} {}", word(kind), word(name));
            api.apply(object, self.force).await.map_err(|error| refused(&shown, &error))?;
            eprintln!("{shown}: applied");
        }
        let awaited: [ObjectPath; 2] = [
            self.cluster.object("apps", "deployments", CONTROLLER),
            self.cluster.object("apps", "daemonsets", AGENT),
        ];
        rollout::wait(api, &self.cluster, &awaited, self.timeout).await?;
        let findings = self.settled(api).await;
        print!("{findings}");
        Ok(findings.exit_code())
    }

    /// Who has just become ready has not led yet, nor written roots: what is wrong at first is looked at again.
    async fn settled(&self, api: &ApiServer) -> Findings {
        let deadline = Instant::now() + SETTLING;
        loop {
            let findings = installed::check(api, &self.cluster).await;
            if findings.level() == Level::Ok || Instant::now() > deadline {
                return findings;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn image(set: &Value) -> &str {
    word(&set["spec"]["template"]["spec"]["containers"][0]["image"])
}

fn refused(shown: &str, error: &undermesh_control::ApiError) -> anyhow::Error {
    if error.is_conflict() {
        return anyhow::anyhow!("{shown}: {error}; --force takes the fields over");
    }
    anyhow::anyhow!(
        "{shown}: {error}; what was applied before stays, and applying again is harmless"
    )
}
