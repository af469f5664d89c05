//! The startup gate: keeps the kernel told which cgroups belong to pods that are to be in the mesh, and
//! finds out whose the others are.

mod owners;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use undermesh_datapath::{CgroupRoot, DatapathError, GateMark, GateSubject, StartupGate};
use undermesh_model::{Generation, NamespacedName};
use undermesh_snapshot::{Snapshot, WorkloadInfo};

use crate::{
    config::GateConfig,
    discovery::Discovery,
    status::{GateState, GateStatus},
};
use owners::{Claim, Owners};

/// Keeps the gate.
pub(crate) struct Gatekeeper {
    config: GateConfig,
    root: CgroupRoot,
    gate: StartupGate,
    /// What is known of every cgroup that is there, and of namespaces that are not programmed.
    claims: BTreeMap<GateSubject, Claim>,
    /// Cgroups that run something of which nobody knows whose it is, and since when.
    unknown: BTreeMap<u64, Instant>,
    /// Cgroups of which that has been so for too long, or from the start.
    given_up: BTreeSet<u64>,
    /// Cgroups that have been somebody's.
    known: BTreeSet<u64>,
    generation: Option<Generation>,
    raised: bool,
    /// Some marks wait for the end of a pass.
    deferred: bool,
    /// What is wrong at the moment, by what was tried.
    complaints: BTreeMap<&'static str, String>,
}

impl Gatekeeper {
    pub(crate) fn new(config: GateConfig, root: CgroupRoot, gate: StartupGate) -> Self {
        Self {
            config,
            root,
            gate,
            claims: BTreeMap::new(),
            unknown: BTreeMap::new(),
            given_up: BTreeSet::new(),
            known: BTreeSet::new(),
            generation: None,
            raised: false,
            deferred: false,
            complaints: BTreeMap::new(),
        }
    }

    /// Finds out whose the cgroups are, where anything may have changed, and tells the programs.
    /// Meant to come before pods are enrolled: what takes its time then is held from here on.
    pub(crate) fn mark(
        &mut self,
        discovery: &mut Discovery,
        snapshot: &Snapshot,
        is_programmed: impl Fn(&NamespacedName) -> bool,
    ) {
        let news = self.generation != Some(snapshot.generation) || discovery.has_changed();
        if discovery.pods().is_some() && (news || !self.unknown.is_empty()) {
            let marked = self.try_mark(discovery, snapshot, is_programmed);
            self.complain(marked, "tell the programs whose cgroups there are");
        }
    }

    /// Puts the gate in force: to be called whenever every pod has been tried, since before that nobody can
    /// tell what is only late.
    pub(crate) fn raise(&mut self, discovery: &Discovery) {
        self.hold_deferred();
        if self.raised {
            return;
        }
        let raised = match (self.config.mode, discovery.pods()) {
            (Some(mode), Some((id, level))) => self.gate.raise(mode, id, level).and_then(|()| {
                if self.config.timeout.is_zero() { Ok(()) } else { self.gate.watch() }
            }),
            _ => self.gate.lower(),
        };
        self.raised = self.complain(raised, "set up the startup gate");
    }

    /// Unknown cgroups are held no longer: nobody finds out whose they are.
    pub(crate) fn leave(&mut self) {
        self.gate.stop_watching();
        self.raised = false;
    }

    /// Reads the maps again, after another agent has written to them.
    pub(crate) fn read_again(&mut self) {
        let read = self.gate.read_again();
        self.complain(read, "read the marks of the startup gate again");
    }

    /// What the status page says, given the pods that are programmed.
    pub(crate) fn status(
        &self,
        discovery: &Discovery,
        is_programmed: impl Fn(&NamespacedName) -> bool,
    ) -> GateStatus {
        let held: BTreeSet<&NamespacedName> = self
            .claims
            .values()
            .filter(|claim| claim.mark == GateMark::Held)
            .filter_map(|claim| claim.owner.as_ref())
            .filter(|owner| !is_programmed(owner))
            .collect();
        GateStatus {
            state: GateState::new(self.config.mode.filter(|_| discovery.pods().is_some())),
            cgroup: self.config.pods.as_ref().map(|path| path.display().to_string()),
            held_pods: held.len(),
            unknown_cgroups: self.unknown.len(),
        }
    }

    /// Pods of the mesh by what they are held by.
    pub(crate) fn held(&self, snapshot: &Snapshot) -> BTreeMap<GateSubject, Arc<WorkloadInfo>> {
        let local: BTreeMap<_, _> =
            snapshot.local.iter().map(|workload| (&workload.name, workload)).collect();
        let of = |claim: &Claim| local.get(claim.owner.as_ref()?).copied().cloned();
        let held = self.claims.iter().filter(|(_, claim)| claim.mark == GateMark::Held);
        held.filter_map(|(subject, claim)| Some((*subject, of(claim)?))).collect()
    }

    fn try_mark(
        &mut self,
        discovery: &mut Discovery,
        snapshot: &Snapshot,
        is_programmed: impl Fn(&NamespacedName) -> bool,
    ) -> Result<(), DatapathError> {
        let cgroups = discovery.list()?;
        if self.config.mode.is_none() {
            self.generation = Some(snapshot.generation);
            return Ok(());
        }
        let owners = Owners::new(snapshot, &self.root, &self.config.exempt, is_programmed);
        let there: BTreeSet<u64> = cgroups.iter().map(|cgroup| cgroup.id).collect();
        self.given_up.retain(|id| there.contains(id));
        let found = owners.claims(&cgroups, &self.given_up);
        let before = std::mem::replace(&mut self.claims, found.claims);
        self.give_up_on(&found.strangers);
        self.known.retain(|id| there.contains(id));
        self.known.extend(found.known);
        self.generation = Some(snapshot.generation);
        // A running pod that joins the mesh is not late: what it has been doing it may do until it is
        // programmed, or cannot be.
        let joins = |subject: &GateSubject| {
            before.get(subject).is_some_and(|claim| claim.mark == GateMark::Open)
        };
        let mark = |(subject, claim): (&GateSubject, &Claim)| {
            let mark = if joins(subject) { GateMark::Open } else { claim.mark };
            (*subject, mark)
        };
        let marks: BTreeMap<GateSubject, GateMark> = self.claims.iter().map(mark).collect();
        self.deferred = self.claims.iter().any(|(subject, claim)| marks[subject] != claim.mark);
        self.gate.set_marks(&marks).map(drop)
    }

    /// Holds those too that were to be programmed in the meantime.
    fn hold_deferred(&mut self) {
        if self.deferred {
            let marks = self.claims.iter().map(|(subject, claim)| (*subject, claim.mark)).collect();
            let held = self.gate.set_marks(&marks).map(drop);
            self.deferred = !self.complain(held, "hold what could not be programmed");
        }
    }

    /// Opens the gate for what nobody describes in time. What has run before there was a gate is not
    /// late.
    fn give_up_on(&mut self, strangers: &BTreeSet<u64>) {
        let at_start = self.generation.is_none();
        let now = Instant::now();
        self.unknown.retain(|id, _| strangers.contains(id));
        for id in strangers {
            let since = *self.unknown.entry(*id).or_insert(now);
            let in_time = now.duration_since(since) < self.config.timeout;
            if at_start || !in_time || self.known.contains(id) {
                self.unknown.remove(id);
                self.given_up.insert(*id);
            }
        }
        for id in &self.given_up {
            let open = Claim { mark: GateMark::Open, owner: None };
            self.claims.entry(GateSubject::Cgroup(*id)).or_insert(open);
        }
    }

    /// Says what is wrong, once. Returns whether nothing is.
    fn complain(&mut self, result: Result<(), DatapathError>, tried: &'static str) -> bool {
        let Err(error) = result else {
            self.complaints.remove(tried);
            return true;
        };
        let complaint = error.to_string();
        if self.complaints.get(tried) != Some(&complaint) {
            tracing::error!(error = complaint, "cannot {tried}");
            self.complaints.insert(tried, complaint);
        }
        false
    }
}
