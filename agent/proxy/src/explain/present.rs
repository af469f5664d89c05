//! What a running agent has that no configuration says, for whoever asks what would become of something.

use std::sync::Arc;

use crate::{Step, proxy::Shared};

/// What is at hand at the moment, looked up when it is asked for: of an agent, what it has; of files, nothing.
#[derive(Clone, Default)]
pub struct Present(pub(crate) Option<Arc<Shared>>);

impl Present {
    /// What the agent gives up for want of something, in words; `None` where that is nothing.
    pub fn sheds(&self) -> Option<&'static str> {
        let step = self.0.as_ref()?.overload.status().step;
        (step != Step::None).then(|| step.sheds())
    }
}
