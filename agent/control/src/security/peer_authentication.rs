//! PeerAuthentication.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, de};
use undermesh_model::{self as model, MtlsMode, NamespacedName};

use super::{Selector, invalid, labels};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};

const KNOWN: [fields::Known; 4] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["selector", "mtls", "portLevelMtls"]),
    ("spec.selector", &["matchLabels"]),
    ("spec.mtls", &["mode"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PeerAuthentication {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<Selector>,
    mtls: Option<Mtls>,
    port_level_mtls: BTreeMap<Port, Mtls>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Mtls {
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl Mode {
    fn known(self) -> Option<MtlsMode> {
        match self {
            Self::Unset => None,
            Self::Disable => Some(MtlsMode::Disable),
            Self::Permissive => Some(MtlsMode::Permissive),
            Self::Strict => Some(MtlsMode::Strict),
        }
    }
}

/// A key of `portLevelMtls`: JSON knows text only, and people write numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
                match u16::try_from(number) {
                    Ok(port) if port > 0 => Ok(Port(port)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
                match text.parse() {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Reads a PeerAuthentication.
pub(crate) fn peer_authentication(
    object: &PeerAuthentication,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<model::PeerAuthentication> {
    fields::check(&KNOWN, subject, report);
    let PeerAuthentication { metadata, spec } = object;
    let selector = labels(spec.selector.as_ref());
    if spec.selector.is_some() && selector.is_empty() && !spec.port_level_mtls.is_empty() {
        let message = "portLevelMtls needs labels in its selector".to_owned();
        let path = ["spec", "selector"];
        invalid(report, subject, &path, message, "write selector.matchLabels");
    }
    let ports = spec.port_level_mtls.iter();
    let read = model::PeerAuthentication {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        selector,
        mode: spec.mtls.as_ref().and_then(|mtls| mtls.mode.known()),
        ports: ports.map(|(port, mtls)| (port.0, mtls.mode.known())).collect(),
    };
    Placed::new(read, subject)
}
