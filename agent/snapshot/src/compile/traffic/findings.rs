//! What is wrong with rules, said once however many ports and clients it is about.

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::{Diagnostic, ResourceRef, Severity};

/// Findings about rules.
#[derive(Debug, Default)]
pub(super) struct Findings {
    told: BTreeMap<(ResourceRef, &'static str, String), (Severity, String)>,
    overridden: BTreeMap<Overridden, (BTreeSet<u16>, BTreeSet<String>)>,
}

/// A rule that lost against another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Overridden {
    pub(super) loser: ResourceRef,
    pub(super) winner: ResourceRef,
    /// What of it is lost.
    pub(super) what: &'static str,
    pub(super) host: String,
    /// Why the other one won.
    pub(super) why: &'static str,
}

impl Findings {
    /// Notes a finding.
    pub(super) fn tell(
        &mut self,
        severity: Severity,
        object: &ResourceRef,
        code: &'static str,
        message: String,
        remedy: &str,
    ) {
        let key = (object.clone(), code, message);
        self.told.entry(key).or_insert_with(|| (severity, remedy.to_owned()));
    }

    /// Notes that a rule lost, for a port and for clients of a namespace.
    pub(super) fn lost(&mut self, what: Overridden, port: u16, namespace: &str) {
        let (ports, namespaces) = self.overridden.entry(what).or_default();
        ports.insert(port);
        namespaces.insert(namespace.to_owned());
    }

    /// All findings. `clients`: how many namespaces there are clients in.
    pub(super) fn report(self, clients: usize, diagnostics: &mut Vec<Diagnostic>) {
        for ((object, code, message), (severity, remedy)) in self.told {
            let object = Some(object);
            diagnostics.push(Diagnostic {
                severity,
                code,
                object,
                position: None,
                message,
                remedy,
            });
        }
        for (lost, (ports, namespaces)) in self.overridden {
            let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let mut what = format!("{} for {} port {ports}", lost.what, lost.host);
            if namespaces.len() < clients {
                let names: Vec<_> = namespaces.into_iter().collect();
                what = format!("{what}, towards clients of namespace {},", names.join(", "));
            }
            diagnostics.push(conflict(&lost.loser, &lost.winner, &what, lost.why));
        }
    }
}

/// A rule, or part of one, that has no effect because another one wins.
pub(super) fn conflict(
    loser: &ResourceRef,
    winner: &ResourceRef,
    what: &str,
    why: &str,
) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: "route-overridden",
        object: Some(loser.clone()),
        position: None,
        message: format!("{what} has no effect: {winner} wins, {why}"),
        remedy: "remove one of the two, or let the annotation undermesh.io/precedence decide"
            .to_owned(),
    }
}
