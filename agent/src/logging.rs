//! The log of a running agent or controller: the pages `/logging` and `/logs`, and the command `log` that asks for them.

use std::{
    fmt,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use undermesh_telemetry::LogHandle;

use crate::{
    admin::Answer,
    client,
    cluster::{self, AdminArgs, Reach, RemoteArgs},
    query::{self, Escaped},
};

/// Longest that a filter may be in force for a while.
const MAX_WHILE: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest answer; more lines are not kept.
const MOST_LINES: usize = 1 << 20;

/// Options of `log`.
#[derive(Args)]
pub(crate) struct LogArgs {
    /// The filter to put in force: a level (`debug`) or directives, module by module
    /// (`info,undermesh_proxy=debug,undermesh::agent::reload=trace`). Without one, the filter in force is shown.
    filter: Option<String>,
    /// Go back to the filter of the start after this long, as `5m`.
    #[arg(long = "for", value_name = "DURATION", requires = "filter")]
    span: Option<String>,
    /// Go back to the filter of the start.
    #[arg(long, conflicts_with = "filter")]
    reset: bool,
    /// Print the newest lines of the log, which are kept in memory.
    #[arg(long, conflicts_with_all = ["filter", "reset"])]
    recent: bool,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// What `/logging` says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter {
    /// In force.
    filter: String,
    /// At the start, from `logLevel`.
    configured: String,
    /// Time until that is in force again; absent where nothing else was asked for, or for good.
    reset_in_seconds: Option<u64>,
}

/// Shows or changes the filter.
pub(crate) fn run(args: &LogArgs) -> Result<ExitCode> {
    if args.remote.is_wanted() {
        return cluster::run(run_there(args));
    }
    let admin = args.admin.here();
    if args.recent {
        print!("{}", client::get(admin, "/logs")?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(change) = args.change() {
        client::post(admin, &change)?;
    }
    let said: Filter = serde_json::from_str(&client::get(admin, "/logging")?)?;
    print!("{said}");
    Ok(ExitCode::SUCCESS)
}

/// The same of pods of a cluster. Exit code 1: one of them does not do it; the others do.
async fn run_there(args: &LogArgs) -> Result<ExitCode> {
    let api = args.remote.cluster.api().await?;
    let mut all_well = true;
    for place in args.remote.places(&api).await? {
        let (pod, node) = (&place.pod, &place.node);
        let port = args.remote.port(&place, args.admin);
        let mut reach = Reach::new(&api, args.remote.cluster.namespace(), pod, port);
        match ask_there(args, &mut reach).await {
            Ok(said) => print!("{pod} on node {node}\n{said}"),
            Err(error) => {
                eprintln!("{pod} on node {node}: {error:#}");
                all_well = false;
            }
        }
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask_there(args: &LogArgs, reach: &mut Reach) -> Result<String> {
    if args.recent {
        return reach.get("/logs", MOST_LINES).await;
    }
    if let Some(change) = args.change() {
        reach.post(&change).await?;
    }
    let said: Filter = serde_json::from_str(&reach.get("/logging", MOST_LINES).await?)?;
    Ok(said.to_string())
}

impl LogArgs {
    /// What is asked for, where anything is to change.
    fn change(&self) -> Option<String> {
        if self.reset {
            return Some("/logging?reset=1".to_owned());
        }
        let filter = self.filter.as_ref()?;
        let span = self.span.as_ref().map(|span| format!("&for={}", Escaped(span)));
        Some(format!("/logging?level={}{}", Escaped(filter), span.unwrap_or_default()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "in force    {}", self.filter)?;
        writeln!(f, "configured  {}", self.configured)?;
        match self.reset_in_seconds.map(Duration::from_secs) {
            Some(left) => writeln!(f, "goes back in {}", humantime::format_duration(left)),
            None => Ok(()),
        }
    }
}

/// The log of this process, its filter at the start, and when that comes back.
#[derive(Clone)]
pub(crate) struct Logging {
    handle: LogHandle,
    configured: Arc<str>,
    /// Of the last change: another one takes its place.
    reset: Arc<Mutex<Option<Instant>>>,
}

impl Logging {
    pub(crate) fn new(handle: LogHandle, configured: &str) -> Self {
        Self { handle, configured: configured.into(), reset: Arc::default() }
    }

    /// `/logging` and `/logs`, by whatever method.
    pub(crate) fn page(&self, method: &Method, path: &str, query: &str) -> Answer {
        match (method, path) {
            (&Method::GET, "/logging") => Answer::pretty(&self.filter()),
            (&Method::POST, "/logging") => self.change(query),
            (&Method::GET, "/logs") => self.recent(),
            _ => Answer::text(
                StatusCode::METHOD_NOT_ALLOWED,
                "there are GET and, of /logging, POST\n",
            ),
        }
    }

    /// `GET /logging`.
    fn filter(&self) -> Filter {
        let left = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs();
        Filter {
            filter: self.handle.filter(),
            configured: self.configured.to_string(),
            reset_in_seconds: self.reset_at().map(left),
        }
    }

    /// `GET /logs`.
    fn recent(&self) -> Answer {
        let (lines, forgotten) = self.handle.recent();
        let before = match forgotten {
            0 => String::new(),
            count => format!("({count} older lines are not kept)\n"),
        };
        Answer::text(StatusCode::OK, before + &lines)
    }

    /// `POST /logging?level=FILTER[&for=DURATION]`, or `?reset=1`.
    fn change(&self, query: &str) -> Answer {
        match self.try_change(query) {
            Ok(()) => Answer::text(StatusCode::OK, "changed\n"),
            Err(error) => Answer::text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
        }
    }

    fn try_change(&self, query: &str) -> Result<()> {
        let (mut filter, mut span, mut reset) = (None, None, false);
        for (name, value) in query::pairs(query)? {
            match name {
                "level" => filter = Some(value),
                "for" => span = Some(while_of(&value)?),
                "reset" => reset = value == "1",
                _ => bail!("parameter {name:?} is unknown; there are level, for and reset"),
            }
        }
        match (filter, reset) {
            (Some(filter), false) => {
                self.handle.set(&filter)?;
            }
            (None, true) => self.handle.set(&self.configured)?,
            _ => bail!("say which: /logging?level=debug, or /logging?reset=1"),
        }
        let at = span.map(|span| Instant::now() + span);
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner) = at;
        if let Some(at) = at {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                this.go_back(at);
            });
        }
        Ok(())
    }

    /// Unless somebody has said something else since.
    fn go_back(&self, at: Instant) {
        let mut reset = self.reset.lock().unwrap_or_else(PoisonError::into_inner);
        if *reset == Some(at) {
            *reset = None;
            if let Err(error) = self.handle.set(&self.configured) {
                tracing::warn!(%error, "the log's filter does not go back");
            }
        }
    }

    fn reset_at(&self) -> Option<Instant> {
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn while_of(text: &str) -> Result<Duration> {
    let span = humantime::parse_duration(text)
        .with_context(|| format!("for is a duration like 5m, not {text:?}"))?;
    match span {
        Duration::ZERO => bail!("for is longer than nothing"),
        span if span > MAX_WHILE => bail!("for is at most a day, not {text}"),
        span => Ok(span),
    }
}
