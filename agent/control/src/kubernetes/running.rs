//! The reflectors that run, and the other questions that are under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    Message, Timing,
    api::Api,
    backoff::Backoff,
    discovery,
    health::Health,
    reflector::Reflector,
    slot::{Slot, SlotId},
};

/// What runs.
pub(super) struct Running {
    api: Api,
    out: mpsc::Sender<Message>,
    health: Health,
    timing: Timing,
    streaming: Arc<AtomicBool>,
    backoff: Backoff,
    slots: BTreeMap<SlotId, (Slot, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Running {
    pub(super) fn new(
        api: Api,
        out: mpsc::Sender<Message>,
        health: Health,
        timing: Timing,
    ) -> Self {
        Self {
            api,
            out,
            health,
            streaming: Arc::new(AtomicBool::new(true)),
            backoff: Backoff::new(timing.first_retry, timing.longest_retry),
            timing,
            slots: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Begins to keep a list.
    pub(super) fn begin(&mut self, slot: Slot) {
        self.health.added(&slot.id);
        let reflector = Reflector {
            api: self.api.clone(),
            slot: slot.clone(),
            out: self.out.clone(),
            health: self.health.clone(),
            timing: self.timing,
            streaming: Arc::clone(&self.streaming),
            listed: AtomicBool::new(false),
        };
        let task = self.tasks.spawn(reflector.run());
        self.slots.insert(slot.id.clone(), (slot, task));
    }

    /// Ceases to keep a list.
    pub(super) fn end(&mut self, id: &SlotId) {
        if let Some((_, task)) = self.slots.remove(id) {
            task.abort();
            self.health.removed(id);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Asks which kinds there are; the answer comes as a message.
    pub(super) fn discover(&mut self) {
        let (api, out) = (self.api.clone(), self.out.clone());
        self.tasks.spawn(async move {
            let found = discovery::discover(&api).await;
            let _ = out.send(Message::Discovered(found)).await;
        });
    }

    /// How long to wait before discovery is asked again.
    pub(super) fn retry(&mut self, asked: Option<Duration>) -> Duration {
        self.backoff.next(asked)
    }

    pub(super) fn contains(&self, id: &SlotId) -> bool {
        self.slots.contains_key(id)
    }

    /// All lists that are kept.
    pub(super) fn ids(&self) -> impl Iterator<Item = &SlotId> {
        self.slots.keys()
    }

    /// Lists of kinds that a server may or may not have, and where they are.
    pub(super) fn discovered(&self) -> impl Iterator<Item = (&SlotId, &str)> {
        self.slots
            .values()
            .filter(|(slot, _)| slot.optional)
            .map(|(slot, _)| (&slot.id, slot.path.as_str()))
    }

    /// Lists that are kept because something names what is in them.
    pub(super) fn by_name(&self) -> impl Iterator<Item = &SlotId> {
        self.slots.values().filter(|(slot, _)| slot.by_name).map(|(slot, _)| &slot.id)
    }
}
