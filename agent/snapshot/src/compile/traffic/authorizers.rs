//! The destination that an authorizer is, for the pods that ask it.

use std::sync::Arc;

use undermesh_model::{Authorizer, AuthorizerProtocol};

use super::{
    Traffic,
    hosts::{Host, HostPort},
    view::View,
};
use crate::traffic::{AppProtocol, ClusterSpec};

impl<'a> Traffic<'a> {
    /// Where pods of a namespace reach an authorizer, by the DestinationRules that they follow. One that looks
    /// at clients' labels holds as for a client that has none of them.
    pub(in crate::compile) fn of_authorizer(
        &mut self,
        rule: &Authorizer,
        namespace: &str,
    ) -> Option<Arc<ClusterSpec>> {
        let (host, port) = self.authorizer(rule)?;
        let view = View { namespace: namespace.to_owned(), ..View::default() };
        let mut spec = ClusterSpec::clone(&*self.clusters.whole(&host, &port, &view)?);
        // Its connections are not those that the pod's own calls use: what is spoken may differ.
        Arc::make_mut(&mut spec.key).subset = format!("ext_authz {}", rule.name);
        spec.protocol = match (&rule.protocol, spec.protocol) {
            (AuthorizerProtocol::Grpc, _) => AppProtocol::Grpc,
            (_, AppProtocol::Http2 | AppProtocol::Grpc) => AppProtocol::Http2,
            (_, AppProtocol::Http | AppProtocol::Auto | AppProtocol::Tcp | AppProtocol::Tls) => {
                AppProtocol::Http
            }
        };
        Some(Arc::new(spec))
    }

    /// Whether there is such a service, and such a port.
    pub(in crate::compile) fn knows_authorizer(&self, rule: &Authorizer) -> bool {
        self.authorizer(rule).is_some()
    }

    /// The Service, else the oldest ServiceEntry, whoever may see it.
    fn authorizer(&self, rule: &Authorizer) -> Option<(Host<'a>, HostPort<'a>)> {
        let all = self.clusters.hosts.all(&rule.host).iter();
        let wanted = |host: &&Host<'_>| {
            rule.namespace.as_ref().is_none_or(|namespace| host.namespace() == namespace)
        };
        let host = all.filter(wanted).max_by_key(|host| host.service().is_some())?.clone();
        let port = host.port(Some(rule.port), rule.port)?;
        Some((host, port))
    }
}
