//! Whom policies with action CUSTOM ask, as the pods of a namespace reach them.

use std::{collections::HashMap, fmt, sync::Arc};

use undermesh_model::Authorizer;

use crate::traffic::ClusterSpec;

/// An authorizer, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerRoute {
    /// How it is asked.
    pub rule: Authorizer,
    /// Where.
    pub cluster: Arc<ClusterSpec>,
}

/// Why a provider cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAuthorizer {
    /// No MeshConfig that counts has it.
    Unknown,
    /// There is no such service, or it has no such port.
    Nowhere {
        /// The service's host.
        host: String,
        /// Its port.
        port: u16,
    },
}

impl fmt::Display for NoAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is not configured"),
            Self::Nowhere { host, port } => {
                write!(f, "there is no service {host} with TCP port {port}")
            }
        }
    }
}

/// All that the pods of this node may have to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorizers {
    by_namespace: HashMap<String, HashMap<String, Result<Arc<AuthorizerRoute>, NoAuthorizer>>>,
}

impl Authorizers {
    /// What a provider's name stands for to pods of a namespace.
    ///
    /// # Errors
    /// Why it stands for nothing.
    pub fn find(
        &self,
        namespace: &str,
        provider: &str,
    ) -> Result<&Arc<AuthorizerRoute>, NoAuthorizer> {
        let found = self.by_namespace.get(namespace).and_then(|all| all.get(provider));
        match found {
            Some(Ok(route)) => Ok(route),
            Some(Err(none)) => Err(none.clone()),
            None => Err(NoAuthorizer::Unknown),
        }
    }

    pub(crate) fn add(
        &mut self,
        namespace: &str,
        provider: &str,
        route: Result<Arc<AuthorizerRoute>, NoAuthorizer>,
    ) {
        let all = self.by_namespace.entry(namespace.to_owned()).or_default();
        all.insert(provider.to_owned(), route);
    }
}
