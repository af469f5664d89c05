//! Where a request goes, and what a route changes about it and its answer.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use undermesh_model::traffic::Retries;
use undermesh_snapshot::traffic::{ClusterSpec, CompiledRoute, HeaderEdits, Target, Weighted};

use super::{
    edits,
    head::{self, Head},
    local_reply::LocalReply,
    random, retry, rewrite,
};

/// Where a request goes.
pub(crate) struct Way<'a> {
    pub(crate) route: Option<&'a CompiledRoute>,
    /// How many bytes of the path the route's match was about.
    pub(crate) path_len: usize,
    pub(crate) spec: &'a Arc<ClusterSpec>,
    /// Of the chosen target alone.
    pub(crate) edits: Option<&'a HeaderEdits>,
}

impl Way<'_> {
    /// Changes the request as the route says.
    pub(crate) fn change(&self, head: &mut Head) {
        for edits in [self.route.map(|route| &route.headers), self.edits].into_iter().flatten() {
            edits::request(edits, &mut head.parts.headers, &mut head.parts.uri);
        }
        if let Some(route) = self.route {
            rewrite::rewrite(route, self.path_len, head);
        }
    }

    /// Changes the answer as the route says.
    pub(crate) fn change_answer(&self, headers: &mut HeaderMap, upgraded: bool) {
        let protocol = headers.get(UPGRADE).cloned().filter(|_| upgraded);
        head::remove_hop_by_hop(headers);
        for edits in [self.edits, self.route.map(|route| &route.headers)].into_iter().flatten() {
            edits::response(edits, headers);
        }
        if let Some(protocol) = protocol {
            headers.insert(UPGRADE, protocol);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }

    /// What is tried again.
    pub(crate) fn retries(&self) -> Option<Retries> {
        match self.route {
            Some(route) => route.retries.clone(),
            None => Some(retry::by_default()),
        }
    }
}

/// One of the targets, by their weights.
pub(crate) fn choose(targets: &[Weighted]) -> Result<&Weighted, LocalReply> {
    let index = random::weighted(targets.iter().map(|target| target.weight));
    let chosen = index.and_then(|index| targets.get(index));
    chosen.ok_or_else(|| LocalReply::unusable(StatusCode::SERVICE_UNAVAILABLE.as_u16()))
}

/// The answer where a target is none.
pub(crate) fn unusable(target: &Target) -> LocalReply {
    match target {
        Target::Unusable(status) => LocalReply::unusable(*status),
        Target::Cluster(_) => LocalReply::no_route(),
    }
}
