//! What a route does with a request.

use std::sync::Arc;

use http::{HeaderValue, header::HOST};
use undermesh_model::{
    ResourceRef, Severity,
    traffic::{Backend, BackendRef, Dialect, HttpAction, HttpRule, Retries, RouteSet},
};

use super::Workshop;
use crate::{
    compile::traffic::clusters::Wanted,
    traffic::{ClusterSpec, CompiledRoute, HeaderEdits, RouteAction, Target, Weighted},
};

impl Workshop<'_, '_> {
    pub(super) fn route(
        &mut self,
        set: &RouteSet,
        rule: &HttpRule,
        position: usize,
    ) -> CompiledRoute {
        let mut headers = self.edits(set, &rule.headers);
        let action = match &rule.action {
            HttpAction::Forward(backends) => RouteAction::Forward(self.weighted(set, backends)),
            HttpAction::Redirect(redirect) => RouteAction::Redirect(redirect.clone()),
            HttpAction::Direct(response) => RouteAction::Direct(response.clone()),
        };
        let mirrors = rule.mirrors.iter();
        let mirrors = mirrors.map(|mirror| (self.target(set, &mirror.to), mirror.share)).collect();
        let retries = match (&rule.retries, set.dialect) {
            (Some(said), _) => Some(said.clone()),
            (None, Dialect::Istio) => Some(Retries::istio_default()),
            (None, Dialect::Gateway) => None,
        };
        CompiledRoute {
            origin: Arc::new(set.origin.clone()),
            name: match rule.name.as_str() {
                "" => position.to_string().into(),
                name => name.into(),
            },
            authority: self.authority(set, rule, &mut headers),
            path: self.path(set, rule),
            action,
            headers,
            timeout: rule.timeout,
            // Without attempts, what is left is how long the only one may take.
            retries: retries
                .filter(|retries| retries.attempts > 0 || retries.per_try_timeout.is_some()),
            fault: rule.fault.clone(),
            mirrors,
            cors: self.cors(set, rule),
        }
    }

    /// What the authority becomes: a rewrite comes before a change of the header `host`.
    fn authority(
        &mut self,
        set: &RouteSet,
        rule: &HttpRule,
        headers: &mut HeaderEdits,
    ) -> Option<HeaderValue> {
        let written = rule.rewrite.authority.as_ref();
        let written = written.and_then(|authority| self.value(set, "host", authority));
        let take = |pairs: &mut Vec<(http::HeaderName, HeaderValue)>| {
            let found =
                pairs.iter().find(|(name, _)| *name == HOST).map(|(_, value)| value.clone());
            pairs.retain(|(name, _)| *name != HOST);
            found
        };
        let (set, added) = (take(&mut headers.request_set), take(&mut headers.request_add));
        written.or(set).or(added)
    }

    /// Backends by weight. Where nobody has any, all requests get the answer for that.
    pub(in crate::compile::traffic) fn weighted(
        &mut self,
        set: &RouteSet,
        backends: &[Backend],
    ) -> Vec<Weighted> {
        if backends.iter().all(|backend| backend.weight == 0) {
            let target = Target::Unusable(unusable_status(set.dialect));
            return vec![Weighted { target, weight: 1, headers: HeaderEdits::default() }];
        }
        let weighted = |backend: &Backend| Weighted {
            target: self.target(set, &backend.to),
            weight: backend.weight,
            headers: self.edits(set, &backend.headers),
        };
        backends.iter().map(weighted).collect()
    }

    /// Where a backend leads. What leads nowhere is reported.
    fn target(&mut self, set: &RouteSet, to: &BackendRef) -> Target {
        let why = match to {
            BackendRef::Invalid(why) => why.clone(),
            BackendRef::Host { host, port, subset } => {
                let wanted = Wanted {
                    host,
                    port: *port,
                    subset: subset.as_deref().filter(|subset| !subset.is_empty()),
                    dialled: self.port,
                };
                match self.clusters.get(wanted, self.view) {
                    Ok(cluster) => return Target::Cluster(cluster),
                    Err(missing) => format!("{}: {missing}", described(wanted)),
                }
            }
        };
        let status = unusable_status(set.dialect);
        let message = format!("a destination cannot be used, requests for it get {status}: {why}");
        let remedy = "correct the destination, or create what it names";
        self.findings.tell(Severity::Error, &set.origin, "unusable-destination", message, remedy);
        Target::Unusable(status)
    }
}

fn described(wanted: Wanted<'_>) -> String {
    let port = wanted.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let subset = wanted.subset.map(|subset| format!(" subset {subset:?}")).unwrap_or_default();
    format!("{}{port}{subset}", wanted.host)
}

/// What requests get that are led nowhere.
fn unusable_status(dialect: Dialect) -> u16 {
    match dialect {
        Dialect::Istio => 503,
        Dialect::Gateway => 500,
    }
}

/// Everything goes to one destination, as Istio has it where no rule says otherwise.
pub(in crate::compile::traffic) fn default_route(
    origin: &ResourceRef,
    to: &Arc<ClusterSpec>,
) -> CompiledRoute {
    let action = RouteAction::Forward(vec![Weighted {
        target: Target::Cluster(Arc::clone(to)),
        weight: 1,
        headers: HeaderEdits::default(),
    }]);
    CompiledRoute {
        origin: Arc::new(origin.clone()),
        name: "default".into(),
        retries: Some(Retries::istio_default()),
        action,
        path: None,
        authority: None,
        headers: HeaderEdits::default(),
        timeout: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    }
}
