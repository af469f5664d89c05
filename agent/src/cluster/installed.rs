//! Whether everything that was installed is there and does its work.

use serde_json::{Value, json};
use undermesh_control::{ApiError, ApiServer, Lease, ObjectPath};

use super::{
    AGENT, CONTROLLER, ClusterArgs,
    findings::{Finding, Findings},
    nodes, rollout,
};

const ROOTS: &str = "undermesh-ca-roots";
/// Where an object is tried that only the webhook finds something wrong with; it judges none in its own namespace.
const TRIED_IN: &str = "default";

/// Looks at everything; one thing that cannot be looked at hides no other.
pub(super) async fn check(api: &ApiServer, args: &ClusterArgs) -> Findings {
    let mut findings = Findings::default();
    findings.checked("controller", set(api, args, ("deployments", CONTROLLER), "controller").await);
    findings.checked("controller", lease(api, args).await);
    findings.checked("webhook", webhook(api, args).await);
    findings.checked("agents", set(api, args, ("daemonsets", AGENT), "agents").await);
    findings.checked("agents", agents(api, args).await);
    findings
}

async fn set(
    api: &ApiServer,
    args: &ClusterArgs,
    (resource, name): (&str, &str),
    about: &'static str,
) -> Result<Vec<Finding>, ApiError> {
    let remedy = "`undermesh install` puts it there";
    let Some(there) = api.object(&args.object("apps", resource, name)).await? else {
        return Ok(vec![Finding::error(about, format!("{name} is not there"), remedy)]);
    };
    let image = there["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    Ok(vec![match rollout::lacks(&there) {
        None => Finding::ok(about, format!("all of {name} run {}", image.unwrap_or_default())),
        Some(lack) => Finding::error(
            about,
            format!("{name}: {lack}"),
            &format!("kubectl describe {resource} {name} -n {}", args.namespace),
        ),
    }])
}

/// One replica writes.
async fn lease(api: &ApiServer, args: &ClusterArgs) -> Result<Vec<Finding>, ApiError> {
    let lease = Lease { namespace: args.namespace.clone(), name: CONTROLLER.to_owned() };
    let holder = api.lease(&lease).await?.holder;
    Ok(vec![if holder.is_empty() {
        let remedy = "see the log of the controllers";
        Finding::error("controller", "no replica leads: nothing is written", remedy)
    } else {
        Finding::ok("controller", format!("{holder} leads"))
    }])
}

async fn webhook(api: &ApiServer, args: &ClusterArgs) -> Result<Vec<Finding>, ApiError> {
    let resource = "validatingwebhookconfigurations";
    let path = args.object("admissionregistration.k8s.io", resource, CONTROLLER);
    let path = ObjectPath { namespace: String::new(), ..path };
    let Some(there) = api.object(&path).await? else {
        return Ok(vec![Finding::ok(
            "webhook",
            "there is none: objects are judged by agents alone",
        )]);
    };
    let bundle = there["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    if bundle.is_empty() {
        let remedy = "the leading controller writes them; see its log";
        return Ok(vec![Finding::warning("webhook", "it has no roots: nothing is judged", remedy)]);
    }
    let object = json!({
        "apiVersion": "undermesh.io/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "undermesh-check", "namespace": TRIED_IN},
        // A year passes until all of it could be had again: no schema calculates that.
        "spec": {"rules": [{"requests": {"count": 1, "per": "24h", "burst": 400}}]},
    });
    Ok(vec![match api.try_apply(&object).await {
        Err(ApiError::Refused { message, .. }) if message.contains("a year") => {
            Finding::ok("webhook", "it refuses what cannot be meant")
        }
        Err(error) => {
            let found = format!("it could not be tried: {error}");
            Finding::warning("webhook", found, "see that you may make RateLimitPolicies")
        }
        Ok(()) => Finding::warning(
            "webhook",
            "it does not answer: what cannot be meant is taken, and found by agents",
            "see that the API server reaches the controllers at port 15017",
        ),
    }])
}

/// What agents say themselves, and who says nothing.
async fn agents(api: &ApiServer, args: &ClusterArgs) -> Result<Vec<Finding>, ApiError> {
    let roots: Option<Value> = api.object(&args.object("", "configmaps", ROOTS)).await?;
    let mut findings = Vec::new();
    if roots.is_none() {
        let found = format!("there is no ConfigMap {ROOTS}: agents cannot verify the controller");
        findings.push(Finding::error(
            "agents",
            found,
            "the leading controller makes it; see its log",
        ));
    }
    let nodes = nodes::ask(api, args).await?;
    let good = nodes.iter().filter(|node| node.is_good()).count();
    for node in nodes.iter().filter(|node| !node.is_good()) {
        let found = format!("{}: {}", node.name(), node.problems().join("; "));
        let remedy = format!("see `undermesh doctor` on {}", node.name());
        findings.push(Finding::error("agents", found, &remedy));
    }
    for node in nodes.iter().filter(|node| node.is_good() && !node.problems().is_empty()) {
        let found = format!("{}: {}", node.name(), node.problems().join("; "));
        findings.push(Finding::warning("agents", found, "`undermesh status` there says more"));
    }
    let pods: u64 = nodes.iter().map(nodes::Node::enrolled).sum();
    findings.push(Finding::ok(
        "agents",
        format!("{good} of {} nodes are well, with {pods} pods in the mesh", nodes.len()),
    ));
    Ok(findings)
}
