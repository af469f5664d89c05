//! Secret, as far as the mesh is concerned: certificates and keys for TLS towards hosts outside it.
//!
//! **Invariant**: nothing that a Secret holds gets into a finding or a log, and what is not needed is wiped
//! at once.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use undermesh_model::traffic::{SecretBytes, TlsSecret};
use zeroize::Zeroize;

use crate::{
    node::{Node, TypeError},
    objects::Placed,
    report::Subject,
};

/// Keys of a Secret of the type `kubernetes.io/tls`, and those that Istio takes as well and before them.
const CERTIFICATE: [&str; 2] = ["cert", "tls.crt"];
const KEY: [&str; 2] = ["key", "tls.key"];
const ROOTS: [&str; 2] = ["cacert", "ca.crt"];
const REVOKED: [&str; 2] = ["crl", "ca.crl"];

/// Reads a Secret; all its other keys are somebody else's.
pub(crate) fn secret(
    document: &Node,
    subject: &Subject<'_>,
) -> Result<Placed<TlsSecret>, TypeError> {
    // What is wrong with a value is told by showing it.
    let told = |error: TypeError| error.instead("is not as Secrets have it");
    let mut secret = document.read::<Secret>().map_err(told)?;
    let mut data = secret.data.take().unwrap_or_default();
    for (key, text) in secret.string_data.take().unwrap_or_default() {
        // As an API server does it.
        if let Some(mut former) = data.insert(key, ByteString(text.into_bytes())) {
            former.0.zeroize();
        }
    }
    let mut take = |keys: [&str; 2]| -> Option<SecretBytes> {
        keys.into_iter().find_map(|key| Some(data.remove(key)?.0.into()))
    };
    let read = TlsSecret {
        origin: subject.origin.clone(),
        certificate: take(CERTIFICATE),
        key: take(KEY),
        ca: take(ROOTS),
        crl: take(REVOKED),
    };
    data.values_mut().for_each(|value| value.0.zeroize());
    Ok(Placed::new(read, subject))
}
