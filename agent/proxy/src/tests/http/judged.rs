//! The destination's edge: it judges requests, whoever routes them.

use std::sync::Arc;

use undermesh_model::{
    AuthorizationPolicy, NamespacedName, Operation, PathMatch, PolicyAction, ResourceRef, Rule,
    TextMatch, Values,
};
use undermesh_snapshot::{CompiledPolicy, Statement, WorkloadInfo};

use super::rig::Rig;

impl Rig {
    /// Has a pod's requests judged where they arrive: those for `/denied` are refused.
    pub(super) fn judged(&self, workload: &WorkloadInfo) {
        let denied = Values {
            any_of: vec![PathMatch::Text(TextMatch::parse("/denied"))],
            none_of: Vec::new(),
        };
        let policy = AuthorizationPolicy {
            origin: ResourceRef::namespaced("AuthorizationPolicy", "shop", "judge"),
            name: NamespacedName::new("shop", "judge"),
            action: PolicyAction::Deny,
            provider: None,
            selector: [].into(),
            dry_run: false,
            rules: vec![Rule {
                to: vec![Operation { paths: denied, ..Operation::default() }],
                ..Rule::default()
            }],
        };
        let deny = vec![Arc::new(Statement::new(&policy))];
        let policy = Arc::new(CompiledPolicy { deny, ..CompiledPolicy::default() });
        let name = workload.name.clone();
        self.mesh.configure(|snapshot| drop(snapshot.policies.insert(name, policy)));
    }
}
