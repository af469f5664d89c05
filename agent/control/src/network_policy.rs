//! NetworkPolicies of a manifest directory, as far as they keep the nodes' tunnels out. They are
//! enforced by somebody else, and so are no part of the mesh's state: only `undermesh doctor` asks.
//!
//! A policy that lets a client reach an application says what its author wants. Where the same
//! policy keeps out the port that the mesh carries the connection over, it blocks the mesh without
//! wanting to; where it lets nothing in, it means that.

mod evaluate;
mod read;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use undermesh_model::{Cluster, NamespacedName, ResourceRef, SourcePosition, Wire, Workload};

use self::evaluate::{Evaluator, Verdict};

/// Pairs of pods that are looked at; a cluster of a thousand meshed pods has as many.
const MAX_PAIRS: usize = 1_000_000;
/// The port of tunnels between nodes.
pub const TUNNEL_PORT: u16 = 15008;

/// Which way a connection goes, seen from the pod that a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Policies that let connections of a pod pass, but not the tunnel that carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedTunnel {
    /// The pod that the policies select.
    pub pod: NamespacedName,
    /// Which of its connections are concerned.
    pub direction: Direction,
    /// One of the pods at the other end.
    pub peer: NamespacedName,
    /// How many more there are.
    pub more_peers: usize,
    /// The policies that select the pod in this direction.
    pub policies: Vec<ResourceRef>,
}

impl fmt::Display for BlockedTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, direction, peer, more_peers, .. } = self;
        let (from, way) = match direction {
            Direction::Ingress => ("from", "ingress to"),
            Direction::Egress => ("to", "egress of"),
        };
        write!(f, "{way} Pod {pod}: connections {from} Pod {peer}")?;
        if *more_peers > 0 {
            write!(f, " and {more_peers} more")?;
        }
        write!(f, " may pass, but not at TCP port {TUNNEL_PORT}")
    }
}

/// Finds tunnels between meshed pods of different nodes that NetworkPolicies in `dir` keep from
/// being opened although they let applications talk.
pub fn blocked_tunnels(dir: &Path, cluster: &Cluster) -> Vec<BlockedTunnel> {
    blocked(&Evaluator::new(read::policies(dir), cluster), cluster)
}

/// The same for policies in the files of a reading, and where each policy stands.
pub(crate) fn blocked_in(
    texts: &[(PathBuf, String)],
    cluster: &Cluster,
) -> (Vec<BlockedTunnel>, Vec<(ResourceRef, SourcePosition)>) {
    let found = read::in_texts(texts);
    let at = |file: &Path, line| SourcePosition { file: file.to_owned(), line };
    let places = found.iter().map(|(file, policy)| (policy.origin.clone(), at(file, policy.line)));
    let places = places.collect();
    let policies = found.into_iter().map(|(_, policy)| policy).collect();
    (blocked(&Evaluator::new(policies, cluster), cluster), places)
}

fn blocked(evaluator: &Evaluator<'_>, cluster: &Cluster) -> Vec<BlockedTunnel> {
    let meshed = || {
        cluster
            .workloads
            .values()
            .filter(|pod| pod.enrolment.is_enrolled() && !pod.host_network && !pod.terminated)
    };
    let mut found = Vec::new();
    let mut pairs = 0;
    for pod in meshed() {
        for direction in [Direction::Ingress, Direction::Egress] {
            let policies = evaluator.selecting(pod, direction);
            if policies.is_empty() {
                continue;
            }
            let peers = meshed().filter(|peer| needs_tunnel(pod, peer));
            let mut blocked = peers.filter(|peer| {
                pairs += 1;
                pairs <= MAX_PAIRS
                    && evaluator.judge(&policies, direction, pod, peer) == Verdict::TunnelBlocked
            });
            if let Some(peer) = blocked.next() {
                found.push(BlockedTunnel {
                    pod: pod.name.clone(),
                    direction,
                    peer: peer.name.clone(),
                    more_peers: blocked.count(),
                    policies: policies.iter().map(|policy| policy.origin.clone()).collect(),
                });
            }
        }
    }
    found
}

/// Within a node nothing does, and the native wire has the application's own port.
fn needs_tunnel(pod: &Workload, peer: &Workload) -> bool {
    pod.node != peer.node && [pod, peer].iter().any(|end| end.wire == Wire::Hbone)
}

#[cfg(test)]
mod tests;
