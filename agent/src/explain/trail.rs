//! The steps of one way while it is followed, and how it ends.

use std::net::SocketAddr;

use undermesh_proxy::explain::Refused;

use super::report::{Step, Verdict, Way, add};

/// Steps on a way, while it is followed.
#[derive(Clone, Default)]
pub(super) struct Trail {
    pub(super) steps: Vec<Step>,
    pub(super) assumptions: Vec<String>,
    /// What is so at the moment.
    pub(super) now: Vec<String>,
    /// In how many of a hundred cases.
    pub(super) percent: f64,
    /// What the client's kernel has said.
    pub(super) reason: &'static str,
}

/// How a way ends.
pub(super) struct Ending<'a> {
    pub(super) verdict: Verdict,
    pub(super) reason: &'a str,
    pub(super) detail: String,
    pub(super) status: Option<u16>,
}

impl Trail {
    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn assume(&mut self, what: impl Into<String>) {
        add(&mut self.assumptions, [what.into()]);
    }

    pub(super) fn now(&mut self, what: String) {
        add(&mut self.now, [what]);
    }

    /// The same way for a part of the cases.
    pub(super) fn part(&self, part: usize, whole: usize) -> Self {
        let percent = self.percent * part as f64 / whole.max(1) as f64;
        Self { percent, ..self.clone() }
    }

    pub(super) fn ends(self, endpoint: Option<SocketAddr>, end: Ending<'_>) -> Way {
        let decided_at = self.steps.last().map(|step| step.at.clone()).unwrap_or_default();
        Way {
            percent: self.percent,
            endpoints: endpoint.iter().map(ToString::to_string).collect(),
            verdict: end.verdict,
            reason: end.reason.to_owned(),
            detail: end.detail,
            status: end.status,
            decided_at,
            steps: self.steps,
            assumptions: self.assumptions,
            now: self.now,
        }
    }

    pub(super) fn refused(self, endpoint: Option<SocketAddr>, refused: Refused) -> Way {
        let Refused { reason, detail, status, .. } = refused;
        self.ends(endpoint, Ending { verdict: Verdict::Refused, reason, detail, status })
    }
}
