//! The running agent's log: the admin pages `/logging` and `/logs`, and the command `log` that asks for them.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use undermesh_telemetry::LogHandle;

use crate::{
    admin::Answer,
    cli::DEFAULT_ADMIN,
    client,
    query::{self, Escaped},
};

/// Longest that a filter may be in force for a while.
const MAX_WHILE: Duration = Duration::from_secs(24 * 60 * 60);

/// Options of `log`.
#[derive(Args)]
pub(crate) struct LogArgs {
    /// The filter to put in force: a level (`debug`) or directives, module by module
    /// (`info,undermesh_proxy=debug,undermesh::agent::reload=trace`). Without one, the filter in force is shown.
    filter: Option<String>,
    /// Go back to the filter of the agent's start after this long, as `5m`.
    #[arg(long = "for", value_name = "DURATION", requires = "filter")]
    span: Option<String>,
    /// Go back to the filter of the agent's start.
    #[arg(long, conflicts_with = "filter")]
    reset: bool,
    /// Print the newest lines of the log, which the agent keeps in memory.
    #[arg(long, conflicts_with_all = ["filter", "reset"])]
    recent: bool,
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
}

/// What `/logging` says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter {
    /// In force.
    filter: String,
    /// At the agent's start, from `logLevel`.
    configured: String,
    /// Time until that is in force again; absent where nothing else was asked for, or for good.
    reset_in_seconds: Option<u64>,
}

/// Shows or changes the filter.
pub(crate) fn run(args: &LogArgs) -> Result<ExitCode> {
    if args.recent {
        print!("{}", client::get(args.admin, "/logs")?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.reset {
        client::post(args.admin, "/logging?reset=1")?;
    } else if let Some(filter) = &args.filter {
        let span = args.span.as_ref().map(|span| format!("&for={}", Escaped(span)));
        let path = format!("/logging?level={}{}", Escaped(filter), span.unwrap_or_default());
        client::post(args.admin, &path)?;
    }
    let said: Filter = serde_json::from_str(&client::get(args.admin, "/logging")?)?;
    println!("in force    {}", said.filter);
    println!("configured  {}", said.configured);
    if let Some(seconds) = said.reset_in_seconds {
        println!("goes back in {}", humantime::format_duration(Duration::from_secs(seconds)));
    }
    Ok(ExitCode::SUCCESS)
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

    /// `GET /logging`.
    pub(crate) fn filter(&self) -> Filter {
        let left = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs();
        Filter {
            filter: self.handle.filter(),
            configured: self.configured.to_string(),
            reset_in_seconds: self.reset_at().map(left),
        }
    }

    /// `GET /logs`.
    pub(crate) fn recent(&self) -> Answer {
        let (lines, forgotten) = self.handle.recent();
        let before = match forgotten {
            0 => String::new(),
            count => format!("({count} older lines are not kept)\n"),
        };
        Answer::text(StatusCode::OK, before + &lines)
    }

    /// `POST /logging?level=FILTER[&for=DURATION]`, or `?reset=1`.
    pub(crate) fn change(&self, query: &str) -> Answer {
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
