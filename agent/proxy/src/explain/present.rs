//! What a running agent has that no configuration says, for whoever asks what would become of something.

use std::sync::Arc;

use crate::proxy::Shared;

/// What is at hand at the moment, looked up when it is asked for: of an agent, what it has; of files, nothing.
#[derive(Clone, Default)]
pub struct Present(pub(crate) Option<Arc<Shared>>);
