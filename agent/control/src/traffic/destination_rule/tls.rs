//! `tls`: TLS towards hosts outside of the mesh.

use undermesh_model::traffic::{ClientTls, KeyMaterial, TlsMode};

use super::shapes::{self, Mode};
use crate::traffic::place::Place;

/// What Istio calls the roots of the system.
const SYSTEM: &str = "system";

/// Reads the settings.
pub(super) fn tls(at: &Place<'_>, shape: &shapes::ClientTls) -> ClientTls {
    let file = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let insecure = shape.insecure_skip_verify == Some(true);
    let credential = file(&shape.credential_name);
    let (certificate, key) = (file(&shape.client_certificate), file(&shape.private_key));
    let (ca, crl) = (file(&shape.ca_certificates), file(&shape.ca_crl));
    let ours = matches!(shape.mode, Mode::Simple | Mode::Mutual);
    if insecure
        && ours
        && (ca.is_some()
            || !shape.subject_alt_names.is_empty()
            || shape.mode == Mode::Simple && credential.is_some())
    {
        let what = "is true, and there is something to verify";
        let remedy = "remove caCertificates, subjectAltNames and credentialName, or this";
        at.field("insecureSkipVerify").refuse(what, remedy);
    }
    let any_file = certificate.is_some() || key.is_some() || ca.is_some() || crl.is_some();
    if ours && credential.is_some() && any_file {
        let what = "stands beside certificates that are files";
        at.field("credentialName").refuse(what, "write one of them");
    }
    if shape.mode == Mode::Mutual && credential.is_none() {
        for (name, file) in [("clientCertificate", &certificate), ("privateKey", &key)] {
            if file.is_none() {
                let remedy = "write the path of a file of the node";
                at.field(name).refuse("is missing, and MUTUAL needs it", remedy);
            }
        }
    }
    ClientTls {
        mode: mode(shape.mode),
        sni: file(&shape.sni),
        subject_alt_names: shape.subject_alt_names.clone(),
        ca: ca.filter(|path| path != SYSTEM).map(KeyMaterial::File),
        client: certificate
            .zip(key)
            .map(|(certificate, key)| (KeyMaterial::File(certificate), KeyMaterial::File(key))),
        crl: crl.map(KeyMaterial::File),
        credential: credential.filter(|_| ours),
        insecure,
    }
}

fn mode(shape: Mode) -> TlsMode {
    match shape {
        Mode::Disable => TlsMode::Disable,
        Mode::Simple => TlsMode::Simple,
        Mode::Mutual => TlsMode::Mutual,
        Mode::IstioMutual => TlsMode::IstioMutual,
    }
}
