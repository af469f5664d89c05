//! The way to an API server, for whoever follows it and for whoever asks it.

use std::{fmt, path::Path, time::Duration};

use kube::{
    Client,
    config::{Config, KubeConfigOptions, Kubeconfig},
};

/// Reads how to reach the server, and returns a client with the server's address; does not ask it anything. Without a
/// kubeconfig, the account of the pod that this runs in is used.
pub(crate) async fn connect(
    kubeconfig: Option<&Path>,
    connect_timeout: Duration,
) -> Result<(Client, String), String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let told = |error: &dyn fmt::Display| {
                format!("kubeconfig {} is not usable: {error}", path.display())
            };
            let read = Kubeconfig::read_from(path).map_err(|error| told(&error))?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(read, &options).await;
            config.map_err(|error| told(&error))?
        }
        None => Config::incluster().map_err(|error| {
            format!("no kubeconfig is set, and this is no pod of a cluster: {error}")
        })?,
    };
    config.connect_timeout = Some(connect_timeout);
    // Watches are silent for longer than any answer may take; whoever waits has a limit of its own.
    config.read_timeout = None;
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config)
        .map_err(|error| format!("cannot speak to the API server {server}: {error}"))?;
    Ok((client, server))
}

/// An error and what has led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
