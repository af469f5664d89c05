//! The controller's dashboard: what agents and the API server say, put together for all nodes. It is asked for only
//! while somebody looks.
//!
//! ```text
//! agents     which there are, and what each says at its metrics port
//! ask        one request to one of them
//! counters   their counters as one
//! objects    policies, services and pods of the API server: what is about whom, and what is wrong
//! ```

mod agents;
mod ask;
mod counters;
mod objects;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::sync::{Notify, watch};
use undermesh_control::ApiServer;
use undermesh_snapshot::Options;

use super::{pages::Pages, settings::Settings};
use crate::{
    admin::{Answer, Pages as Answers},
    analyze::Found,
    dashboard::{self, Mesh},
    logging::Logging,
};
use agents::Agents;
use counters::Counters;

/// How long after the last question somebody is still taken to look.
const LOOKING: Duration = Duration::from_secs(15);
/// How often counters are asked for; what else agents say; and the API server.
const COUNTERS: Duration = Duration::from_secs(3);
const METRICS: Duration = Duration::from_secs(15);
const OBJECTS: Duration = Duration::from_secs(30);
/// A round is followed by a pause as many times as long as it took, however large the cluster is.
const REST: u32 = 2;

/// What is shown, and who looks.
pub(super) struct Dashboard {
    pages: Arc<Pages>,
    /// Absent where others than this pod could change it.
    logging: Option<Logging>,
    shown: Mutex<Shown>,
    looked: Mutex<Option<Instant>>,
    called: Notify,
}

#[derive(Default)]
struct Shown {
    counters: Counters,
    agents: agents::Said,
    mesh: Mesh,
    findings: Vec<Found>,
    /// Of the mesh, as it is shown.
    generation: u64,
    /// Why something cannot be shown, by what.
    problems: [Option<String>; 2],
}

impl Dashboard {
    pub(super) fn new(pages: Arc<Pages>, logging: Option<Logging>) -> Self {
        Self {
            pages,
            logging,
            shown: Mutex::default(),
            looked: Mutex::default(),
            called: Notify::new(),
        }
    }

    pub(super) fn answers(self: &Arc<Self>) -> Answers {
        let dashboard = Arc::clone(self);
        Arc::new(move |method, path, query| match (method, path) {
            (&Method::GET, "/") => dashboard::lead_there(),
            (&Method::GET, "/status") => dashboard.data(Self::status),
            (&Method::GET, "/edges") => {
                dashboard.data(|it| Answer::of(&it.shown().counters.edges()))
            }
            (&Method::GET, "/mesh") => dashboard.data(|it| Answer::of(&it.shown().mesh)),
            (&Method::GET, "/findings") => dashboard.data(|it| Answer::of(&it.shown().findings)),
            (_, "/logging" | "/logs") => match &dashboard.logging {
                Some(logging) => logging.page(method, path, query),
                None => Answer::text(
                    StatusCode::NOT_FOUND,
                    "the log is served only where dashboardAddress is at loopback\n",
                ),
            },
            _ => dashboard::page(method, path).unwrap_or_else(|| {
                let text = format!("there is {}\n", dashboard::PATH);
                Answer::text(StatusCode::NOT_FOUND, text)
            }),
        })
    }

    fn data(&self, make: impl Fn(&Self) -> Answer) -> Answer {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let began = !looked.is_some_and(is_recent);
        *looked = Some(Instant::now());
        drop(looked);
        if began {
            self.called.notify_waiters();
        }
        make(self)
    }

    fn status(&self) -> Answer {
        let shown = self.shown();
        let warnings: Vec<&String> = shown.problems.iter().flatten().collect();
        Answer::of(&json!({
            "controller": self.pages.status(),
            "generation": shown.generation,
            "nodes": shown.agents.nodes,
            "certificates": shown.agents.certificates,
            "policies": shown.agents.policies,
            "warnings": warnings,
        }))
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gathers while somebody looks, until `stop`.
    pub(super) async fn run(
        self: Arc<Self>,
        api: ApiServer,
        settings: Settings,
        mut stop: watch::Receiver<bool>,
    ) {
        let agents = Agents::new(api.clone(), &settings);
        let options = Options {
            trust_domain: settings.issuance.trust_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..Options::default()
        };
        let gather = async {
            tokio::join!(
                self.follow_counters(&agents),
                self.follow_metrics(&agents),
                self.follow_objects(&api, &options),
            )
        };
        tokio::select! {
            _ = gather => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn follow_counters(&self, agents: &Agents) {
        loop {
            self.somebody().await;
            let began = Instant::now();
            self.note(0, self.count(agents).await);
            rest(COUNTERS, began).await;
        }
    }

    async fn follow_metrics(&self, agents: &Agents) {
        loop {
            self.somebody().await;
            let began = Instant::now();
            let said = agents.say().await;
            self.shown().agents = said;
            rest(METRICS, began).await;
        }
    }

    async fn follow_objects(&self, api: &ApiServer, options: &Options) {
        loop {
            self.somebody().await;
            let began = Instant::now();
            self.note(1, self.read(api, options).await);
            rest(OBJECTS, began).await;
        }
    }

    /// Waits until somebody looks.
    async fn somebody(&self) {
        loop {
            let called = self.called.notified();
            let looked = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(is_recent) {
                return;
            }
            // Who has looked meanwhile is noticed a second later.
            let _ = tokio::time::timeout(Duration::from_secs(1), called).await;
        }
    }

    async fn count(&self, agents: &Agents) -> Result<(), String> {
        let found = agents.edges().await?;
        let mut shown = self.shown();
        // One that does not answer now goes on counting; one that is gone does not.
        shown.counters.keep(|agent| found.iter().any(|(known, _)| known == agent));
        for (agent, edges) in found {
            if let Some(edges) = edges {
                shown.counters.take(&agent, edges);
            }
        }
        Ok(())
    }

    async fn read(&self, api: &ApiServer, options: &Options) -> Result<(), String> {
        let (mut mesh, findings) = objects::read(api, options).await?;
        let mut shown = self.shown();
        mesh.generation = shown.generation;
        // 0 is what was never read.
        if mesh != shown.mesh || shown.generation == 0 {
            shown.generation += 1;
            mesh.generation = shown.generation;
            shown.mesh = mesh;
        }
        shown.findings = findings;
        Ok(())
    }

    fn note(&self, place: usize, done: Result<(), String>) {
        let problem = done.err();
        let mut shown = self.shown();
        let Some(known) = shown.problems.get_mut(place) else { return };
        if let (Some(error), true) = (&problem, *known != problem) {
            tracing::warn!(error, "the dashboard cannot show everything");
        }
        *known = problem;
    }
}

async fn rest(every: Duration, began: Instant) {
    tokio::time::sleep(every.max(began.elapsed() * REST)).await;
}

fn is_recent(looked: Instant) -> bool {
    looked.elapsed() < LOOKING
}
