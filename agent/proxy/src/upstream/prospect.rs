//! Which endpoints of a destination would be chosen from, for whoever asks before anything is sent. The chart is the one
//! that attempts are drawn from; what is known of ejections is handed in.

use std::{net::SocketAddr, sync::Arc};

use undermesh_model::traffic::SimpleBalancer;
use undermesh_snapshot::traffic::{ClusterEndpoint, ClusterSpec};

use super::{
    Pick, Refusal,
    balance::Balancer,
    limits::Limits,
    member::{Host, Member},
    metrics::UpstreamMetrics,
    outlier::Health,
    pool::{Pool, Rules, Terms},
};

/// An endpoint, and whether it would be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Prospect {
    pub(crate) endpoint: ClusterEndpoint,
    /// It is one of those that would be chosen from, or the one that the key of the request leads to.
    pub(crate) chosen: bool,
    /// So few are healthy that ejected ones are used as well.
    pub(crate) panic: bool,
}

/// The endpoints of a destination. Those that only DNS knows are none of them; without them, there is a refusal only
/// where no name is left to be asked for.
pub(crate) fn prospects(
    spec: &ClusterSpec,
    ejected: &[SocketAddr],
    pick: &Pick<'_>,
) -> Result<Vec<Prospect>, Refusal> {
    let balancer = &spec.settings.balancer;
    if balancer.hash.is_none() && balancer.simple == Some(SimpleBalancer::Passthrough) {
        return Ok(vec![dialled(spec, pick.dialled)]);
    }
    let pool = &spec.settings.pool;
    let metrics = UpstreamMetrics::default().cluster(&spec.key);
    let terms = Terms::new(Rules::new(pool), Limits::new(pool), metrics);
    let member = |endpoint: &ClusterEndpoint| {
        let host = Host::new(Pool::new(Arc::clone(&terms)));
        let health = Health::known(endpoint.address, ejected.contains(&endpoint.address));
        Arc::new(Member { endpoint: endpoint.clone(), host, health: Some(health) })
    };
    let members: Vec<_> = spec.endpoints.iter().map(member).collect();
    let balancer = Balancer::new(spec, members);
    let chosen = match balancer.prospects(pick) {
        Err(_) if !spec.dns.is_empty() || spec.dynamic.is_some() => Vec::new(),
        chosen => chosen?,
    };
    let prospect = |endpoint: &ClusterEndpoint| {
        let is = |(member, _): &&(Arc<Member>, bool)| member.endpoint.address == endpoint.address;
        let found = chosen.iter().find(is);
        let panic = found.is_some_and(|(_, panic)| *panic);
        Prospect { endpoint: endpoint.clone(), chosen: found.is_some(), panic }
    };
    Ok(spec.endpoints.iter().map(prospect).collect())
}

fn dialled(spec: &ClusterSpec, address: SocketAddr) -> Prospect {
    let known = spec.endpoints.iter().find(|endpoint| endpoint.address == address);
    let unknown = || ClusterEndpoint {
        address,
        workload: None,
        weight: 1,
        locality: Default::default(),
        priority: 0,
    };
    let endpoint = known.cloned().unwrap_or_else(unknown);
    Prospect { endpoint, chosen: true, panic: false }
}

#[cfg(test)]
mod tests {
    use undermesh_model::traffic::{ClusterKey, ConsistentHash, HashKey, Ring};
    use undermesh_snapshot::traffic::{AppProtocol, Settings};

    use super::*;

    fn spec(tiers: &[u32]) -> ClusterSpec {
        let endpoints = (1..).zip(tiers).map(|(number, priority)| ClusterEndpoint {
            address: SocketAddr::from(([10, 0, 0, number], 80)),
            workload: None,
            weight: 1,
            locality: Default::default(),
            priority: *priority,
        });
        ClusterSpec {
            key: ClusterKey::new("cart.shop.svc.cluster.local", 80).into(),
            rule: None,
            protocol: AppProtocol::Http,
            endpoints: endpoints.collect(),
            dns: Vec::new(),
            dynamic: None,
            settings: Settings::default(),
        }
    }

    fn chosen(spec: &ClusterSpec, ejected: &[u8], hash: Option<u64>) -> Vec<u8> {
        let address = |number: &u8| SocketAddr::from(([10, 0, 0, *number], 80));
        let ejected: Vec<_> = ejected.iter().map(address).collect();
        let pick = Pick {
            hash,
            client: [10, 0, 0, 99].into(),
            dialled: "10.96.0.1:80".parse().unwrap(),
            tried: &[],
            leave_tiers_of: &[],
        };
        let all = prospects(spec, &ejected, &pick).unwrap();
        assert_eq!(all.len(), spec.endpoints.len());
        let last = |one: &Prospect| match one.endpoint.address.ip() {
            std::net::IpAddr::V4(v4) => v4.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        all.iter().filter(|one| one.chosen).map(last).collect()
    }

    #[test]
    fn the_first_tier_is_chosen_from_while_it_is_healthy() {
        let spec = spec(&[0, 0, 1]);
        assert_eq!(chosen(&spec, &[], None), [1, 2]);
        assert_eq!(chosen(&spec, &[1, 2], None), [3]);
    }

    #[test]
    fn a_key_leads_to_one_endpoint() {
        let mut spec = spec(&[0, 0, 0, 0]);
        let (key, ring) = (HashKey::Header("x-user".to_owned()), Ring::Ring { minimum: 1024 });
        spec.settings.balancer.hash = Some(ConsistentHash { key, ring });
        let one = chosen(&spec, &[], Some(7));
        assert_eq!(one.len(), 1);
        assert_eq!(chosen(&spec, &[], Some(7)), one);
        assert_ne!(chosen(&spec, &one, Some(7)), one, "an ejected one is left out");
        assert_eq!(chosen(&spec, &[], None).len(), 4, "without the key, any will do");
    }

    #[test]
    fn nobody_is_a_refusal() {
        let pick = Pick {
            hash: None,
            client: [10, 0, 0, 99].into(),
            dialled: "10.96.0.1:80".parse().unwrap(),
            tried: &[],
            leave_tiers_of: &[],
        };
        assert_eq!(prospects(&spec(&[]), &[], &pick).unwrap_err(), Refusal::NoEndpoints);
    }
}
