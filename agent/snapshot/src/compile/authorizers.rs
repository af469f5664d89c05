//! Whom CUSTOM policies ask: the MeshConfig that counts, and the services that it names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use undermesh_model::{
    Authorizer, Cluster, Diagnostic, MeshConfig, NamespacedName, PolicyAction, ResourceRef,
    Severity,
};

use super::traffic::Traffic;
use crate::{Authorizers, CompiledPolicy, NoAuthorizer, Options, authorizers::AuthorizerRoute};

/// The name of the MeshConfig that counts, in the root namespace.
const NAME: &str = "default";

/// Everything that the policies of this node's pods may have to ask.
pub(super) fn compile<'a>(
    cluster: &'a Cluster,
    options: &Options,
    policies: &HashMap<NamespacedName, Arc<CompiledPolicy>>,
    traffic: &mut Traffic<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Authorizers {
    let config = find(cluster, options, diagnostics);
    let known: BTreeMap<&str, &Authorizer> = config
        .iter()
        .flat_map(|config| &config.authorizers)
        .map(|authorizer| (authorizer.name.as_str(), authorizer))
        .collect();
    report(cluster, config, &known, traffic, diagnostics);
    let mut authorizers = Authorizers::default();
    let wanted: BTreeSet<(&str, &str)> = policies
        .iter()
        .flat_map(|(pod, policy)| {
            let providers = policy.custom.iter().filter_map(|one| one.provider.as_deref());
            providers.map(|provider| (pod.namespace.as_str(), provider))
        })
        .collect();
    for (namespace, provider) in wanted {
        let route = known.get(provider).ok_or(NoAuthorizer::Unknown);
        let route = route.and_then(|rule| route_to(rule, namespace, traffic));
        authorizers.add(namespace, provider, route);
    }
    authorizers
}

fn route_to(
    rule: &Authorizer,
    namespace: &str,
    traffic: &mut Traffic<'_>,
) -> Result<Arc<AuthorizerRoute>, NoAuthorizer> {
    let cluster = traffic.of_authorizer(rule, namespace).ok_or_else(|| nowhere(rule))?;
    Ok(Arc::new(AuthorizerRoute { rule: rule.clone(), cluster }))
}

fn nowhere(rule: &Authorizer) -> NoAuthorizer {
    NoAuthorizer::Nowhere { host: rule.host.clone(), port: rule.port }
}

/// The MeshConfig that counts; others have no effect.
fn find<'a>(
    cluster: &'a Cluster,
    options: &Options,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'a MeshConfig> {
    let root = &options.root_namespace;
    let counts = |config: &MeshConfig| config.name.name == NAME && config.name.namespace == *root;
    for config in cluster.mesh_configs.values().filter(|config| !counts(config)) {
        let message = format!("only the MeshConfig {NAME:?} of the root namespace {root} counts");
        tell(diagnostics, &config.origin, "no-effect", message, "write it there");
    }
    cluster.mesh_configs.values().find(|config| counts(config))
}

/// What nobody can be asked about, although policies want it.
fn report(
    cluster: &Cluster,
    config: Option<&MeshConfig>,
    known: &BTreeMap<&str, &Authorizer>,
    traffic: &Traffic<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let policies = cluster.authorization_policies.values();
    for policy in policies.filter(|policy| policy.action == PolicyAction::Custom) {
        let provider = policy.provider.as_deref().unwrap_or_default();
        if !known.contains_key(provider) {
            let message =
                format!("its provider {provider:?} is not configured: what it matches is refused");
            let remedy = "write it into the MeshConfig of the root namespace";
            tell(diagnostics, &policy.origin, "unknown-provider", message, remedy);
        }
    }
    let Some(config) = config else { return };
    for rule in known.values().filter(|rule| !traffic.knows_authorizer(rule)) {
        let (name, why) = (&rule.name, nowhere(rule));
        let message = format!("provider {name:?} cannot be asked: {why}");
        let remedy = "write the Service or ServiceEntry, or correct the provider";
        tell(diagnostics, &config.origin, "provider-without-service", message, remedy);
    }
}

fn tell(
    diagnostics: &mut Vec<Diagnostic>,
    object: &ResourceRef,
    code: &'static str,
    message: String,
    remedy: &str,
) {
    diagnostics.push(Diagnostic {
        severity: Severity::Warning,
        code,
        object: Some(object.clone()),
        position: None,
        message,
        remedy: remedy.to_owned(),
    });
}
