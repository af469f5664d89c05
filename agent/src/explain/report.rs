//! What an explanation says. Field names are API (docs/reference/explain.md).

use serde::{Deserialize, Serialize};
use undermesh_model::{ObjectName, ResourceRef};

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub(crate) verdict: Verdict,
    /// The code that flow records and metrics would have.
    pub(crate) reason: String,
    pub(crate) detail: String,
    /// What a request is answered with, where the mesh answers it.
    pub(crate) status: Option<u16>,
    /// Where it is decided.
    pub(crate) decided_at: String,
    pub(crate) source: End,
    pub(crate) destination: End,
    /// The address that the client dials.
    pub(crate) dialled: String,
    /// `GET /path`; empty for a connection.
    pub(crate) request: String,
    pub(crate) generation: u64,
    /// What comes first, whatever way it takes.
    pub(crate) steps: Vec<Step>,
    /// The ways that it may take then.
    pub(crate) ways: Vec<Way>,
    /// What is taken for granted.
    pub(crate) assumptions: Vec<String>,
    /// How that stands at the moment, where it is known.
    #[serde(default)]
    pub(crate) now: Vec<String>,
    /// What is wrong with the objects that are named.
    pub(crate) findings: Vec<String>,
}

/// Whether something would be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// It would.
    Carried,
    /// It would not.
    Refused,
    /// Some would, and some would not; or it cannot be told.
    Depends,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Refused => "refused",
            Self::Depends => "depends",
        }
    }
}

/// Who is at an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct End {
    /// `namespace/pod`, or the name that was dialled.
    pub(crate) name: String,
    /// Its address; empty where there are several.
    pub(crate) address: String,
    /// Empty for nobody of the mesh.
    pub(crate) identity: String,
    pub(crate) node: String,
    /// Why it is in the mesh, or is not.
    pub(crate) mesh: String,
}

/// One decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    /// Its name.
    pub(crate) step: String,
    /// Who decides: the kernel or the agent of a node.
    pub(crate) at: String,
    /// What comes of it.
    pub(crate) outcome: String,
    /// What has decided.
    pub(crate) won: Vec<Rule>,
    /// What has not, and why.
    pub(crate) lost: Vec<Rule>,
    /// What the kernel looks up.
    pub(crate) lookups: Vec<Lookup>,
}

/// A rule, and what it has to do with a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Name or place of the rule in its object; empty for the whole.
    pub(crate) rule: String,
    pub(crate) why: String,
}

impl Rule {
    pub(crate) fn new(
        object: &ResourceRef,
        rule: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            kind: object.kind.to_owned(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            rule: rule.into(),
            why: why.into(),
        }
    }

    /// The object, as users write it.
    pub(crate) fn object(&self) -> String {
        ObjectName { kind: &self.kind, namespace: &self.namespace, name: &self.name }.to_string()
    }
}

/// An entry of a BPF map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lookup {
    pub(crate) map: String,
    pub(crate) key: String,
    /// `none` where there is no entry.
    pub(crate) value: String,
}

/// One way that it may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Way {
    /// In how many of a hundred cases.
    pub(crate) percent: f64,
    /// The endpoints that it leads to.
    pub(crate) endpoints: Vec<String>,
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) status: Option<u16>,
    pub(crate) decided_at: String,
    pub(crate) steps: Vec<Step>,
    #[serde(skip)]
    pub(crate) assumptions: Vec<String>,
    #[serde(skip)]
    pub(crate) now: Vec<String>,
}

impl Way {
    /// Whether two ways differ in nothing but where they lead.
    fn is_like(&self, other: &Self) -> bool {
        let outcome = |way: &Self| (way.verdict, way.status);
        let kinds = |way: &Self| way.steps.iter().map(|step| step.step.clone()).collect::<Vec<_>>();
        outcome(self) == outcome(other)
            && (&self.reason, &self.detail) == (&other.reason, &other.detail)
            && self.decided_at == other.decided_at
            && kinds(self) == kinds(other)
    }
}

/// Adds what is not there yet.
pub(super) fn add(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
}

/// Puts those together that differ in nothing but where they lead; of each, the steps of the first stand for all.
pub(crate) fn gathered(ways: Vec<Way>) -> Vec<Way> {
    let mut kept: Vec<Way> = Vec::new();
    for way in ways {
        match kept.iter_mut().find(|known| known.is_like(&way)) {
            Some(known) => {
                known.percent += way.percent;
                add(&mut known.endpoints, way.endpoints);
                add(&mut known.assumptions, way.assumptions);
                add(&mut known.now, way.now);
            }
            None => kept.push(way),
        }
    }
    kept
}
