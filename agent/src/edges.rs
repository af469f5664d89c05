//! The admin page `/edges`: who has talked to whom, for dashboards and for `undermesh top`.

use serde::{Deserialize, Serialize};
use undermesh_telemetry::Edges;

use crate::admin::Answer;

/// The page. It says nothing that the metrics do not.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EdgesPage {
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) counted: Edges,
}

pub(crate) fn page(node: &str, counted: Edges) -> Answer {
    Answer::of(&EdgesPage { node: node.to_owned(), counted })
}
