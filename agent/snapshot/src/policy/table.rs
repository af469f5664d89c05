//! The kernel's table: answers of [`super::evaluate`] for every policy of this node's pods and every class
//! of sources that the kernel can tell apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use undermesh_ebpf_common::{ANY_PORT, PolicyKey, PolicyVerdict, UNKNOWN_CLASS, policy_verdict};
use undermesh_model::{Diagnostic, Severity, SpiffeId};

use super::{Cause, CompiledPolicy, ConnectionAttributes, evaluate::cause, ids::Ids};
use crate::WorkloadInfo;

/// Ports that the policies of one workload may name. Every one costs an entry per class of
/// sources.
const MAX_PORTS: usize = 512;
/// Stands for addresses that no policy has asked for.
const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Builds the entries.
#[derive(Default)]
pub(crate) struct PolicyTable {
    policies: Ids<(Arc<CompiledPolicy>, Option<IpAddr>)>,
    classes: Ids<(SpiffeId, Option<IpAddr>)>,
    by_identity: BTreeMap<u64, (SpiffeId, IpAddr)>,
    by_address: BTreeMap<u64, (SpiffeId, IpAddr)>,
    /// What `POLICY` should hold.
    pub(crate) entries: BTreeMap<PolicyKey, PolicyVerdict>,
}

impl PolicyTable {
    /// Takes a pod of this node in as a source. All have to be in before the first policy is.
    pub(crate) fn add_source(&mut self, workload: &WorkloadInfo) {
        for address in &workload.addresses {
            let (class, address_class) = self.classes(workload, *address);
            let identity = &workload.identity;
            self.by_identity.insert(class, (identity.clone(), SOME_ADDRESS));
            self.by_address.insert(address_class, (identity.clone(), *address));
        }
    }

    /// The classes of a source: by identity, and by identity and address.
    pub(crate) fn classes(&mut self, workload: &WorkloadInfo, address: IpAddr) -> (u64, u64) {
        let identity = &workload.identity;
        let (class, _) = self.classes.of((identity.clone(), None));
        let (address_class, _) = self.classes.of((identity.clone(), Some(address)));
        (class, address_class)
    }

    /// The id of what guards this address of a workload; its answers are in the table from now on.
    pub(crate) fn add_policy(&mut self, policy: &Arc<CompiledPolicy>, address: IpAddr) -> u64 {
        let destination = policy.looks_at_destinations().then_some(address);
        let (id, is_new) = self.policies.of((Arc::clone(policy), destination));
        if is_new {
            self.answer(id, policy, destination.unwrap_or(SOME_ADDRESS));
        }
        id
    }

    fn answer(&mut self, id: u64, policy: &CompiledPolicy, destination: IpAddr) {
        let ports = policy.ports();
        if ports.len() > MAX_PORTS {
            return;
        }
        // Some port that nobody names speaks for all of them; fewer than 65536 are named.
        let other = (1..=u16::MAX).find(|port| !ports.contains(port)).unwrap_or_default();
        let by_address = policy.looks_at_sources();
        let sources = if by_address { &self.by_address } else { &self.by_identity };
        let known = sources.iter().map(|(class, (identity, address))| {
            (
                *class,
                ConnectionAttributes {
                    source: Some(identity),
                    source_address: *address,
                    destination: SocketAddr::new(destination, other),
                },
            )
        });
        let unknown = (
            UNKNOWN_CLASS,
            ConnectionAttributes {
                source: None,
                source_address: SOME_ADDRESS,
                destination: SocketAddr::new(destination, other),
            },
        );
        // Whether plaintext matches a rule about addresses cannot be told by class: the agent does.
        let unknown = (!by_address).then_some(unknown);
        for (class, connection) in known.chain(unknown) {
            self.entries.extend(answers(id, class, policy, connection, &ports));
        }
    }
}

/// The answer for all ports, and for those where it is another. What is denied at all ports needs
/// no entry.
fn answers(
    id: u64,
    class: u64,
    policy: &CompiledPolicy,
    connection: ConnectionAttributes<'_>,
    ports: &BTreeSet<u16>,
) -> impl Iterator<Item = (PolicyKey, PolicyVerdict)> {
    let at = move |port: u16| {
        let destination = SocketAddr::new(connection.destination.ip(), port);
        verdict(cause(policy, &ConnectionAttributes { destination, ..connection }))
    };
    let default = at(connection.destination.port());
    let exact = ports.iter().map(move |port| (u32::from(*port), at(*port)));
    let exact = exact.filter(move |(_, verdict)| *verdict != default);
    let default = (default != policy_verdict::DENY).then_some((ANY_PORT, default));
    default.into_iter().chain(exact).map(move |(port, verdict)| {
        (PolicyKey { policy: id, class, port, pad: 0 }, PolicyVerdict { verdict })
    })
}

fn verdict(cause: Cause) -> u32 {
    match cause {
        Cause::Unrestricted | Cause::Allowed => policy_verdict::ALLOW,
        Cause::StrictPlaintext => policy_verdict::STRICT,
        Cause::Denied | Cause::NotAllowed | Cause::NotAsked => policy_verdict::DENY,
        Cause::AtRequests => policy_verdict::JUDGE,
    }
}

/// What the kernel cannot judge and refuses instead.
pub(crate) fn report(
    workload: &WorkloadInfo,
    policy: &CompiledPolicy,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut add = |code, message: String, remedy: &str| {
        diagnostics.push(Diagnostic {
            severity: Severity::Warning,
            code,
            object: Some(workload.origin.clone()),
            position: None,
            message,
            remedy: remedy.to_owned(),
        });
    };
    let ports = policy.ports().len();
    if ports > MAX_PORTS {
        let message = format!(
            "its policies name {ports} ports, more than {MAX_PORTS}: connections from pods of its own node and plaintext are refused"
        );
        add("too-many-ports", message, "name fewer ports");
    }
}
