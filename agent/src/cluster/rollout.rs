//! Waits until what was put into a cluster runs there.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;
use undermesh_control::{ApiServer, ObjectPath};

use super::ClusterArgs;

const INTERVAL: Duration = Duration::from_millis(500);
/// Pods of which is said why they do not run.
const EXPLAINED: usize = 5;
pub(super) const PODS: &str = "app.kubernetes.io/name=undermesh";

/// What a DaemonSet or a Deployment still lacks; `None` where it is as it is to be.
pub(super) fn lacks(object: &Value) -> Option<String> {
    let status = |field: &str| object["status"][field].as_u64().unwrap_or_default();
    if status("observedGeneration") < object["metadata"]["generation"].as_u64().unwrap_or_default()
    {
        return Some("not looked at yet".to_owned());
    }
    let (all, updated, available, there) = if object["kind"] == "DaemonSet" {
        let all = status("desiredNumberScheduled");
        (all, status("updatedNumberScheduled"), status("numberAvailable"), all)
    } else {
        let all = object["spec"]["replicas"].as_u64().unwrap_or(1);
        (all, status("updatedReplicas"), status("availableReplicas"), status("replicas"))
    };
    if updated < all {
        Some(format!("{updated} of {all} are of this version"))
    } else if available < all {
        Some(format!("{available} of {all} are ready"))
    } else {
        (there > all).then(|| format!("{} of a former version have not ended", there - all))
    }
}

/// Waits for objects, saying what it waits for.
///
/// # Errors
/// When they are not there in time: with what their pods say.
pub(super) async fn wait(
    api: &ApiServer,
    args: &ClusterArgs,
    objects: &[ObjectPath],
    timeout: Duration,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for path in objects {
        let mut said = String::new();
        loop {
            let now = match api.object(path).await {
                Ok(Some(object)) => match lacks(&object) {
                    None => break,
                    Some(lack) => lack,
                },
                Ok(None) => "not there".to_owned(),
                // An API server that restarts is waited for as well.
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                let why = stuck(api, args).await;
                bail!("{} {}: {now} after {timeout:?}{why}", path.resource, path.name);
            }
            if now != said {
                eprintln!("{} {}: {now}", path.resource, path.name);
                said = now;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        eprintln!("{} {}: ready", path.resource, path.name);
    }
    Ok(())
}

/// Why pods of the mesh do not run, in their own words.
async fn stuck(api: &ApiServer, args: &ClusterArgs) -> String {
    let path = format!("/api/v1/namespaces/{}/pods", args.namespace);
    let pods = api.objects(&path, PODS).await.unwrap_or_default();
    let mut text = String::new();
    let reasons =
        pods.iter().filter_map(|pod| Some((pod["metadata"]["name"].as_str()?, why(pod)?)));
    for (name, why) in reasons.take(EXPLAINED) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  pod {name}: {why}");
    }
    text
}

/// Why a pod is not ready, `None` where it is.
fn why(pod: &Value) -> Option<String> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut bad = conditions.filter(|it| it["status"] == "False");
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let waiting = statuses.map(|it| &it["state"]["waiting"]).find(|it| it.is_object());
    let said = waiting.or_else(|| bad.next())?;
    let (reason, message) = (text(said, "reason"), text(said, "message"));
    Some(format!("{reason} {message}").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_over_when_all_are_new_and_ready_and_no_old_one_is_left() {
        let set = |observed: u64, updated: u64, available: u64| {
            lacks(&json!({
                "kind": "DaemonSet", "metadata": {"generation": 2},
                "status": {"observedGeneration": observed, "desiredNumberScheduled": 3,
                    "updatedNumberScheduled": updated, "numberAvailable": available},
            }))
        };
        assert_eq!(set(1, 3, 3).as_deref(), Some("not looked at yet"));
        assert_eq!(set(2, 2, 3).as_deref(), Some("2 of 3 are of this version"));
        assert_eq!(set(2, 3, 1).as_deref(), Some("1 of 3 are ready"));
        assert_eq!(set(2, 3, 3), None);
        let deployment = |there: u64| {
            lacks(&json!({
                "kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 3},
                "status": {"observedGeneration": 1, "replicas": there, "updatedReplicas": 3,
                    "availableReplicas": 3},
            }))
        };
        assert_eq!(deployment(4).as_deref(), Some("1 of a former version have not ended"));
        assert_eq!(deployment(3), None);
    }

    #[test]
    fn a_pod_says_why_it_is_not_ready() {
        let waiting = json!({"status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
        ]}});
        assert_eq!(why(&waiting).as_deref(), Some("ImagePullBackOff no such image"));
        let unscheduled = json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
        ]}});
        assert_eq!(why(&unscheduled).as_deref(), Some("Unschedulable 0/3 nodes"));
        assert_eq!(why(&json!({"status": {"conditions": [{"status": "True"}]}})), None);
    }
}
