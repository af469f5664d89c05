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
    Timing,
    api::{Api, Trouble},
    backoff::Backoff,
    discovery::{self, Served},
    health::Health,
    reflector::{Change, Reflector},
    slot::{Slot, SlotId},
};
use crate::kinds::Kind;

/// What reaches whoever follows a server.
pub(crate) enum Message {
    Changed { slot: SlotId, change: Change },
    Discovered(Result<Vec<Served>, Trouble>),
}

/// What runs.
pub(crate) struct Running {
    api: Api,
    out: mpsc::Sender<Message>,
    health: Health,
    timing: Timing,
    streaming: Arc<AtomicBool>,
    backoff: Backoff,
    slots: BTreeMap<SlotId, (Slot, AbortHandle)>,
    tasks: JoinSet<()>,
    /// A kind that is looked for beside those that sources read.
    also: Option<&'static Kind>,
}

impl Running {
    pub(crate) fn new(
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
            also: None,
        }
    }

    /// Looks for another kind as well.
    pub(crate) fn also(self, kind: &'static Kind) -> Self {
        Self { also: Some(kind), ..self }
    }

    /// Begins to keep a list.
    pub(crate) fn begin(&mut self, slot: Slot) {
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
    pub(crate) fn end(&mut self, id: &SlotId) {
        if let Some((_, task)) = self.slots.remove(id) {
            task.abort();
            self.health.removed(id);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Asks which kinds there are; the answer comes as a message.
    pub(crate) fn discover(&mut self) {
        let (api, out, also) = (self.api.clone(), self.out.clone(), self.also);
        self.tasks.spawn(async move {
            let found = discovery::discover(&api, also).await;
            let _ = out.send(Message::Discovered(found)).await;
        });
    }

    /// How long to wait before discovery is asked again.
    pub(crate) fn retry(&mut self, asked: Option<Duration>) -> Duration {
        self.backoff.next(asked)
    }

    pub(crate) fn contains(&self, id: &SlotId) -> bool {
        self.slots.contains_key(id)
    }

    /// All lists that are kept.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &SlotId> {
        self.slots.keys()
    }

    /// Lists of kinds that a server may or may not have, and does not have there any more.
    pub(crate) fn missing_from(&self, served: &[Slot]) -> Vec<SlotId> {
        let optional = self.slots.values().map(|(slot, _)| slot).filter(|slot| slot.optional);
        let is_missing =
            |slot: &&Slot| !served.iter().any(|it| it.id == slot.id && it.path == slot.path);
        optional.filter(is_missing).map(|slot| slot.id.clone()).collect()
    }

    /// Lists that are kept because something has named what is in them, and names it no more.
    pub(crate) fn unnamed_by(&self, wanted: &[Slot]) -> Vec<SlotId> {
        let named = self.slots.values().map(|(slot, _)| slot).filter(|slot| slot.by_name);
        let is_unwanted = |slot: &&Slot| !wanted.iter().any(|it| it.id == slot.id);
        named.filter(is_unwanted).map(|slot| slot.id.clone()).collect()
    }
}
