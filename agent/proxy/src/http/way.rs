//! Where a request goes, and what a route changes about it and its answer.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use undermesh_model::traffic::Retries;
use undermesh_snapshot::traffic::{
    Client, ClusterSpec, CompiledRoute, HeaderEdits, Matched, PortTraffic, RequestView,
    RouteAction, Target, Weighted,
};

use super::{
    edits,
    head::{self, Head},
    local_reply::LocalReply,
    random, rewrite,
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
        for level in self.levels() {
            edits::request(&level, &mut head.parts.headers, &mut head.parts.uri);
        }
        if let Some(route) = self.route {
            rewrite::rewrite(route, self.path_len, head);
        }
    }

    /// Changes the answer as the route says.
    pub(crate) fn change_answer(&self, headers: &mut HeaderMap, upgraded: bool) {
        let protocol = headers.get(UPGRADE).cloned().filter(|_| upgraded);
        head::clean_answer(headers);
        for level in self.levels() {
            edits::response(&level, headers);
        }
        if let Some(protocol) = protocol {
            headers.insert(UPGRADE, protocol);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }

    /// Changes of headers, level by level. Istio makes those of an only destination the route's own, after
    /// the rule's; those of several are Envoy's weighted clusters', and come before the route's.
    fn levels(&self) -> Vec<Vec<&HeaderEdits>> {
        let rule = self.route.map(|route| &route.headers);
        let only = self.route.is_none_or(|route| match &route.action {
            RouteAction::Forward(targets) => targets.len() == 1,
            RouteAction::Redirect(_) | RouteAction::Direct(_) => true,
        });
        if only {
            vec![rule.into_iter().chain(self.edits).collect()]
        } else {
            self.edits.into_iter().chain(rule).map(|edits| vec![edits]).collect()
        }
    }

    /// What is tried again.
    pub(crate) fn retries(&self) -> Option<Retries> {
        match self.route {
            Some(route) => route.retries.clone(),
            None => Some(Retries::istio_default()),
        }
    }
}

/// The route of a request; `None` where there are none, and it goes where everything goes.
pub(crate) fn find<'a>(
    traffic: &'a PortTraffic,
    client: &Client<'_>,
    request: &RequestView<'_>,
) -> Result<Option<Matched<'a>>, LocalReply> {
    match traffic.http.find(client, request) {
        None if !traffic.http.is_empty() => Err(LocalReply::no_route()),
        found => Ok(found),
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
