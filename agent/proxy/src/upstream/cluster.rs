//! One destination of one client pod: who is admitted, and to which endpoint.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use undermesh_model::traffic::SimpleBalancer;
use undermesh_snapshot::traffic::{ClusterEndpoint, ClusterSpec};

use super::{
    Pick, Refusal,
    balance::Balancer,
    dns::{Families, Name, Place, places},
    lease::{ConnectionLease, Counts, Lease},
    limits::{Held, Limit, Limits},
    member::{Host, HostKey, Member},
    metrics::Raised,
    node::Node,
    outlier::Detector,
    pool::{Pool, Rules, Terms},
};

/// Hosts that are known only because clients dialled them, at most; those without connections are
/// forgotten first.
const MAX_DIALLED: usize = 1024;

/// One destination, as one snapshot has it.
pub(crate) struct Cluster {
    spec: Arc<ClusterSpec>,
    view: Arc<View>,
}

/// What follows from a specification; the same for equal ones.
struct View {
    balancer: Balancer,
    detector: Option<Arc<Detector>>,
    state: Arc<State>,
    /// Names of endpoints, with the generation of each that the members are of.
    names: Vec<(Arc<Name>, u64)>,
}

/// What outlives snapshots.
struct State {
    terms: Arc<Terms>,
    /// What the pod can dial.
    families: Families,
    hosts: Mutex<HashMap<HostKey, Arc<Host>>>,
}

/// A retry that is waited for, or under way.
#[derive(Debug)]
pub(crate) struct RetryPermit(#[expect(dead_code, reason = "counts while it lives")] Held);

impl Cluster {
    pub(super) fn new(node: &Node, spec: &Arc<ClusterSpec>, families: Families) -> Arc<Self> {
        let pool = &spec.settings.pool;
        let metrics = node.metrics.cluster(&spec.key);
        let terms = Terms::new(Rules::new(pool), Limits::new(pool), metrics);
        let state = Arc::new(State { terms, families, hosts: Mutex::default() });
        Self::view(node, state, spec)
    }

    /// The same destination as a newer snapshot has it: limits, pools and ejections go on.
    pub(super) fn renewed(&self, node: &Node, spec: &Arc<ClusterSpec>) -> Arc<Self> {
        if *self.spec == **spec && !self.is_outdated() {
            let view = Arc::clone(&self.view);
            return Arc::new(Self { spec: Arc::clone(spec), view });
        }
        let state = Arc::clone(&self.view.state);
        state.terms.limits.set(&spec.settings.pool);
        state.terms.set_rules(Rules::new(&spec.settings.pool));
        if self.spec.settings.tls != spec.settings.tls {
            // Connections that were made under other rules for TLS are none of this snapshot's.
            state.close_all();
        }
        Self::view(node, state, spec)
    }

    fn view(node: &Node, state: Arc<State>, spec: &Arc<ClusterSpec>) -> Arc<Self> {
        // Before the names are read, so that what comes in between is seen as new.
        let names = node.names.of(spec);
        let known = names.iter().flatten();
        let known = known.map(|name| (Arc::clone(name), name.generation())).collect();
        let places = places(spec, &names, state.families);
        let watched = node.watch(spec, &places, &state.terms.metrics);
        let (detector, health) = watched.map_or((None, Vec::new()), |(one, all)| (Some(one), all));
        let hosts = state.take_places(&places);
        let health = health.into_iter().map(Some).chain(std::iter::repeat(None));
        let members = places.into_iter().zip(hosts).zip(health);
        let members = members.filter_map(|((place, host), health)| {
            let Place { endpoint, .. } = place;
            Some(Arc::new(Member { endpoint, host: host?, health }))
        });
        let balancer = Balancer::new(spec, members.collect());
        let view = Arc::new(View { balancer, detector, state, names: known });
        Arc::new(Self { spec: Arc::clone(spec), view })
    }

    /// Whether a name of its endpoints stands for others now.
    pub(super) fn is_outdated(&self) -> bool {
        self.view.names.iter().any(|(name, seen)| name.generation() != *seen)
    }

    /// Names that nobody has asked DNS for yet.
    pub(super) fn unasked(&self) -> Vec<Arc<Name>> {
        let names = self.view.names.iter().map(|(name, _)| name);
        names.filter(|name| !name.is_asked()).cloned().collect()
    }

    pub(super) fn spec(&self) -> &Arc<ClusterSpec> {
        &self.spec
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.view.state.terms
    }

    pub(super) fn members(&self) -> &[Arc<Member>] {
        self.view.balancer.members()
    }

    pub(super) fn detector(&self) -> Option<&Arc<Detector>> {
        self.view.detector.as_ref()
    }

    /// Whether anything of it is in use.
    pub(super) fn is_busy(&self) -> bool {
        let hosts = self.view.state.lock();
        hosts.values().any(|host| host.active() > 0 || host.pool.connections() > 0)
    }

    /// Closes connections without a request.
    pub(super) fn trim(&self) {
        let hosts: Vec<_> = self.view.state.lock().values().cloned().collect();
        hosts.iter().for_each(|host| host.pool.drop_idle());
    }

    /// Admits one attempt: counts it against the limits and chooses an endpoint.
    pub(crate) fn admit(&self, pick: &Pick<'_>) -> Result<Lease, Refusal> {
        let member = self.choose(pick)?;
        let counts = Counts {
            _active: member.host.start(),
            _raised: Raised::new(&self.terms().metrics.requests),
        };
        let detector = self.view.detector.clone();
        let spec = Arc::clone(&self.spec);
        Ok(Lease { member, spec, detector, counts, progress: Mutex::default() })
    }

    /// Permits one retry, which has a limit of its own, for as long as the permit lives; the name of the
    /// limit where it is reached.
    pub(crate) fn permit_retry(&self) -> Result<RetryPermit, &'static str> {
        let limit = &self.terms().limits.retries;
        limit.take().map(RetryPermit).ok_or_else(|| {
            self.terms().metrics.overflow(limit.name);
            limit.name
        })
    }

    /// Admits one connection that is not looked into.
    pub(crate) fn admit_connection(&self, pick: &Pick<'_>) -> Result<ConnectionLease, Refusal> {
        let terms = self.terms();
        let held = self.take(&terms.limits.connections)?;
        let member = self.choose(pick)?;
        let raised = Raised::new(&terms.metrics.connections);
        Ok(ConnectionLease {
            _counts: (member.host.start(), raised, held),
            member,
            spec: Arc::clone(&self.spec),
            detector: self.view.detector.clone(),
            connect_timeout: terms.rules().connect_timeout,
        })
    }

    fn take(&self, limit: &Arc<Limit>) -> Result<Held, Refusal> {
        limit.take().ok_or_else(|| {
            self.terms().metrics.overflow(limit.name);
            Refusal::Overflow(limit.name)
        })
    }

    fn choose(&self, pick: &Pick<'_>) -> Result<Arc<Member>, Refusal> {
        let balancer = &self.spec.settings.balancer;
        if balancer.hash.is_none() && balancer.simple == Some(SimpleBalancer::Passthrough) {
            return Ok(self.dialled(pick.dialled));
        }
        let ejections = self.view.detector.as_ref().map_or(0, |detector| detector.ejections());
        let (member, panic) = self.view.balancer.choose(pick, ejections)?;
        if panic {
            self.terms().metrics.panicked();
        }
        Ok(member)
    }

    /// The endpoint that the client has dialled, whether it is one of the cluster's or not.
    fn dialled(&self, address: SocketAddr) -> Arc<Member> {
        let known = self.members().iter().find(|member| member.endpoint.address == address);
        known.cloned().unwrap_or_else(|| {
            let endpoint = ClusterEndpoint {
                address,
                workload: None,
                weight: 1,
                locality: Default::default(),
                priority: 0,
            };
            let host = self.view.state.dialled(&endpoint);
            Arc::new(Member { endpoint, host, health: None })
        })
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<HostKey, Arc<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts of those of these places that are used; what is none of them any more closes its
    /// connections.
    fn take_places(&self, places: &[Place]) -> Vec<Option<Arc<Host>>> {
        let mut hosts = self.lock();
        let mut old = std::mem::take(&mut *hosts);
        let mut taken = Vec::with_capacity(places.len());
        for Place { key, used, .. } in places {
            if !used {
                taken.push(None);
                continue;
            }
            let known = hosts.get(key).cloned().or_else(|| old.remove(key));
            let host = known.unwrap_or_else(|| self.new_host());
            hosts.insert(key.clone(), Arc::clone(&host));
            taken.push(Some(host));
        }
        drop(hosts);
        old.values().for_each(|host| host.pool.close());
        taken
    }

    fn dialled(&self, endpoint: &ClusterEndpoint) -> Arc<Host> {
        let key = HostKey::of(endpoint);
        let mut hosts = self.lock();
        if let Some(host) = hosts.get(&key) {
            return Arc::clone(host);
        }
        let host = self.new_host();
        if hosts.len() >= MAX_DIALLED {
            hosts.retain(|_, host| host.active() > 0 || host.pool.connections() > 0);
        }
        if hosts.len() < MAX_DIALLED {
            hosts.insert(key, Arc::clone(&host));
        }
        host
    }

    fn close_all(&self) {
        let old = std::mem::take(&mut *self.lock());
        old.values().for_each(|host| host.pool.close());
    }

    fn new_host(&self) -> Arc<Host> {
        Host::new(Pool::new(Arc::clone(&self.terms)))
    }
}
