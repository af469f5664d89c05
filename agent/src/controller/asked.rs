//! What the certificate service asks the API server: whose tokens are, and where pods run.

use std::collections::BTreeSet;

use undermesh_control::{ApiError, ApiServer};
use undermesh_identity::issuance::{Account, Asked, Cluster, ClusterError, Reviewed};

pub(super) struct Kubernetes {
    api: ApiServer,
    audiences: Vec<String>,
}

impl Kubernetes {
    pub(super) fn new(api: ApiServer, audiences: Vec<String>) -> Self {
        Self { api, audiences }
    }
}

impl Cluster for Kubernetes {
    fn review<'a>(&'a self, token: &'a str) -> Asked<'a, Reviewed> {
        Box::pin(async move {
            let reviewed = self.api.review_token(token, &self.audiences).await;
            let owner = reviewed.map_err(unavailable)?.map_err(ClusterError::Refused)?;
            let (pod, node) = (owner.pod, owner.node);
            Ok(Reviewed { account: (owner.namespace, owner.account), pod, node })
        })
    }

    fn node_of<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        uid: &'a str,
    ) -> Asked<'a, Option<String>> {
        Box::pin(async move {
            let found = self.api.pod(namespace, pod).await.map_err(unavailable)?;
            let found = found.filter(|pod| pod.uid == uid && !pod.has_ended);
            Ok(found.map(|pod| pod.node).filter(|node| !node.is_empty()))
        })
    }

    fn accounts_on<'a>(&'a self, node: &'a str) -> Asked<'a, BTreeSet<Account>> {
        Box::pin(async move { self.api.accounts_on(node).await.map_err(unavailable) })
    }
}

fn unavailable(error: ApiError) -> ClusterError {
    ClusterError::Unavailable(error.to_string())
}
