//! Keeps the enrolled pods of this node equal to what the snapshot says, by level and not by edge:
//! every pass compares everything, so that a missed event is mended by the next pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use undermesh_datapath::GateSubject;
use undermesh_model::NamespacedName;
use undermesh_snapshot::{Snapshot, WorkloadInfo};

use crate::{
    discovery::Discovery,
    gate::Gatekeeper,
    pod::{EnrolledPod, Node, NotRunning},
    status::{GateStatus, PodStatus},
};

/// How often namespaces are checked for having come or gone. Bounds how long a new namespace
/// waits, together with the hot reload that names it, to well under a second.
const PASS: Duration = Duration::from_millis(200);
/// How long after something has changed what is pending is tried more often, and how often.
const HURRY: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(5);
/// The least time between two passes that somebody has asked for.
const BREATH: Duration = Duration::from_millis(5);
/// How long a connection may be on its way from `connect` to the programs at its destination.
const IN_FLIGHT: Duration = Duration::from_millis(50);
/// How often routes that nobody needs any more are looked for.
const TIDY: Duration = Duration::from_secs(1);
/// How often every namespace is asked who listens there. Programs report who begins to listen, and
/// who ceases if it was there when he began; this is for the others.
const LISTENERS: Duration = Duration::from_secs(5);
/// The same where programs cannot report whoever listens without having bound.
const LISTENERS_UNREPORTED: Duration = Duration::from_millis(500);

/// What [`Enrolment`] shows to the status page and to the event log.
#[derive(Default)]
pub(crate) struct EnrolmentView {
    inner: Mutex<View>,
    /// Pods in which somebody has begun or ceased to listen.
    listening_changed: Mutex<BTreeSet<u64>>,
    listening: Notify,
    /// Something has come to the startup gate.
    gate: Notify,
}

#[derive(Default)]
struct View {
    pods: Vec<PodStatus>,
    by_cookie: BTreeMap<u64, Arc<WorkloadInfo>>,
    namespaces: BTreeMap<NamespacedName, PathBuf>,
    /// Pods that the startup gate holds, by what they are held by.
    held: BTreeMap<GateSubject, Arc<WorkloadInfo>>,
    gate: GateStatus,
    first_pass_done: bool,
}

impl EnrolmentView {
    pub(crate) fn pods(&self) -> Vec<PodStatus> {
        self.lock().pods.clone()
    }

    /// The enrolled pod behind a netns cookie.
    pub(crate) fn by_cookie(&self, cookie: u64) -> Option<Arc<WorkloadInfo>> {
        self.lock().by_cookie.get(&cookie).cloned()
    }

    /// Where the network namespaces of enrolled pods are.
    pub(crate) fn namespaces(&self) -> BTreeMap<NamespacedName, PathBuf> {
        self.lock().namespaces.clone()
    }

    /// The pod that the startup gate holds by one of these.
    pub(crate) fn held(&self, cookie: u64, cgroup: Option<u64>) -> Option<Arc<WorkloadInfo>> {
        let subject = cgroup.map_or(GateSubject::Netns(cookie), GateSubject::Cgroup);
        self.lock().held.get(&subject).cloned()
    }

    /// How the startup gate stands.
    pub(crate) fn gate(&self) -> GateStatus {
        self.lock().gate.clone()
    }

    /// A process whose namespace is not programmed has dialled the mesh.
    pub(crate) fn came_to_the_gate(&self) {
        self.gate.notify_one();
    }

    /// Whether every pod of the first snapshot has been tried once.
    pub(crate) fn first_pass_done(&self) -> bool {
        self.lock().first_pass_done
    }

    /// An application of a pod has begun or ceased to listen.
    pub(crate) fn listening_changed(&self, cookie: u64) {
        self.listening_changed.lock().unwrap_or_else(PoisonError::into_inner).insert(cookie);
        self.listening.notify_one();
    }

    fn take_listening_changed(&self) -> BTreeSet<u64> {
        mem::take(&mut *self.listening_changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, View> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a pod is not enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// It does not run.
    pub(crate) absent: bool,
}

/// The reconciler.
pub(crate) struct Enrolment {
    node: Arc<Node>,
    view: Arc<EnrolmentView>,
    pods: BTreeMap<NamespacedName, EnrolledPod>,
    failures: BTreeMap<NamespacedName, Failure>,
    /// When routes that nobody needs any more were last looked for.
    tidied: Option<Instant>,
    discovery: Discovery,
    gate: Gatekeeper,
    /// Until when what is pending is tried again and again.
    hurry: Instant,
}

impl Enrolment {
    pub(crate) fn new(
        node: Arc<Node>,
        view: Arc<EnrolmentView>,
        discovery: Discovery,
        gate: Gatekeeper,
    ) -> Self {
        let (pods, failures, hurry) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
        Self { node, view, pods, failures, discovery, gate, hurry, tidied: None }
    }

    /// Runs until `stop` says so. May be run again afterwards.
    pub(crate) async fn run(
        &mut self,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut ticks = tokio::time::interval(PASS);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let reported = self.node.reports_listeners;
        let mut listener_ticks =
            tokio::time::interval(if reported { LISTENERS } else { LISTENERS_UNREPORTED });
        listener_ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let hurries = self.hurries();
            let heard = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return self.gate.leave(),
                changed = snapshots.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return self.gate.leave(),
                },
                () = self.view.listening.notified() => {
                    let changed = self.view.take_listening_changed();
                    self.look_who_listens(|cookie| changed.contains(&cookie));
                    continue;
                }
                () = self.view.gate.notified() => {
                    self.discovery.distrust();
                    true
                }
                () = self.discovery.changed() => true,
                _ = listener_ticks.tick() => {
                    self.look_who_listens(|_| true);
                    false
                }
                _ = ticks.tick() => false,
                () = tokio::time::sleep(QUICK), if hurries => false,
            };
            if heard {
                self.hurry = Instant::now() + HURRY;
            }
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                self.pass(&snapshot);
                self.cease_to_wait().await;
                self.publish(&snapshot);
                if heard {
                    // However much there is to be heard, the thread has other things to do.
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// Whether a pod is missing that may be there any moment: its namespace, its addresses and its
    /// first process come one after the other.
    fn hurries(&self) -> bool {
        !self.failures.is_empty() && Instant::now() < self.hurry
    }

    /// Leads nothing more to any pod's listeners.
    pub(crate) fn refuse_new(&self) {
        for (name, pod) in &self.pods {
            if let Err(error) = pod.refuse_new(&self.node) {
                tracing::error!(pod = %name, error = format!("{error:#}"), "cannot refuse connections");
            }
        }
    }

    /// Closes all listeners, leaves the programs in place, and hands the pods over to be drained.
    pub(crate) fn into_draining(mut self) -> Vec<EnrolledPod> {
        for pod in self.pods.values_mut() {
            pod.stop_accepting();
        }
        self.pods.into_values().collect()
    }

    /// Leads all pods to this agent's listeners again, after another agent has taken over and
    /// failed.
    pub(crate) fn assert_again(&mut self) {
        let read = self.node.programs.lock().unwrap_or_else(PoisonError::into_inner).read_again();
        if let Err(error) = read {
            tracing::error!(%error, "cannot read the pod map again");
        }
        self.gate.read_again();
        self.discovery.distrust();
        for (name, pod) in &self.pods {
            if let Err(error) = pod.assert_again(&self.node) {
                tracing::error!(pod = %name, error = format!("{error:#}"), "cannot take the pod back");
            }
        }
    }

    fn pass(&mut self, snapshot: &Snapshot) {
        let wanted: BTreeMap<&NamespacedName, &Arc<WorkloadInfo>> =
            snapshot.local.iter().map(|workload| (&workload.name, workload)).collect();
        let pods = &self.pods;
        self.gate.mark(&mut self.discovery, snapshot, |name| pods.contains_key(name));
        self.release(&wanted);
        self.failures.retain(|name, _| wanted.contains_key(name));
        for (name, workload) in &wanted {
            if !self.pods.contains_key(*name) {
                self.enrol(workload);
            }
            self.complete(name);
        }
        self.forget_strangers();
        self.gate.raise(&self.discovery);
        self.tidy_routes();
    }

    /// Where programs of another version have judged what arrives, ours do so as well as soon as they
    /// know of every pod.
    async fn cease_to_wait(&self) {
        let programs = || self.node.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if !programs().waits() {
            return;
        }
        // What was dialled before the last pod had its entry arrives before it is judged.
        tokio::time::sleep(IN_FLIGHT).await;
        programs().wait_no_longer();
        for (name, pod) in &self.pods {
            if let Err(error) = pod.assert_again(&self.node) {
                tracing::error!(pod = %name, error = format!("{error:#}"), "cannot judge what arrives");
            }
        }
    }

    /// Lets go of pods that are no longer wanted, have changed, or whose namespace has gone.
    fn release(&mut self, wanted: &BTreeMap<&NamespacedName, &Arc<WorkloadInfo>>) {
        let node = &self.node;
        let leaves = |(name, pod): &mut (&NamespacedName, &mut EnrolledPod)| {
            wanted.get(name).is_none_or(|workload| !same_pod(workload, pod.workload()))
                || !pod.namespace_is_there(node)
        };
        let leaving: Vec<NamespacedName> = self
            .pods
            .iter_mut()
            .filter_map(|mut pod| leaves(&mut pod).then(|| pod.0.clone()))
            .collect();
        for name in leaving {
            let Some(pod) = self.pods.remove(&name) else { continue };
            self.discovery.distrust();
            match pod.leave(&self.node) {
                Ok(()) => tracing::info!(pod = %name, "left the mesh"),
                Err(error) => {
                    tracing::error!(pod = %name, error = format!("{error:#}"), "cannot leave the mesh");
                }
            }
        }
    }

    fn look_who_listens(&self, is_meant: impl Fn(u64) -> bool) {
        for (name, pod) in self.pods.iter().filter(|(_, pod)| is_meant(pod.netns_cookie())) {
            if let Err(error) = pod.look_who_listens(&self.node) {
                tracing::warn!(pod = %name, error = format!("{error:#}"), "cannot tell who listens");
            }
        }
    }

    fn enrol(&mut self, workload: &Arc<WorkloadInfo>) {
        let name = &workload.name;
        match EnrolledPod::enrol(&self.node, workload) {
            Ok(pod) => {
                tracing::info!(pod = %name, identity = %workload.identity, cookie = pod.netns_cookie(), "enrolled");
                self.view.listening_changed(pod.netns_cookie());
                self.pods.insert(name.clone(), pod);
            }
            Err(error) => self.fail(name, &error),
        }
    }

    /// A pod is programmed as soon as its namespace is there, and enrolled once that has the pod's
    /// addresses too.
    fn complete(&mut self, name: &NamespacedName) {
        let Some(pod) = self.pods.get_mut(name) else { return };
        match pod.complete() {
            Ok(()) => drop(self.failures.remove(name)),
            Err(error) => self.fail(name, &error),
        }
    }

    fn fail(&mut self, name: &NamespacedName, error: &anyhow::Error) {
        let failure = Failure { text: format!("{error:#}"), absent: error.is::<NotRunning>() };
        if self.failures.get(name) != Some(&failure) {
            self.discovery.distrust();
            let error = &failure.text;
            if failure.absent {
                tracing::debug!(pod = %name, error, "cannot enrol yet");
            } else {
                tracing::warn!(pod = %name, error, "cannot enrol yet; trying again");
            }
            self.failures.insert(name.clone(), failure);
        }
    }

    /// Switches off what a former agent has left switched on and nobody wants any more. A pod that
    /// cannot be served at the moment stays on: its traffic fails closed.
    fn forget_strangers(&self) {
        if self.failures.values().all(|failure| failure.absent) {
            let keep: BTreeSet<u64> = self.pods.values().map(EnrolledPod::netns_cookie).collect();
            let mut programs = self.node.programs.lock().unwrap_or_else(PoisonError::into_inner);
            if programs.switched_on().is_subset(&keep) && self.view.first_pass_done() {
                return;
            }
            match programs.retain(&keep) {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "switched off pods of a former agent"),
                Err(error) => tracing::error!(%error, "cannot switch off pods of a former agent"),
            }
        }
    }

    /// Leaves namespaces as they were where no pod and no connection needs them otherwise.
    fn tidy_routes(&mut self) {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY) {
            return;
        }
        self.tidied = Some(Instant::now());
        let routes = self.node.return_routes.lock().unwrap_or_else(PoisonError::into_inner);
        match routes.tidy() {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed routes for clients' addresses from pods"),
            Err(error) => tracing::error!(%error, "cannot remove routes for clients' addresses"),
        }
    }

    fn publish(&self, snapshot: &Snapshot) {
        let pods = snapshot
            .local
            .iter()
            .map(|workload| {
                let pod = self.pods.get(&workload.name);
                let problem = pod.and_then(EnrolledPod::problem);
                let failure = self.failures.get(&workload.name);
                PodStatus::new(workload, pod.map(EnrolledPod::netns_cookie), failure, problem)
            })
            .chain(snapshot.impossible.iter().map(|(name, why)| PodStatus::impossible(name, why)))
            .collect();
        let by_cookie = self
            .pods
            .values()
            .map(|pod| (pod.netns_cookie(), Arc::clone(pod.workload())))
            .collect();
        let held = self.gate.held(snapshot);
        let gate = self.gate.status(&self.discovery, |name| self.pods.contains_key(name));
        let namespaces = self.pods.iter();
        let namespaces = namespaces.map(|(name, pod)| (name.clone(), pod.path().to_owned()));
        *self.view.lock() = View {
            pods,
            by_cookie,
            namespaces: namespaces.collect(),
            held,
            gate,
            first_pass_done: true,
        };
    }
}

/// Whether a new record describes the pod as it is enrolled. Labels and modes reach the proxy with
/// the snapshot; only what the namespace, the listeners or the identity depend on counts.
fn same_pod(new: &WorkloadInfo, enrolled: &WorkloadInfo) -> bool {
    new.location == enrolled.location
        && new.addresses == enrolled.addresses
        && new.identity == enrolled.identity
        && new.outbound_failure == enrolled.outbound_failure
        && new.source_address == enrolled.source_address
}
