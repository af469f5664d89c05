//! The answer: what all ways that a connection or request may take have in common, and what they rest on.

use std::collections::BTreeSet;

use undermesh_telemetry::path_as_logged;

use super::{
    question::RequestLine,
    report::{End, Explanation, Rule, Verdict, Way, add},
    trail::Trail,
    walk::Walk,
};

impl Walk<'_> {
    pub(super) fn report(
        &self,
        request: Option<&RequestLine>,
        common: Trail,
        ways: Vec<Way>,
    ) -> Explanation {
        let first = ways.first();
        let same = |of: fn(&Way) -> Verdict| ways.iter().all(|way| of(way) == of(&ways[0]));
        let agreed = !ways.is_empty() && same(|way| way.verdict);
        let verdict = if agreed { ways[0].verdict } else { Verdict::Depends };
        let alone = ways.len() == 1 || agreed;
        let word = |of: fn(&Way) -> String| {
            let found = first.filter(|_| alone).map(of);
            found.unwrap_or_else(|| "the ways that it may take differ".to_owned())
        };
        let (mut assumptions, mut now) = (common.assumptions, common.now);
        for way in &ways {
            add(&mut assumptions, way.assumptions.iter().cloned());
            add(&mut now, way.now.iter().cloned());
        }
        let each = ways.iter().flat_map(|way| &way.steps);
        now.extend(self.mesh.overload(each));
        let steps = ways.iter().flat_map(|way| &way.steps);
        let rules = steps.flat_map(|step| step.won.iter().chain(&step.lost));
        let objects: BTreeSet<String> = rules.map(Rule::object).collect();
        let destination = End {
            name: self.dialled.what.clone(),
            address: self.dialled.address.to_string(),
            ..End::default()
        };
        Explanation {
            verdict,
            reason: if alone { word(|way| way.reason.clone()) } else { "differs".to_owned() },
            detail: word(|way| way.detail.clone()),
            status: first.filter(|_| alone).and_then(|way| way.status),
            decided_at: first
                .filter(|_| alone)
                .map(|way| way.decided_at.clone())
                .unwrap_or_default(),
            source: self.source_end(),
            destination,
            dialled: self.dialled.address.to_string(),
            request: request
                .map(|one| format!("{} {}", one.method, path_as_logged(&one.target)))
                .unwrap_or_default(),
            generation: self.snapshot.generation.0,
            steps: common.steps,
            findings: self.mesh.findings_about(&objects),
            ways,
            assumptions,
            now,
        }
    }

    fn source_end(&self) -> End {
        use undermesh_model::Enrolment;
        let (Enrolment::Enrolled(mesh)
        | Enrolment::NotEnrolled(mesh)
        | Enrolment::Impossible(mesh)) = &self.source.enrolment;
        End {
            name: self.source.name.to_string(),
            address: self.from.to_string(),
            identity: self.client.as_ref().map(|one| one.identity.to_string()).unwrap_or_default(),
            node: self.node().to_owned(),
            mesh: mesh.clone(),
        }
    }
}
