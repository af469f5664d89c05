//! Where the connections come from that the agent delivers to a pod: a loopback address, or their
//! clients' own addresses.

use std::{sync::PoisonError, time::Duration};

use anyhow::Result;
use undermesh_datapath::Netns;
use undermesh_model::SourceAddress;
use undermesh_snapshot::WorkloadInfo;

use crate::{pod::Node, sockets::Transparently};

/// Added to the time that a connection may take: the kernel's last packet may come after that.
const GRACE: Duration = Duration::from_secs(1);

/// Where a pod's delivered connections come from.
pub(crate) enum Source {
    /// A loopback address.
    Translated,
    /// Their clients' own addresses.
    Transparent,
    /// The latter was asked for, and this is in the way. Traffic goes on, since an application
    /// that asks for its peer gets the same answer; what looks at packets does not.
    TranslatedInstead(String),
}

impl Source {
    /// Sets the pod's namespace up as the configuration wants it.
    pub(crate) fn prepare(node: &Node, netns: &Netns, workload: &WorkloadInfo) -> Self {
        if workload.source_address == SourceAddress::Translated {
            return Self::Translated;
        }
        match add_routes(node, netns, workload) {
            Ok(()) => Self::Transparent,
            Err(error) => {
                let problem = format!("{error:#}");
                tracing::error!(
                    pod = %workload.name,
                    error = problem,
                    "delivering with source address `translated` instead of `transparent`"
                );
                Self::TranslatedInstead(problem)
            }
        }
    }

    /// Sets it up again, after another agent has had the pod and may have tidied up.
    pub(crate) fn assert_again(&self, node: &Node, netns: &Netns, workload: &WorkloadInfo) {
        if matches!(self, Self::Transparent)
            && let Err(error) = add_routes(node, netns, workload)
        {
            let error = format!("{error:#}");
            tracing::error!(pod = %workload.name, error, "deliveries will find no way back");
        }
    }

    /// What the pod's sockets need.
    pub(crate) fn transparently(&self, node: &Node) -> Option<Transparently> {
        matches!(self, Self::Transparent).then(|| Transparently {
            deliveries: node.deliveries.clone(),
            valid: node.connect_timeout + GRACE,
        })
    }

    /// Why the pod is not served as the configuration wants it.
    pub(crate) fn problem(&self) -> Option<&String> {
        match self {
            Self::TranslatedInstead(problem) => Some(problem),
            _ => None,
        }
    }

    /// Lets go of what was set up; it goes when the last connection has ended that needs it.
    pub(crate) fn release(&self, node: &Node, netns_cookie: u64) {
        if matches!(self, Self::Transparent) {
            let mut routes = node.return_routes.lock().unwrap_or_else(PoisonError::into_inner);
            routes.release(netns_cookie);
        }
    }
}

fn add_routes(node: &Node, netns: &Netns, workload: &WorkloadInfo) -> Result<()> {
    let mut routes = node.return_routes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(routes.add(netns, &workload.addresses)?)
}
