//! What goes wrong on purpose.

use std::{collections::VecDeque, time::Duration};

use super::{answer::Refusal, call::Call};

/// What becomes of watches that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// They end as they do when their time is up.
    End,
    /// Their connections are cut in the middle of a line.
    Cut,
    /// They stay open, and nothing comes any more.
    Pause,
}

/// Requests that are answered with a refusal.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Verbs that it is about; all where there are none.
    pub verbs: Vec<String>,
    /// The resource, `plural` or `plural.group`; any where it is empty.
    pub resource: String,
    /// What is answered.
    pub refusal: Refusal,
    /// How many requests; `None` until the troubles are over.
    pub times: Option<usize>,
}

impl Trouble {
    /// Every request about a resource with one of these verbs, until the troubles are over.
    pub fn new(verbs: &[&str], resource: &str, refusal: Refusal) -> Self {
        Self {
            verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
            resource: resource.to_owned(),
            refusal,
            times: None,
        }
    }

    /// What a server says to who has no right to do this.
    pub fn forbidden(verbs: &[&str], resource: &str) -> Self {
        let message = format!("{resource} is forbidden: User \"test\" cannot do this");
        Self::new(verbs, resource, Refusal::new(403, "Forbidden", message))
    }

    /// So many requests only.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    fn is_about(&self, call: &Call) -> bool {
        let full = format!("{}.{}", call.plural, call.group);
        (self.verbs.is_empty() || self.verbs.contains(&call.verb))
            && (self.resource.is_empty() || self.resource == call.plural || self.resource == full)
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Watches of an earlier epoch have [`Self::fault`].
    pub(super) epoch: u64,
    pub(super) fault: Option<WatchFault>,
    /// Before each event of a watch.
    pub(super) delay: Duration,
    /// Before every answer.
    pub(super) latency: Duration,
    pub(super) troubles: VecDeque<Trouble>,
}

impl Faults {
    /// What becomes of a watch that began in this epoch.
    pub(super) fn of(&self, epoch: u64) -> Option<WatchFault> {
        self.fault.filter(|_| epoch < self.epoch)
    }

    /// The refusal that a call meets with.
    pub(super) fn meet(&mut self, call: &Call) -> Option<Refusal> {
        let at = self.troubles.iter().position(|trouble| trouble.is_about(call))?;
        let trouble = &mut self.troubles[at];
        let refusal = trouble.refusal.clone();
        if let Some(times) = &mut trouble.times {
            *times -= 1;
            if *times == 0 {
                self.troubles.remove(at);
            }
        }
        Some(refusal)
    }
}
