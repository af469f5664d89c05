//! What of a cluster would be in the way of the mesh, before it is installed.

use serde_json::Value;
use undermesh_control::{ApiError, ApiServer, ObjectPath};

use super::{
    ClusterArgs,
    findings::{Finding, Findings},
    neighbours,
};

/// What the manifest needs (`appArmorProfile`; docs/guide/kubernetes.md).
const SERVER: (u32, u32) = (1, 30);
/// What the programs need (docs/reference/kernels.md).
const KERNEL: (u32, u32) = (5, 10);
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// Looks at everything; one thing that cannot be looked at hides no other, unless nobody answers at all.
pub(super) async fn check(api: &ApiServer, args: &ClusterArgs, objects: &[Value]) -> Findings {
    let mut findings = Findings::default();
    let server = server(api).await;
    if let Err(ApiError::Lost(why)) = &server {
        // Every other question would wait as long, to be told the same.
        let found = format!("{} does not answer: {why}", api.server());
        let remedy =
            "see that it runs, and that the kubeconfig names it as it is reached from here";
        findings.add(Finding::error("api-server", found, remedy));
        return findings;
    }
    findings.checked("api-server", server);
    findings.checked("rights", rights(api, objects).await);
    findings.checked("namespace", namespace(api, args).await);
    findings.checked("nodes", nodes(api).await);
    findings.checked("kinds", kinds(api).await);
    findings.checked("neighbours", neighbours::check(api).await);
    findings
}

async fn server(api: &ApiServer) -> Result<Vec<Finding>, ApiError> {
    let (major, minor) = api.version().await?;
    let found = format!("Kubernetes {major}.{minor} at {}", api.server());
    Ok(vec![if (major, minor) < SERVER {
        Finding::error("api-server", found, "Kubernetes 1.30 or later is needed")
    } else {
        Finding::ok("api-server", found)
    }])
}

/// To make and to change every object of the manifest.
async fn rights(api: &ApiServer, objects: &[Value]) -> Result<Vec<Finding>, ApiError> {
    let mut missing = Vec::new();
    let paths: Vec<ObjectPath> = objects.iter().filter_map(ObjectPath::of).collect();
    for path in &paths {
        for verb in ["create", "patch"] {
            if !api.may(verb, path).await? {
                let group = if path.group.is_empty() { "" } else { "." };
                missing.push(format!("{verb} {}{group}{}", path.resource, path.group));
            }
        }
    }
    missing.dedup();
    Ok(vec![if missing.is_empty() {
        Finding::ok("rights", format!("to make and change all {} objects", paths.len()))
    } else {
        let found = format!("you may not {}", missing.join(", "));
        Finding::error("rights", found, "use an account with the role cluster-admin")
    }])
}

async fn namespace(api: &ApiServer, args: &ClusterArgs) -> Result<Vec<Finding>, ApiError> {
    let name = &args.namespace;
    let path = ObjectPath { namespace: String::new(), ..args.object("", "namespaces", name) };
    let Some(there) = api.object(&path).await? else {
        return Ok(vec![Finding::ok("namespace", format!("{name} will be made"))]);
    };
    let level = there["metadata"]["labels"][ENFORCE].as_str();
    Ok(vec![match level {
        None | Some("privileged") => Finding::ok("namespace", format!("{name} is there")),
        Some(level) => Finding::error(
            "namespace",
            format!(
                "{name} admits pods of level {level} only, and agents need the host's network and processes"
            ),
            &format!("kubectl label --overwrite namespace {name} {ENFORCE}=privileged"),
        ),
    }])
}

async fn nodes(api: &ApiServer) -> Result<Vec<Finding>, ApiError> {
    let nodes = api.objects("/api/v1/nodes", "").await?;
    let (mut findings, mut good) = (Vec::new(), 0);
    for node in &nodes {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let info = &node["status"]["nodeInfo"];
        let said = |field: &str| info[field].as_str().unwrap_or_default();
        if said("operatingSystem") == "windows" {
            let found = format!("{name} runs Windows");
            findings.push(Finding::warning("nodes", found, "its pods are outside the mesh"));
            continue;
        }
        let before = findings.len();
        findings.extend(node_findings(name, &said));
        findings.extend(not_ready(name, node));
        good += usize::from(findings.len() == before);
    }
    if nodes.is_empty() {
        findings.push(Finding::error("nodes", "there are none", "add nodes, then check again"));
    } else {
        findings.insert(0, Finding::ok("nodes", format!("{good} of {} are fit", nodes.len())));
    }
    Ok(findings)
}

fn node_findings<'a>(name: &str, said: &dyn Fn(&'static str) -> &'a str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut error = |found: String, remedy: &str| {
        findings.push(Finding::error("nodes", format!("{name} {found}"), remedy));
    };
    let kernel = said("kernelVersion");
    if kernel_version(kernel).is_none_or(|version| version < KERNEL) {
        error(format!("has kernel {kernel:?}"), "Linux 5.10 or later is needed");
    }
    let architecture = said("architecture");
    if architecture != "amd64" {
        error(
            format!("is {architecture:?}"),
            "agents are for amd64; leave it out by `nodeSelector` of the chart",
        );
    }
    let runtime = said("containerRuntimeVersion");
    if !["containerd://", "cri-o://"].iter().any(|known| runtime.starts_with(known)) {
        let found = format!("{name} has the runtime {runtime:?}, with which nobody has tried it");
        let remedy = "see in `undermesh status` of that node that its pods are found";
        findings.push(Finding::warning("nodes", found, remedy));
    }
    findings
}

/// An agent is to run there as well, and is waited for.
fn not_ready(name: &str, node: &Value) -> Option<Finding> {
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|it| it["type"] == "Ready")?;
    if ready["status"] == "True" {
        return None;
    }
    let mut words = ["message", "reason"].iter().filter_map(|field| ready[*field].as_str());
    let why = words.find(|text| !text.is_empty()).unwrap_or("it does not say why");
    let remedy = "an agent cannot start there until it is: `install` would wait for it";
    Some(Finding::warning("nodes", format!("{name} is not ready: {why}"), remedy))
}

/// `5.10.0-28-cloud-amd64`.
fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Which of the kinds that others define are there; agents do without.
async fn kinds(api: &ApiServer) -> Result<Vec<Finding>, ApiError> {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let there = api.objects(path, "").await?;
    let groups = [
        (
            "the Gateway API",
            "gateway.networking.k8s.io",
            "routes of the Gateway API cannot be written",
        ),
        (
            "Istio's traffic objects",
            "networking.istio.io",
            "VirtualServices and DestinationRules cannot be written",
        ),
        ("Istio's policies", "security.istio.io", "AuthorizationPolicies cannot be written"),
    ];
    Ok(groups
        .into_iter()
        .map(|(what, group, without)| {
            let count = there.iter().filter(|it| it["spec"]["group"] == group).count();
            let found = match count {
                0 => format!("{what}: not there; {without}"),
                count => format!("{what}: {count} kinds"),
            };
            Finding::ok("kinds", found)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(kernel_version("5.10.0-28-cloud-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("6.1"), Some((6, 1)));
        assert!(kernel_version("5.4.0-generic") < Some(KERNEL));
        for text in ["", "linux", "5"] {
            assert_eq!(kernel_version(text), None, "{text:?}");
        }
    }
}
