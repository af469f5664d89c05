//! Where certificates come from: a directory of this host, or an authority at the other end of a network.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hyper::Uri;
use undermesh_identity::RemoteConfig;
use undermesh_model::TrustDomain;

use super::RawConfig;

/// The port of the controller, and of istiod.
const DEFAULT_PORT: u16 = 15012;
const DEFAULT_ROOTS: &str = "/var/run/secrets/undermesh/roots/root-cert.pem";
const DEFAULT_TOKEN: &str = "/var/run/secrets/undermesh/token/token";

impl RawConfig {
    /// The authority that is asked over the network, if one is.
    pub(super) fn remote_ca(
        &self,
        trust_domain: &TrustDomain,
        cluster: &str,
    ) -> Result<Option<RemoteConfig>> {
        let Some(text) = self.ca_address.as_deref().filter(|text| !text.is_empty()) else {
            for (name, is_set) in [
                ("caName", self.ca_name.is_some()),
                ("caRoots", self.ca_roots.is_some() && !self.asks_controllers()),
                ("caToken", self.ca_token.is_some() && !self.asks_controllers()),
            ] {
                ensure!(!is_set, "{name} has no effect without caAddress");
            }
            return Ok(None);
        };
        ensure!(
            self.ca_dir.is_none(),
            "caDir and caAddress are both set; certificates come from one of them"
        );
        let name = self.ca_name.as_ref();
        self.remote("caAddress", text, name, trust_domain, cluster).map(Some)
    }

    /// A server of the mesh, verified with its roots, to which the agent's token is shown.
    pub(super) fn remote(
        &self,
        setting: &str,
        text: &str,
        name: Option<&String>,
        trust_domain: &TrustDomain,
        cluster: &str,
    ) -> Result<RemoteConfig> {
        let uri: Option<Uri> = text.parse().ok();
        let is_plain = |uri: &Uri| {
            uri.scheme_str() == Some("https")
                && uri.path() == "/"
                && uri.query().is_none()
                && uri.authority().is_some_and(|it| !it.as_str().contains('@'))
        };
        let uri = uri.filter(is_plain).with_context(|| {
            format!("{setting}: {text:?} is not of the form https://HOST or https://HOST:PORT")
        })?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        Ok(RemoteConfig {
            name: name.cloned().unwrap_or_else(|| host.clone()),
            host,
            port,
            roots: self.ca_roots.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_ROOTS)),
            token: self.ca_token.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_TOKEN)),
            cluster: cluster.to_owned(),
            trust_domain: trust_domain.clone(),
        })
    }
}
