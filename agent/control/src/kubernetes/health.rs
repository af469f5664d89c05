//! How the source is: what its lists are like, what has gone wrong, and how old what it knows is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{api::Trouble, slot::SlotId};

/// What a Kubernetes source says of itself. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    server: String,
    complete: bool,
    cached: Option<SystemTime>,
    problem: Option<String>,
    lists: BTreeMap<SlotId, List>,
}

#[derive(Clone, Debug, Default)]
struct List {
    objects: usize,
    complete: bool,
    heard: Option<Instant>,
    restarts: u64,
    relists: u64,
    problem: Option<String>,
}

/// A moment of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// The API server; empty where it is not known yet.
    pub server: String,
    /// Every list has been read, and what is in force came of that.
    pub complete: bool,
    /// When the state was written that is in force; `None` where it came from the server.
    pub cached: Option<SystemTime>,
    /// What is wrong with the whole of it.
    pub problem: Option<String>,
    /// Each list that is kept, by its name.
    pub lists: Vec<ListReport>,
}

/// One list that is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListReport {
    /// `pod/here`, `service`, `virtualservice`, `secret/NAME`.
    pub name: String,
    /// Objects in it.
    pub objects: usize,
    /// It has been read to its end.
    pub complete: bool,
    /// How long ago the server was last heard; `None` where it never was.
    pub silent_for: Option<Duration>,
    /// Watches that were opened again.
    pub restarts: u64,
    /// Lists that were read again.
    pub relists: u64,
    /// Why it is not up to date; `None` where it is.
    pub problem: Option<String>,
}

impl Health {
    /// How it is now.
    pub fn report(&self) -> HealthReport {
        let inner = self.lock();
        let lists = inner.lists.iter().map(|(id, list)| ListReport {
            name: id.as_str().to_owned(),
            objects: list.objects,
            complete: list.complete,
            silent_for: list.heard.map(|heard| heard.elapsed()),
            restarts: list.restarts,
            relists: list.relists,
            problem: list.problem.clone(),
        });
        HealthReport {
            server: inner.server.clone(),
            complete: inner.complete,
            cached: inner.cached,
            problem: inner.problem.clone(),
            lists: lists.collect(),
        }
    }

    pub(crate) fn begin(&self) {
        *self.lock() = Inner::default();
    }

    pub(crate) fn reached(&self, server: &str) {
        let mut inner = self.lock();
        inner.server = server.to_owned();
        inner.problem = None;
    }

    /// Says once what is wrong with the whole.
    pub(crate) fn problem(&self, problem: Option<String>) {
        let mut inner = self.lock();
        if inner.problem != problem {
            if let Some(problem) = &problem {
                tracing::warn!("{problem}; trying again");
            }
            inner.problem = problem;
        }
    }

    pub(crate) fn complete(&self) {
        let mut inner = self.lock();
        (inner.complete, inner.cached) = (true, None);
    }

    pub(crate) fn cached(&self, written: SystemTime) {
        self.lock().cached = Some(written);
    }

    pub(crate) fn added(&self, id: &SlotId) {
        self.lock().lists.entry(id.clone()).or_default();
    }

    pub(crate) fn removed(&self, id: &SlotId) {
        self.lock().lists.remove(id);
    }

    pub(crate) fn objects(&self, id: &SlotId, count: usize) {
        self.change(id, |list| list.objects = count);
    }

    pub(crate) fn listed(&self, id: &SlotId, count: usize) {
        self.change(id, |list| {
            list.complete = true;
            list.objects = count;
            list.heard = Some(Instant::now());
            list.problem = None;
        });
    }

    pub(crate) fn heard(&self, id: &SlotId) {
        self.change(id, |list| {
            list.heard = Some(Instant::now());
            list.problem = None;
        });
    }

    /// A server is heard that speaks for all lists.
    pub(crate) fn heard_all(&self) {
        for list in self.lock().lists.values_mut() {
            (list.complete, list.heard, list.problem) = (true, Some(Instant::now()), None);
        }
    }

    /// A stream that all lists come from was opened again.
    pub(crate) fn reconnected(&self) {
        self.lock().lists.values_mut().for_each(|list| list.restarts += 1);
    }

    pub(crate) fn restarted(&self, id: &SlotId) {
        self.change(id, |list| list.restarts += 1);
    }

    pub(crate) fn relisting(&self, id: &SlotId) {
        self.change(id, |list| list.relists += 1);
    }

    pub(crate) fn failed(&self, id: &SlotId, trouble: &Trouble) {
        let problem = trouble.to_string();
        self.change(id, |list| {
            if list.problem.as_ref() != Some(&problem) {
                tracing::warn!(list = %id, error = problem, "cannot be kept up to date; trying again");
                list.problem = Some(problem);
            }
        });
    }

    fn change(&self, id: &SlotId, change: impl FnOnce(&mut List)) {
        if let Some(list) = self.lock().lists.get_mut(id) {
            change(list);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
