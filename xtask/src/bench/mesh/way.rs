//! The ways through which the same work goes.

use serde::{Serialize, Serializer};

/// A way from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Way {
    /// No mesh, to another node
    NoMesh,
    /// No mesh, within a node
    NoMeshLocal,
    /// Undermesh within a node: the kernel's path
    Local,
    /// Undermesh to another node, mutual TLS
    L4,
    /// The same with a thousand services and ten thousand pods more in the manifests
    L4Services,
    /// Undermesh to another node, requests routed by a header
    L7,
    /// Envoy as sidecars, mutual TLS, TCP proxies
    EnvoyL4,
    /// Envoy as sidecars, mutual TLS, HTTP/2 between them, requests routed by a header
    EnvoyL7,
    /// Two relays that only copy bytes, in clear
    Floor,
}

impl Way {
    /// All of them, in the order of tables.
    pub(super) const ALL: [Self; 9] = [
        Self::NoMesh,
        Self::Floor,
        Self::L4,
        Self::L4Services,
        Self::EnvoyL4,
        Self::L7,
        Self::EnvoyL7,
        Self::NoMeshLocal,
        Self::Local,
    ];

    /// As it is named on the command line and in results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoMesh => "no-mesh",
            Self::NoMeshLocal => "no-mesh-local",
            Self::Local => "local",
            Self::L4 => "l4",
            Self::L4Services => "l4-services",
            Self::L7 => "l7",
            Self::EnvoyL4 => "envoy-l4",
            Self::EnvoyL7 => "envoy-l7",
            Self::Floor => "floor",
        }
    }

    /// A letter or two for the tags of rigs.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::NoMesh => "n",
            Self::NoMeshLocal => "nl",
            Self::Local => "ul",
            Self::L4 => "u4",
            Self::L4Services => "us",
            Self::L7 => "u7",
            Self::EnvoyL4 => "e4",
            Self::EnvoyL7 => "e7",
            Self::Floor => "f",
        }
    }

    /// What it is compared with: no mesh between the same places.
    pub(super) fn baseline(self) -> Self {
        match self {
            Self::NoMeshLocal | Self::Local => Self::NoMeshLocal,
            _ => Self::NoMesh,
        }
    }

    /// Whether client and server are on one node.
    pub(super) fn is_local(self) -> bool {
        self.baseline() == Self::NoMeshLocal
    }

    /// Whether the requests are routed, by their header, to the service's second version.
    pub(super) fn is_routed(self) -> bool {
        matches!(self, Self::L7 | Self::EnvoyL7)
    }

    /// Whether agents run.
    pub(super) fn is_undermesh(self) -> bool {
        matches!(self, Self::Local | Self::L4 | Self::L4Services | Self::L7)
    }

    /// Whether sidecars run.
    pub(super) fn is_envoy(self) -> bool {
        matches!(self, Self::EnvoyL4 | Self::EnvoyL7)
    }
}

impl Serialize for Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_way_is_listed_once_and_named_as_on_the_command_line() {
        let all: BTreeSet<Way> = Way::ALL.into_iter().collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), Way::value_variants());
        for way in Way::ALL {
            let named = way.to_possible_value().unwrap();
            assert_eq!(named.get_name(), way.name());
        }
        let tags: BTreeSet<&str> = Way::ALL.into_iter().map(Way::tag).collect();
        assert_eq!(tags.len(), Way::ALL.len());
    }
}
