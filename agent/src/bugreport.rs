//! `undermesh bugreport`: one archive with what somebody needs who is to find out what is wrong on a node. What cannot be
//! had is said in it, and keeps nothing else out. Secrets do not get in ([`redact`]).

mod archive;
mod nodes;
mod redact;

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::json;
use undermesh_datapath::{MapContents, PinDirectory, READABLE_MAPS};

use crate::{
    client, cluster,
    config::{Outline, RawConfig},
    doctor,
    dump::Table,
};
use archive::Archive;
use nodes::Cluster;

/// Entries of one map that get in.
const MAP_ENTRIES: usize = 20_000;
/// Longest that the agent may take for one page.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pages of the agent, and what they are called in the archive.
const PAGES: [(&str, &str); 5] = [
    ("/status", "status.json"),
    ("/findings", "findings.json"),
    ("/config_dump", "config_dump.json"),
    ("/logging", "logging.json"),
    ("/logs", "agent.log"),
];

/// Files that say what node this is.
const FILES: [(&str, &str); 5] = [
    ("/proc/version", "node/kernel.txt"),
    ("/proc/cmdline", "node/cmdline.txt"),
    ("/proc/meminfo", "node/meminfo.txt"),
    ("/proc/self/mountinfo", "node/mounts.txt"),
    ("/etc/os-release", "node/os-release.txt"),
];

/// Commands whose output is the shortest way to what the node's network is like; they are on most nodes, and where they are
/// not, that is said.
const COMMANDS: [(&[&str], &str); 4] = [
    (&["ip", "address"], "node/addresses.txt"),
    (&["ip", "route", "show", "table", "all"], "node/routes.txt"),
    (&["ip", "rule"], "node/rules.txt"),
    (&["ss", "-tlnp"], "node/listeners.txt"),
];

/// Options of `bugreport`.
#[derive(Args)]
pub(crate) struct BugreportArgs {
    /// Where to write the archive; `-` for standard output [default: undermesh-bugreport-NODE-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out who has spoken to whom.
    #[arg(long)]
    no_flows: bool,
    /// What all agents and controllers of a cluster know, through its API server, in place of what this node is like.
    #[arg(long)]
    all_nodes: bool,
    /// With --all-nodes: namespace of the mesh's own pods.
    #[arg(long, value_name = "NAME", default_value = cluster::NAMESPACE)]
    mesh_namespace: String,
    /// The agent's configuration file; the settings below mean what they mean to the agent.
    #[arg(long, env = "UNDERMESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Box<RawConfig>,
}

/// Exit code 0: everything is in the archive; 1: something could not be had.
pub(crate) fn run(args: BugreportArgs) -> Result<ExitCode> {
    if args.all_nodes {
        return cluster::run(of_cluster(&args));
    }
    eprintln!("collecting: the node, with `undermesh doctor`");
    let (outline, doctor) = doctor::report(args.config.as_deref(), *args.settings)?;
    let mut archive = Archive::new(SystemTime::now())?;
    archive.json("doctor.json", &doctor);
    eprintln!("collecting: the agent at {}", outline.admin_address);
    ask_agent(&mut archive, &outline, !args.no_flows);
    eprintln!("collecting: BPF maps below {}", outline.pin_dir.display());
    read_maps(&mut archive, &outline.pin_dir);
    eprintln!("collecting: the node's network and kernel");
    look_at_node(&mut archive);
    let node = outline.node.clone().or_else(host).unwrap_or_else(|| "node".to_owned());
    finish(archive, &node, args.output)
}

async fn of_cluster(args: &BugreportArgs) -> Result<ExitCode> {
    let named = env::var_os("KUBECONFIG").map(PathBuf::from);
    let kubeconfig = args.settings.kubeconfig().or(named.as_deref());
    let api = cluster::api(kubeconfig).await?;
    let mut archive = Archive::new(SystemTime::now())?;
    let cluster = Cluster {
        api: &api,
        namespace: &args.mesh_namespace,
        admin: args.settings.admin_port(),
        flows: !args.no_flows,
    };
    cluster.collect(&mut archive).await;
    finish(archive, "cluster", args.output.clone())
}

/// Writes it; `node` is what it is about.
fn finish(mut archive: Archive, node: &str, output: Option<PathBuf>) -> Result<ExitCode> {
    let to_stdout = output.as_deref() == Some(Path::new("-"));
    let problems = archive.problems().to_vec();
    archive.json(
        "about.json",
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": node,
            "time": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            "missing": problems,
        })
        .to_string(),
    );
    let bytes = archive.finish()?;
    if to_stdout {
        use std::io::Write as _;
        std::io::stdout().lock().write_all(&bytes).context("cannot write the archive")?;
    } else {
        let path = output.unwrap_or_else(|| default_name(node));
        write_private(&path, &bytes)?;
        println!("{} ({} KiB)", path.display(), bytes.len().div_ceil(1024));
        eprintln!(
            "Secrets are left out as far as they can be known; addresses, names and paths are in it. Look before you send it."
        );
    }
    problems.iter().for_each(|problem| eprintln!("missing: {problem}"));
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn default_name(node: &str) -> PathBuf {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let time: String = time.chars().filter(char::is_ascii_alphanumeric).collect();
    let node: String = node
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .collect();
    PathBuf::from(format!("undermesh-bugreport-{node}-{time}.tar.gz"))
}

/// For its owner's eyes; never through a link that somebody has laid there.
fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let say = || format!("cannot write {}; is it there already?", path.display());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(say)?;
    file.write_all(bytes).with_context(say)
}

fn ask_agent(archive: &mut Archive, outline: &Outline, flows: bool) {
    let admin = outline.admin_address;
    if let Err(error) = client::get_within(admin, "/", PATIENCE) {
        return archive.missing("everything that the agent knows", &error);
    }
    for (page, name) in PAGES {
        let said = client::get_within(admin, page, PATIENCE);
        match said {
            Ok(text) if name.ends_with(".json") => archive.json(name, &text),
            Ok(text) => archive.text(name, &text),
            Err(error) => archive.missing(name, &error),
        }
    }
    if flows {
        match client::get_within(admin, "/flows", PATIENCE) {
            Ok(text) => archive.text("flows.ndjson", &text),
            Err(error) => archive.missing("flows.ndjson", &error),
        }
    }
    let metrics = reachable(outline.metrics_address);
    match client::get_within(metrics, "/metrics", PATIENCE) {
        Ok(text) => archive.text("metrics.txt", &text),
        Err(error) => archive.missing("metrics.txt", &error),
    }
}

/// Who listens everywhere is asked over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

fn read_maps(archive: &mut Archive, pin_dir: &Path) {
    let pins = PinDirectory::look(pin_dir);
    if !pins.sets.iter().any(|set| set.is_ours && set.maps > 0) {
        let nothing = anyhow!("nothing is pinned below {}", pin_dir.display());
        return archive.missing("maps", &nothing);
    }
    for map in READABLE_MAPS {
        let name = format!("maps/{map}.txt");
        match MapContents::read(pin_dir, map, MAP_ENTRIES) {
            Ok(contents) => archive.text(&name, &Table(&contents).to_string()),
            Err(error) => archive.missing(&name, &error.into()),
        }
    }
}

fn look_at_node(archive: &mut Archive) {
    for (path, name) in FILES {
        match fs::read_to_string(path).with_context(|| format!("cannot read {path}")) {
            Ok(text) => archive.text(name, &text),
            Err(error) => archive.missing(name, &error),
        }
    }
    for (command, name) in COMMANDS {
        match said_by(command) {
            Ok(text) => archive.text(name, &text),
            Err(error) => archive.missing(name, &error),
        }
    }
}

fn said_by(command: &[&str]) -> Result<String> {
    let [program, arguments @ ..] = command else { return Ok(String::new()) };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {}", command.join(" ")))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn host() -> Option<String> {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().filter(|name| !name.is_empty()).map(str::to_owned)
}
