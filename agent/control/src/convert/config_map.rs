//! ConfigMap, as far as the mesh is concerned: roots that certificates are verified with.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::{objects::Placed, report::Subject};

/// The key that the Gateway API looks for.
pub(crate) const CA_KEY: &str = "ca.crt";

/// What a ConfigMap says under `ca.crt`, if anything.
pub(crate) type Roots = Option<String>;

/// Reads a ConfigMap; all its other keys are somebody else's.
pub(crate) fn config_map(map: &ConfigMap, subject: &Subject<'_>) -> Placed<Roots> {
    let roots = map.data.as_ref().and_then(|data| data.get(CA_KEY)).cloned();
    Placed::new(roots, subject)
}
