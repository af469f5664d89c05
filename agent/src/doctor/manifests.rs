//! The manifest directory: whether an agent takes it, and NetworkPolicies that keep tunnels out.

use undermesh_control::{BlockedTunnel, blocked_tunnels};
use undermesh_model::{Diagnostic, Severity};

use super::{catalogue::Kind, finding::Finding, situation::Situation};

/// Findings of one kind that are shown; whoever has more begins with these.
const MAX_SHOWN: usize = 50;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let Some(loaded) = situation.manifests() else { return Vec::new() };
    let of = |severity| loaded.diagnostics.iter().filter(move |it| it.severity == severity);
    let rejected = of(Severity::Error).map(|it| finding(Kind::ManifestsRejected, it));
    // That they have no effect on the mesh is no news: they are for whoever enforces them.
    let warnings = of(Severity::Warning).filter(|it| !it.message.contains("kind NetworkPolicy"));
    let warnings = warnings.map(|it| finding(Kind::ManifestsWarning, it));
    let mut found: Vec<Finding> =
        rejected.take(MAX_SHOWN).chain(warnings.take(MAX_SHOWN)).collect();
    if let (Some(dir), Some(cluster)) = (&situation.outline.manifests, &loaded.cluster) {
        found.extend(blocked_tunnels(dir, cluster).iter().take(MAX_SHOWN).map(blocked));
    }
    found
}

fn finding(kind: Kind, diagnostic: &Diagnostic) -> Finding {
    let object = match (&diagnostic.object, &diagnostic.position) {
        (Some(object), _) => object.to_string(),
        (None, Some(position)) => position.to_string(),
        (None, None) => "manifests".to_owned(),
    };
    Finding::new(kind, object, diagnostic.to_string())
}

fn blocked(tunnel: &BlockedTunnel) -> Finding {
    let policies: Vec<String> = tunnel.policies.iter().map(ToString::to_string).collect();
    Finding::new(Kind::NetworkPolicyBlocks, policies.join(", "), tunnel.to_string())
}
