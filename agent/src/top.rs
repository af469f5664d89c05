//! `undermesh top`: who talks to whom and how well, live in a terminal, or once as a table or as JSON.
//!
//! Nothing is counted here: rates are of two reads of `/edges`.

mod live;
mod rates;
mod rows;
mod screen;

use std::{
    fmt,
    io::{IsTerminal as _, stdout},
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    cli::DEFAULT_ADMIN,
    client,
    edges::EdgesPage,
    status::{PodStatus, Status, section},
};
use rates::Rates;
use rows::{MEASURES, Sort, View};

/// Shorter is not worth what it costs the agent.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct TopArgs {
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// Time between two reads, which rates are of.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Read twice, print, and end: for scripts.
    #[arg(long)]
    once: bool,
    /// How to print it; `json` reads once.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// What to show first, or with `--once` alone.
    #[arg(long, value_enum)]
    view: Option<View>,
    /// Order of rows.
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    sort: Sort,
    /// Only what has to do with this namespace.
    #[arg(long)]
    namespace: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs; stable field names.
    Json,
}

/// Exit code 0 unless the agent does not answer.
pub(crate) fn run(args: &TopArgs) -> Result<ExitCode> {
    ensure!(args.interval >= SHORTEST, "--interval is 100ms or more");
    if args.once || args.output == Output::Json {
        once(args)?;
    } else if stdout().is_terminal() {
        live::run(args)?;
    } else {
        bail!("the output is no terminal: use --once, or -o json");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is read of the agent at one time.
struct Reading {
    page: EdgesPage,
    pods: Vec<PodStatus>,
}

impl Reading {
    fn take(admin: SocketAddr) -> Result<Self> {
        let page = client::get(admin, "/edges").context("the agent does not say who talks")?;
        let status: Status = serde_json::from_str(&client::get(admin, "/status")?)?;
        Ok(Self { page: serde_json::from_str(&page)?, pods: status.pods })
    }

    fn since(&self, former: &Self) -> Rates {
        Rates::between(&self.page.node, &former.page.counted, &self.page.counted)
    }
}

fn once(args: &TopArgs) -> Result<()> {
    let before = Reading::take(args.admin)?;
    thread::sleep(args.interval);
    let now = Reading::take(args.admin)?;
    let rates = now.since(&before);
    let views = args.view.map_or_else(|| View::ALL.to_vec(), |view| vec![view]);
    let shown = Shown { args, views, rates: &rates, pods: &now.pods };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&shown.json())?),
        Output::Table => print!("{shown}"),
    }
    Ok(())
}

/// What `--once` prints.
struct Shown<'a> {
    args: &'a TopArgs,
    views: Vec<View>,
    rates: &'a Rates,
    pods: &'a [PodStatus],
}

impl Shown<'_> {
    fn rows(&self, view: View) -> Vec<rows::Row> {
        let TopArgs { namespace, sort, .. } = self.args;
        rows::rows(view, self.rates, self.pods, namespace.as_deref(), *sort)
    }

    fn json(&self) -> Value {
        let mut all = json!({"node": self.rates.node, "seconds": self.rates.seconds});
        for view in &self.views {
            let rows = self.rows(*view);
            let rows: Vec<Value> = rows.iter().map(|row| rows::json(*view, row)).collect();
            all[view.title().to_lowercase()] = rows.into();
        }
        all
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Node {}, rates over {:.1} s", self.rates.node, self.rates.seconds)?;
        for view in &self.views {
            let heads = view.columns().iter().map(|(head, _)| *head);
            let heads: Vec<&str> = heads.chain(MEASURES).collect();
            let cells = |row: rows::Row| {
                let names = row.names.iter().map(|name| printable(name));
                names.chain(rows::cells(&row.measures)).collect()
            };
            section(f, view.title(), &heads, self.rows(*view).into_iter().map(cells))?;
        }
        Ok(())
    }
}

/// Names come from objects and from peers; none may tell a terminal what to do.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}
