//! The controller's one set of lists and watches, whose objects are distributed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    thread,
    time::Instant,
};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{catalogue::name_of, hub::Hub};
use crate::{
    kinds::{Kind, KindDescription},
    kubernetes::{
        Health, Timing,
        api::{Api, Trouble},
        backoff::Backoff,
        discovery::Served,
        inquiry::Inquiry,
        reflector::Change,
        running::{Message, Running},
        slot::{Slot, SlotId},
        state::State,
    },
    traffic::ISTIO_VERSIONS,
};

/// Messages of lists that wait to be read, and that are taken at once.
const INBOX: usize = 1024;
const BATCH: usize = 256;

/// What agents do not read themselves: it says how much they are to know.
static SIDECAR: Kind = Kind {
    description: KindDescription {
        kind: "Sidecar",
        api_versions: &ISTIO_VERSIONS,
        namespaced: true,
    },
    names: crate::names::is_subdomain,
    read: |_, _, _, _| Ok(()),
};

/// Reads what a [`Hub`] distributes.
#[derive(Clone)]
pub struct Collector {
    /// How to reach the API server; `None` for the account of the pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// How long things take.
    pub timing: Timing,
    /// Where it goes.
    pub hub: Hub,
    /// What it says of itself.
    pub health: Health,
}

impl Collector {
    /// Follows the server until it is told to stop, on a thread of its own.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("distribution".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = self.run() => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(())
    }

    async fn run(self) {
        self.health.begin();
        let backoff = Backoff::new(self.timing.first_retry, self.timing.longest_retry);
        let api = Api::reach(self.kubeconfig.as_deref(), backoff, &self.health).await;
        let (out, inbox) = mpsc::channel(INBOX);
        let running = Running::new(api, out, self.health.clone(), self.timing).also(&SIDECAR);
        let mut follower = Follower {
            timing: self.timing,
            hub: self.hub,
            health: self.health,
            running,
            lists: BTreeMap::new(),
            naming: State::new(""),
            naming_changed: false,
            discovered: false,
            inquiry: Inquiry::new(self.timing),
            complete: false,
        };
        follower.run(inbox).await;
    }
}

/// Names of the objects that a list has.
struct Content {
    kind: &'static Kind,
    names: HashSet<(String, String)>,
    complete: bool,
}

struct Follower {
    timing: Timing,
    hub: Hub,
    health: Health,
    running: Running,
    lists: BTreeMap<SlotId, Content>,
    /// Objects that name Secrets and ConfigMaps.
    naming: State,
    naming_changed: bool,
    discovered: bool,
    inquiry: Inquiry,
    complete: bool,
}

impl Follower {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Message>) {
        for slot in Slot::cluster().into_iter().chain([Slot::definitions()]) {
            self.begin(slot);
        }
        let mut messages = Vec::with_capacity(BATCH);
        loop {
            if self.inquiry.is_due() {
                self.running.discover();
            }
            let wait = match self.inquiry.next() {
                Some(at) => at.saturating_duration_since(Instant::now()),
                None => self.timing.discovery,
            };
            tokio::select! {
                read = inbox.recv_many(&mut messages, BATCH) => if read == 0 { return },
                () = tokio::time::sleep(wait) => {}
            }
            self.take(&mut messages);
            if std::mem::take(&mut self.naming_changed) {
                self.follow_names();
            }
            self.look_whether_complete();
        }
    }

    fn begin(&mut self, slot: Slot) {
        if let Some(kind) = slot.kind {
            let content = Content { kind, names: HashSet::new(), complete: false };
            self.lists.insert(slot.id.clone(), content);
            if names_others(kind) {
                self.naming.add(&slot);
            }
        }
        self.running.begin(slot);
    }

    fn end(&mut self, id: &SlotId) {
        self.running.end(id);
        self.naming_changed |= self.naming.lists.remove(id).is_some();
        let Some(content) = self.lists.remove(id) else { return };
        self.hub.change(|catalogue| {
            for (namespace, name) in &content.names {
                catalogue.remove(content.kind.description.kind, namespace, name);
            }
        });
    }

    /// What comes together is told together.
    fn take(&mut self, messages: &mut Vec<Message>) {
        let mut changes = Vec::with_capacity(messages.len());
        for message in messages.drain(..) {
            match message {
                Message::Discovered(found) => self.discovered(found),
                Message::Changed { slot, .. } if !self.running.contains(&slot) => {}
                Message::Changed { slot, change } => {
                    if slot == Slot::definitions().id || matches!(change, Change::Missing) {
                        self.inquiry.soon();
                    } else {
                        changes.push((slot, change));
                    }
                }
            }
        }
        let hub = self.hub.clone();
        hub.change(|catalogue| {
            for (slot, change) in changes {
                let Some(list) = self.lists.get_mut(&slot) else { continue };
                let kind = list.kind.description.kind;
                match &change {
                    Change::Listed(objects) => {
                        let mut names = HashSet::with_capacity(objects.len());
                        for object in objects {
                            catalogue.put(kind, object);
                            names.insert(owned(object));
                        }
                        for (namespace, name) in list.names.difference(&names) {
                            catalogue.remove(kind, namespace, name);
                        }
                        (list.names, list.complete) = (names, true);
                    }
                    Change::Applied(object) => {
                        catalogue.put(kind, object);
                        list.names.insert(owned(object));
                    }
                    Change::Deleted(object) => {
                        let (namespace, name) = name_of(object);
                        catalogue.remove(kind, namespace, name);
                        list.names.remove(&owned(object));
                    }
                    Change::Missing => {}
                }
                self.health.objects(&slot, list.names.len());
                if names_others(list.kind) {
                    self.naming.change(&slot, change);
                    self.naming_changed = true;
                }
            }
        });
    }

    fn discovered(&mut self, found: Result<Vec<Served>, Trouble>) {
        match found {
            Ok(served) => {
                self.health.problem(None);
                self.serve(&served);
                self.discovered = true;
                self.naming_changed = true;
                self.inquiry.answered();
            }
            Err(trouble) => {
                let problem = format!("cannot ask the API server which kinds it has: {trouble}");
                self.health.problem(Some(problem));
                self.inquiry.failed(self.running.retry(trouble.retry_after()));
            }
        }
    }

    /// Watches what is there now, and forgets what is there no more.
    fn serve(&mut self, served: &[Served]) {
        let slots: Vec<Slot> = served.iter().map(Slot::served).collect();
        for id in self.running.missing_from(&slots) {
            tracing::info!(kind = %id, "the API server has this kind no longer, or in another version");
            self.end(&id);
        }
        self.begin_new(slots);
    }

    /// Watches what other objects name.
    fn follow_names(&mut self) {
        let wanted = self.naming.named().slots();
        for id in self.running.unnamed_by(&wanted) {
            self.end(&id);
        }
        self.begin_new(wanted);
    }

    fn begin_new(&mut self, slots: Vec<Slot>) {
        for slot in slots {
            if !self.running.contains(&slot.id) {
                self.begin(slot);
            }
        }
    }

    /// Whether everything has been read. Once that was so, what is new keeps nothing else waiting.
    fn look_whether_complete(&mut self) {
        let missing: BTreeSet<&SlotId> =
            self.lists.iter().filter(|(_, list)| !list.complete).map(|(id, _)| id).collect();
        if self.complete || !self.discovered || !missing.is_empty() {
            return;
        }
        self.complete = true;
        self.health.complete();
        self.hub.complete();
        tracing::info!("every list is complete; what agents need is distributed");
    }
}

fn names_others(kind: &Kind) -> bool {
    matches!(kind.description.kind, "DestinationRule" | "BackendTLSPolicy")
}

fn owned(object: &Value) -> (String, String) {
    let (namespace, name) = name_of(object);
    (namespace.to_owned(), name.to_owned())
}
