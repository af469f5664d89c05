//! What a rule about TLS leaves to others: names of servers, and what its `credentialName` stands for.
//!
//! **Invariant**: Secrets are those of the client's own namespace, so that nobody gets to use a key that the
//! owner of another namespace has put there.
//!
//! Source: Istio, `pilot/pkg/credentials/kube/secrets.go`: roots are those of the Secret with `-cacert` at its
//! end where there is one, else of the Secret itself.

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::{
    NamespacedName,
    traffic::{CA_SUFFIX, ClientTls, ClusterKey, KeyMaterial, SecretBytes, TlsMode, TlsSecret},
};

use super::{
    hosts::{Host, Source},
    inventory::Endpoints,
};

/// All Secrets that rules name.
pub(super) type Secrets = BTreeMap<NamespacedName, TlsSecret>;

/// Puts what Secrets hold in the place of their name, for clients of a namespace. What is missing stays
/// missed: whoever needs it cannot connect.
pub(super) fn fill_in(tls: &mut ClientTls, namespace: &str, secrets: &Secrets) {
    let Some(name) = &tls.credential else { return };
    let get = |name: &str| secrets.get(&NamespacedName::new(namespace, name));
    let (own, companion) = (get(name), get(&format!("{name}{CA_SUFFIX}")));
    let missing = |what: &str| match own {
        Some(_) => KeyMaterial::Missing(format!("Secret {namespace}/{name} has no {what}")),
        None => KeyMaterial::Missing(format!("Secret {namespace}/{name} does not exist")),
    };
    let found = |bytes: Option<&SecretBytes>, what: &str| match bytes {
        Some(bytes) => KeyMaterial::Inline(bytes.clone()),
        None => missing(what),
    };
    if !tls.insecure {
        let of = companion.or(own);
        tls.ca = Some(found(of.and_then(|secret| secret.ca.as_ref()), "ca.crt"));
        let crl = of.and_then(|secret| secret.crl.clone());
        tls.crl = crl.map(KeyMaterial::Inline);
    }
    if tls.mode == TlsMode::Mutual {
        let certificate = found(own.and_then(|secret| secret.certificate.as_ref()), "tls.crt");
        let key = found(own.and_then(|secret| secret.key.as_ref()), "tls.key");
        tls.client = Some((certificate, key));
    }
}

/// Whom a server is asked for as, and who it has to be, where the DestinationRule does not say it.
///
/// Source: Istio, `cluster_tls.go`, `BuildDNSSrvSubsetKey`, `PushContext.ServiceAccounts`.
pub(super) fn complete(
    tls: &mut ClientTls,
    host: &Host<'_>,
    key: &ClusterKey,
    found: &Endpoints<'_>,
) {
    let mesh = tls.mode == TlsMode::IstioMutual;
    if tls.subject_alt_names.is_empty() {
        let mut names = BTreeSet::new();
        if let Source::Entry(entry) = host.source {
            names.extend(entry.subject_alt_names.iter().cloned());
        }
        if mesh {
            let dns = found.dns.iter().map(|name| &name.found);
            let all = found.known.iter().chain(dns);
            names.extend(all.filter_map(|one| one.identity.as_ref()).map(ToString::to_string));
        }
        tls.subject_alt_names = names.into_iter().collect();
    }
    // A pattern is no name to ask for.
    if tls.sni.is_some() || key.host.starts_with('*') {
        return;
    }
    match host.source {
        _ if mesh => {
            let ClusterKey { host, port, subset, .. } = key;
            tls.sni = Some(format!("outbound_.{port}_.{subset}_.{host}"));
        }
        Source::External(external) => tls.sni = Some(external.host.clone()),
        Source::Service(_) | Source::Entry(_) => {}
    }
}
