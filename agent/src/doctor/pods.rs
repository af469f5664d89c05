//! The network namespaces of this node's pods: packet sizes, and ports that the mesh uses.

use std::collections::BTreeSet;

use undermesh_control::TUNNEL_PORT;
use undermesh_datapath::{Netns, interfaces, sock_diag};
use undermesh_model::NamespacedName;

use super::{catalogue::Kind, finding::Finding, situation::Situation};
use crate::status::PodState;

/// Where the agent listens for outbound connections, if it can.
const OUTBOUND_PORT: u16 = 15001;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let uplink = interfaces(None).ok().and_then(|known| {
        known.into_iter().filter(|it| it.default_route).min_by_key(|interface| interface.mtu)
    });
    let mut found = Vec::new();
    for (pod, netns) in situation.pods() {
        if let Some(uplink) = &uplink {
            found.extend(too_large(&pod, &netns, &uplink.name, uplink.mtu));
        }
        found.extend(taken(&pod, &netns, is_enrolled(situation, &pod)));
    }
    found
}

/// Interfaces of a pod that send larger packets than the node passes on.
fn too_large(pod: &NamespacedName, netns: &Netns, uplink: &str, mtu: u32) -> Vec<Finding> {
    let large = interfaces(Some(netns)).unwrap_or_default().into_iter().filter(|it| it.mtu > mtu);
    large
        .map(|it| {
            let found = format!("{} has MTU {}, the node's {uplink} has {mtu}", it.name, it.mtu);
            Finding::new(Kind::MtuMismatch, format!("Pod {pod}"), found)
        })
        .collect()
}

/// Ports of the mesh at which somebody else listens. The agent's own listener of an enrolled pod is
/// at the outbound port; nothing of it is at the tunnels'.
fn taken(pod: &NamespacedName, netns: &Netns, is_enrolled: bool) -> Vec<Finding> {
    let sockets = sock_diag::listeners(netns).unwrap_or_default();
    let ports: BTreeSet<u16> = sockets.iter().map(|socket| socket.port).collect();
    let mut found = Vec::new();
    let mut add = |kind, port: u16| {
        if ports.contains(&port) {
            let what = format!("an application listens at port {port}");
            found.push(Finding::new(kind, format!("Pod {pod}"), what));
        }
    };
    add(Kind::PodPortTaken, TUNNEL_PORT);
    if !is_enrolled {
        add(Kind::PodOutboundPortTaken, OUTBOUND_PORT);
    }
    found
}

fn is_enrolled(situation: &Situation, pod: &NamespacedName) -> bool {
    let status = situation.status().as_ref().ok();
    status.into_iter().flat_map(|status| &status.pods).any(|row| {
        row.namespace == pod.namespace && row.name == pod.name && row.state == PodState::Enrolled
    })
}
