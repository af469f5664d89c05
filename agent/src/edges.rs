//! The admin page `/edges`: who has talked to whom, for dashboards and for `undermesh top`.

use hyper::StatusCode;
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

/// Without line breaks: with thousands of edges they would be a third of it.
pub(crate) fn page(node: &str, counted: Edges) -> Answer {
    match serde_json::to_string(&EdgesPage { node: node.to_owned(), counted }) {
        Ok(body) => Answer::json(body),
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
