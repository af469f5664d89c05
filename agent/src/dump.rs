//! `undermesh dump`: what the agent works with, as it has it now. Maps can be read without an agent, too: what one has
//! left behind is told by nobody else.

mod routes;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use hyper::StatusCode;
use serde_json::{Value, json};
use undermesh_datapath::{DatapathError, MapContents, READABLE_MAPS};

pub(crate) use routes::PortRoutes;

use crate::{admin::Answer, cli::DEFAULT_ADMIN, client, query, status::section};

/// Entries of one map that are read if nothing else is said.
const LIMIT: usize = 1000;
/// Most that may be asked for.
const MAX_LIMIT: usize = 1 << 20;
/// What of `/config_dump` is not the snapshot.
const OTHERS: [&str; 3] = ["proxy", "certificates", "trustedRoots"];

/// Options of `dump`.
#[derive(Args)]
pub(crate) struct DumpArgs {
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN, global = true)]
    admin: SocketAddr,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Everything below, as one JSON object.
    All,
    /// The number of the configuration in force.
    Generation,
    /// Workloads, services with their routes, and policies as the configuration was compiled.
    Snapshot(SnapshotArgs),
    /// What stands in the BPF maps, which is what programs decide by.
    Maps(MapsArgs),
    /// Workload certificates, without keys, as JSON.
    Certificates,
    /// Pods with their tunnels and connections, and destinations with their endpoints, as JSON.
    Pools,
}

#[derive(Args)]
struct SnapshotArgs {
    /// How to print it; `text` is services, ports and their routes, in words.
    #[arg(short, long, value_enum, default_value_t = SnapshotOutput::Json)]
    output: SnapshotOutput,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SnapshotOutput {
    /// For people.
    Text,
    /// For programs; stable field names.
    Json,
}

#[derive(Args)]
struct MapsArgs {
    /// Which maps; all of them if none is named.
    #[arg(value_name = "MAP", value_parser = READABLE_MAPS)]
    names: Vec<String>,
    /// Most entries of each.
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
    /// Read the pins below this directory instead of asking an agent.
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs; stable field names.
    Json,
}

/// Prints it.
pub(crate) fn run(args: &DumpArgs) -> Result<ExitCode> {
    let dump = || -> Result<Value> {
        Ok(serde_json::from_str(&client::get(args.admin, "/config_dump")?)?)
    };
    let printed = match &args.what {
        What::Generation => json!({"generation": dump()?["generation"]}),
        What::Snapshot(args) if args.output == SnapshotOutput::Text => {
            print!("{}", routes_in_words(dump()?)?);
            return Ok(ExitCode::SUCCESS);
        }
        What::Snapshot(_) => snapshot(dump()?),
        What::Certificates => {
            let dump = dump()?;
            json!({"certificates": dump["certificates"], "trustedRoots": dump["trustedRoots"]})
        }
        What::Pools => dump()?["proxy"].take(),
        What::All => {
            let mut dump = dump()?;
            let maps: Result<Vec<MapContents>> =
                READABLE_MAPS.iter().map(|name| ask_for(args.admin, name, LIMIT)).collect();
            dump["maps"] = serde_json::to_value(maps?)?;
            dump
        }
        What::Maps(maps) => return print_maps(args.admin, maps),
    };
    println!("{}", serde_json::to_string_pretty(&printed)?);
    Ok(ExitCode::SUCCESS)
}

fn snapshot(mut dump: Value) -> Value {
    if let Some(fields) = dump.as_object_mut() {
        fields.retain(|name, _| !OTHERS.contains(&name.as_str()));
    }
    dump
}

/// Ports without rules are those whose endpoints the kernel chooses from: `dump maps SERVICES BACKENDS` has them.
fn routes_in_words(mut dump: Value) -> Result<String> {
    let routes = dump["routes"].take();
    ensure!(!routes.is_null(), "the agent says nothing of routes; is it older?");
    let routes: Vec<PortRoutes> = serde_json::from_value(routes)?;
    let count = |what: &str| dump[what].as_object().map_or(0, serde_json::Map::len);
    let mut text = format!(
        "generation {}: {} addresses of workloads, {} of service ports, {} sets of rules\n",
        dump["generation"],
        count("workloads"),
        count("services"),
        routes.len()
    );
    for port in &routes {
        text += &format!("\n{port}");
    }
    Ok(text)
}

fn print_maps(admin: SocketAddr, args: &MapsArgs) -> Result<ExitCode> {
    ensure!((1..=MAX_LIMIT).contains(&args.limit), "--limit is from 1 to {MAX_LIMIT}");
    let named: Vec<&str> = match args.names.as_slice() {
        [] => READABLE_MAPS.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let read = |name: &&str| match &args.pin_dir {
        Some(dir) => Ok(MapContents::read(dir, name, args.limit)?),
        None => ask_for(admin, name, args.limit),
    };
    let maps = named.iter().map(read).collect::<Result<Vec<_>>>()?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&maps)?),
        Output::Table => maps.iter().for_each(|map| print!("{}", Table(map))),
    }
    Ok(ExitCode::SUCCESS)
}

/// A map, for people.
pub(crate) struct Table<'a>(pub(crate) &'a MapContents);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MapContents { name, max_entries, used, entries } = self.0;
        let title = format!("{name} ({used} of {max_entries})");
        let rows = entries.iter().map(|it| vec![it.key.clone(), it.value.clone()]);
        section(f, &title, &["KEY", "VALUE"], rows)?;
        match used.saturating_sub(entries.len()) {
            0 => Ok(()),
            more => writeln!(f, "  ({more} more; see --limit)"),
        }
    }
}

/// Asks an agent for a map.
///
/// # Errors
/// Where it does not answer, or has nothing to say.
fn ask_for(admin: SocketAddr, name: &str, limit: usize) -> Result<MapContents> {
    Ok(serde_json::from_str(&client::get(admin, &format!("/maps?name={name}&limit={limit}"))?)?)
}

/// `GET /maps?name=X[&limit=N]`.
pub(crate) fn map_page(pin_dir: &Path, query: &str) -> Answer {
    let (name, limit) = match question(query) {
        Ok(asked) => asked,
        Err(error) => return Answer::text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    };
    match MapContents::read(pin_dir, &name, limit) {
        Ok(map) => Answer::pretty(&map),
        Err(error @ DatapathError::NoSuchMap(_)) => {
            Answer::text(StatusCode::NOT_FOUND, format!("{error}\n"))
        }
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn question(query: &str) -> Result<(String, usize)> {
    let (mut name, mut limit) = (None, LIMIT);
    for (parameter, value) in query::pairs(query)? {
        match parameter {
            "name" => name = Some(value),
            "limit" => {
                limit = value.parse().ok().filter(|it| (1..=MAX_LIMIT).contains(it)).with_context(
                    || format!("limit is a number from 1 to {MAX_LIMIT}, not {value:?}"),
                )?;
            }
            _ => bail!("there is no parameter {parameter:?}; there are name and limit"),
        }
    }
    let name = name.with_context(|| format!("say which map: name={}", READABLE_MAPS.join("|")))?;
    Ok((name, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_is_wrong_is_answered_with_what_would_be_right() {
        let dir = Path::new("/nowhere");
        for (query, status, told) in [
            ("", 400, "say which map: name=SETTINGS|PODS"),
            ("name=PODS&limit=0", 400, "limit is a number from 1"),
            ("name=PODS&x=1", 400, "no parameter \"x\""),
            ("name=NOPE", 404, "there is no map \"NOPE\" to read; there are SETTINGS, PODS"),
            ("name=PODS", 500, "cannot open map PODS"),
        ] {
            let answer = map_page(dir, query);
            assert_eq!(answer.status.as_u16(), status, "{query}");
            assert!(answer.body.contains(told), "{query}: {}", answer.body);
        }
    }

    #[test]
    fn maps_are_shown_with_how_full_they_are_and_what_is_left_out() {
        let map = json!({"name": "PODS", "maxEntries": 1024, "used": 3, "entries": [{"key": "netns 7", "value": "10.0.0.1"}]});
        let text = Table(&serde_json::from_value(map).unwrap()).to_string();
        assert!(text.contains("PODS (3 of 1024)") && text.contains("netns 7  10.0.0.1"), "{text}");
        assert!(text.contains("(2 more; see --limit)"), "{text}");
    }

    #[test]
    fn a_snapshot_is_without_what_is_not_compiled() {
        let dump = json!({"generation": 1, "services": {}, "proxy": 1, "certificates": 1, "trustedRoots": 1});
        assert_eq!(snapshot(dump), json!({"generation": 1, "services": {}}));
    }
}
