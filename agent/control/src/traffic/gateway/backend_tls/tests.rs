//! Manifests in, nouns and findings out.

use undermesh_model::traffic::{BackendTls, ClientTls, KeyMaterial, TlsMode};

use crate::fixtures::{documents, load};

const WORLD: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: web, port: 80}, {name: raw, port: 90}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca, namespace: shop}
data: {ca.crt: '-----BEGIN CERTIFICATE----- a', other: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: more, namespace: shop}
data: {ca.crt: '-----BEGIN CERTIFICATE----- b'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: empty, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: text, namespace: shop}
data: {ca.crt: no certificate}
";
const CART: &str = "[{group: '', kind: Service, name: cart}]";
const SYSTEM: &str = "wellKnownCACertificates: System, hostname: a.example";

fn policy(targets: &str, validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: p, namespace: shop}}\n\
         spec:\n  targetRefs: {targets}\n  validation: {{{validation}}}\n"
    )
}

fn read(text: &str) -> (Vec<BackendTls>, Vec<String>) {
    let loaded = load(&documents(&[WORLD, text]));
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    (loaded.cluster.unwrap_or_default().backend_tls, said.collect())
}

fn quiet(targets: &str, validation: &str) -> Vec<BackendTls> {
    let (read, said) = read(&policy(targets, validation));
    assert_eq!(said, Vec::<String>::new());
    read
}

fn says(text: &str, expected: &str) -> Vec<BackendTls> {
    let (read, said) = read(text);
    assert!(said.len() == 1 && said[0].starts_with(expected), "{expected:?}: {said:#?}\n{text}");
    read
}

fn roots(read: &[BackendTls]) -> String {
    match read[0].tls.ca.as_ref().unwrap() {
        KeyMaterial::Inline(bytes) => String::from_utf8(bytes.expose().to_vec()).unwrap(),
        other => panic!("not in place: {other:?}"),
    }
}

#[test]
fn a_policy_says_how_endpoints_of_a_service_are_spoken_to() {
    let read = quiet(CART, SYSTEM);
    let wanted = ClientTls {
        mode: TlsMode::Simple,
        sni: Some("a.example".to_owned()),
        ..ClientTls::default()
    };
    assert_eq!(read.len(), 1);
    assert_eq!(
        (read[0].service.name.as_str(), read[0].port, &read[0].tls),
        ("cart", None, &wanted)
    );
    let older = policy(CART, SYSTEM).replace("/v1\n", "/v1alpha3\n");
    assert_eq!(super::super::TLS_POLICY_VERSIONS.len(), 2);
    let metadata = "name: p, namespace: shop, creationTimestamp: '1970-01-01T00:01:00Z', \
                    annotations: {undermesh.io/precedence: '7'}";
    let (read, said) = self::read(&older.replace("name: p, namespace: shop", metadata));
    assert_eq!((read[0].created, read[0].precedence, said.len()), (60, 7, 0));
}

#[test]
fn sections_are_ports() {
    let targets = "[{group: '', kind: Service, name: cart, sectionName: raw},
        {group: '', kind: Service, name: cart, sectionName: web}]";
    let ports: Vec<_> = quiet(targets, SYSTEM).iter().map(|one| one.port).collect();
    assert_eq!(ports, [Some(90), Some(80)]);
    let targets = "[{group: '', kind: Service, name: cart, sectionName: none}]";
    let message = "Warning unknown-target: Service shop/cart has no port named \"none\"";
    assert_eq!(says(&policy(targets, SYSTEM), message), []);
    let targets = "[{group: '', kind: Service, name: none}]";
    let message = "Warning unknown-target: Service shop/none does not exist";
    assert_eq!(says(&policy(targets, SYSTEM), message), []);
}

#[test]
fn roots_come_from_config_maps() {
    let refs = "hostname: a.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca},
        {group: '', kind: ConfigMap, name: more}]";
    let read = quiet(CART, refs);
    assert_eq!(roots(&read), "-----BEGIN CERTIFICATE----- a\n-----BEGIN CERTIFICATE----- b");
}

#[test]
fn roots_that_are_not_there_leave_nobody_to_trust() {
    for (kind, name, message) in [
        ("ConfigMap", "none", "ConfigMap shop/none does not exist"),
        ("ConfigMap", "empty", "ConfigMap shop/empty has no key \"ca.crt\""),
        ("ConfigMap", "text", "\"ca.crt\" of ConfigMap shop/text is no certificate in PEM"),
        ("Secret", "ca", "spec.validation.caCertificateRefs[0]: Secret of group"),
    ] {
        let refs = format!(
            "hostname: a.example, caCertificateRefs: [{{group: '', kind: {kind}, name: {name}}}]"
        );
        let read = says(&policy(CART, &refs), &format!("Warning invalid-ca-reference: {message}"));
        assert_eq!(roots(&read), "", "{name}");
    }
}

#[test]
fn names_are_hosts_and_uris() {
    let names = "subjectAltNames: [{type: Hostname, hostname: '*.b.example'},
        {type: URI, uri: 'spiffe://a/b'}]";
    let read = quiet(CART, &format!("{SYSTEM}, {names}"));
    assert_eq!(read[0].tls.subject_alt_names, ["*.b.example", "spiffe://a/b"]);
}

#[test]
fn what_validation_refuses_is_refused() {
    let twice = "[{group: '', kind: Service, name: cart}, {group: '', kind: Service, name: cart, sectionName: web}]";
    let ca = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
    for (targets, validation, message) in [
        ("[]", SYSTEM.to_owned(), "spec.targetRefs: has 0 items"),
        (CART, "hostname: a.example".to_owned(), "spec.validation: one of"),
        (CART, format!("{SYSTEM}, {ca}"), "spec.validation: one of"),
        (
            CART,
            "wellKnownCACertificates: Mine, hostname: a.example".to_owned(),
            "spec.validation.wellKnownCACertificates: \"Mine\" is not known",
        ),
        (
            CART,
            "wellKnownCACertificates: System, hostname: '*.example'".to_owned(),
            "spec.validation.hostname: \"*.example\" is no full name",
        ),
        (
            CART,
            format!("{SYSTEM}, subjectAltNames: [{{type: URI, hostname: a.example}}]"),
            "spec.validation.subjectAltNames[0]: URI goes with uri",
        ),
        (
            CART,
            format!("{SYSTEM}, subjectAltNames: [{{type: URI, uri: nothing}}]"),
            "spec.validation.subjectAltNames[0].uri: \"nothing\" is none",
        ),
    ] {
        says(
            &policy(targets, &validation),
            &format!("Error invalid-backend-tls-policy: {message}"),
        );
    }
    let (_, said) = read(&policy(twice, SYSTEM));
    let error = "Error invalid-backend-tls-policy: spec.targetRefs[0]: Service cart is named twice";
    assert_eq!(said[0], error);
}

#[test]
fn what_is_not_supported_is_said() {
    let targets = "[{group: networking.istio.io, kind: ServiceEntry, name: cart}]";
    let message = "Warning unsupported-target: spec.targetRefs[0]: ServiceEntry of group";
    assert_eq!(says(&policy(targets, SYSTEM), message), []);
    let text = policy(CART, SYSTEM) + "  options: {a.example/b: c}\n";
    let message = "Warning unsupported-field: spec.options: is not supported";
    assert_eq!(says(&text, message).len(), 1);
}
