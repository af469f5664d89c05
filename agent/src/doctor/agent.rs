//! What the running agent says of itself.

use super::{catalogue::Kind, finding::Finding, situation::Situation};
use crate::status::{PodState, Status};

/// Occupancy from which a map is worth a warning, in percent.
const FULL: u64 = 80;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    match situation.status() {
        Ok(status) => of_status(status, situation),
        Err(_) if situation.preflight => Vec::new(),
        Err(error) => {
            let object = situation.outline.admin_address.to_string();
            vec![Finding::new(Kind::AgentSilent, object, error)]
        }
    }
}

fn of_status(status: &Status, situation: &Situation) -> Vec<Finding> {
    let node = status.agent.node.as_str();
    let not_ready = status.agent.not_ready.iter();
    let mut found: Vec<Finding> =
        not_ready.map(|reason| Finding::new(Kind::AgentNotReady, node, reason)).collect();
    found.extend(status.programs.iter().filter(|program| !program.attached).map(|program| {
        let found = format!("it is attached to {}", program.attached_to);
        Finding::new(Kind::ProgramDetached, format!("{} ({})", program.name, program.hook), found)
    }));
    found.extend(status.maps.iter().filter(|map| map.percent >= FULL).map(|map| {
        let found = format!("{} of {} entries ({}%)", map.entries, map.max_entries, map.percent);
        Finding::new(Kind::MapFilling, &map.name, found)
    }));
    let pending = status.pods.iter().filter(|pod| pod.state == PodState::Pending);
    found.extend(pending.map(|pod| {
        let name = format!("{}/{}", pod.namespace, pod.name);
        Finding::new(Kind::PodPending, name, &pod.detail)
    }));
    let warnings = status.warnings.iter().filter(|warning| !is_said(warning, situation));
    found.extend(warnings.map(|warning| Finding::new(Kind::AgentWarning, node, warning)));
    found
}

/// Whether another finding says the same: a map that fills up, or one about the manifests.
fn is_said(warning: &str, situation: &Situation) -> bool {
    let diagnostics = situation.manifests().into_iter().flat_map(|loaded| &loaded.diagnostics);
    (warning.starts_with("map ") && warning.contains("% full"))
        || diagnostics.map(ToString::to_string).any(|text| warning.contains(&text))
}
