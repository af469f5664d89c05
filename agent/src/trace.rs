//! `undermesh trace`: one real connection of a pod, step by step, the next one or one that is made for it. The command asks
//! the admin page `/trace`, first to begin and then again and again for what is known; both ends are here.

mod far;
mod probe;
mod question;
mod report;
mod sessions;
mod view;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use hyper::{Method, StatusCode};
use undermesh_model::NamespacedName;
use undermesh_proxy::Wanted;

use crate::{admin::Answer, cli::DEFAULT_ADMIN, client, cluster::MeshArgs};
use probe::Probe;
pub(crate) use probe::{ProbeArgs, run as probe};
use question::Asked;
use report::{State, Trace};
pub(crate) use sessions::Sessions;
use sessions::{Session, send};
pub(crate) use view::Tracing;

/// How often the command asks.
const EVERY: Duration = Duration::from_millis(100);
/// How much longer than its time the command waits for the last answer.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct TraceArgs {
    /// The pod that dials: NAMESPACE/NAME, of this node and in the mesh.
    #[arg(value_name = "NAMESPACE/POD")]
    pod: String,
    /// Only a connection to this host, service, pod or address.
    #[arg(long, value_name = "HOST[:PORT]")]
    to: Option<String>,
    /// Make a connection from inside the pod, instead of waiting for one.
    #[arg(long, requires = "to")]
    send: bool,
    /// With --send: ask for something, METHOD PATH, on that connection.
    #[arg(long, num_args = 2, value_names = ["METHOD", "PATH"], requires = "send")]
    http: Option<Vec<String>>,
    /// Seconds to wait for a connection and its end, 300 at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    timeout: f64,
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// Also what the agent of the destination's node has recorded of it, through the cluster's API server.
    #[arg(long)]
    all_nodes: bool,
    #[command(flatten)]
    mesh: MeshArgs,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; stable field names.
    Json,
}

/// Exit code 0: it was carried; 1: it was refused, or there was none; 2: it cannot be traced.
pub(crate) fn run(args: &TraceArgs) -> Result<ExitCode> {
    look(args).or_else(|error| {
        eprintln!("error: {error:#}");
        Ok(ExitCode::from(2))
    })
}

fn look(args: &TraceArgs) -> Result<ExitCode> {
    let timeout = Duration::try_from_secs_f64(args.timeout).context("--timeout is no time")?;
    let request = match args.http.as_deref() {
        Some([method, path]) => Some((method.clone(), path.clone())),
        _ => None,
    };
    let to = args.to.clone().unwrap_or_default();
    let asked = Asked { pod: args.pod.clone(), to, send: args.send, request, timeout };
    let begun = client::post(args.admin, &format!("/trace?{}", asked.query()))?;
    let id = begun.trim().parse::<u64>();
    let id = id.with_context(|| format!("the agent at {} answers something else", args.admin))?;
    let deadline = Instant::now() + timeout + GRACE;
    let mut trace = loop {
        thread::sleep(EVERY);
        let json = client::get(args.admin, &format!("/trace?id={id}"))?;
        let trace: Trace = serde_json::from_str(&json)
            .with_context(|| format!("the agent at {} answers something else", args.admin))?;
        if trace.state != State::Waiting && trace.state != State::Open {
            break trace;
        }
        if Instant::now() > deadline {
            bail!("the agent at {} does not come to an end", args.admin);
        }
    };
    if args.all_nodes {
        trace.far = Some(far::ask(&args.mesh, &trace)?);
    }
    match args.output {
        Output::Text => print!("{trace}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&trace)?),
    }
    Ok(ExitCode::from(u8::from(!trace.carried)))
}

/// The page: POST begins a trace and answers its number, GET with `id` says what is known of it.
pub(crate) fn page(method: &Method, tracing: Option<Tracing>, query: &str) -> Answer {
    let Some(tracing) = tracing else {
        let text = "no configuration is in force yet\n";
        return Answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let answered = match (method, query.strip_prefix("id=")) {
        (&Method::GET, Some(id)) => known(&tracing, id).map(|trace| Answer::pretty(&trace)),
        (&Method::POST, None) => {
            begin(&tracing, query).map(|id| Answer::text(StatusCode::OK, format!("{id}\n")))
        }
        _ => {
            Err(anyhow::anyhow!("POST /trace?pod=... begins a trace, GET /trace?id=N asks for it"))
        }
    };
    answered.unwrap_or_else(|error| Answer::text(StatusCode::BAD_REQUEST, format!("{error:#}\n")))
}

fn known(tracing: &Tracing, id: &str) -> Result<Trace> {
    let number = id.parse().with_context(|| format!("id is a number, not {id:?}"))?;
    let session = tracing.sessions.find(number);
    let session = session.with_context(|| format!("there is no trace {number}, or no more"))?;
    let trace = tracing.look(&session)?;
    if trace.state == State::Ended {
        tracing.sessions.end(session.id);
    }
    Ok(trace)
}

fn begin(tracing: &Tracing, query: &str) -> Result<u64> {
    let asked = Asked::parse(query)?;
    let (namespace, name) = asked.pod.split_once('/').context("pod is NAMESPACE/NAME")?;
    let pod = NamespacedName::new(namespace, name);
    let netns = tracing.netns(&pod)?;
    let dialled = tracing.dialled(&asked)?;
    let address = dialled.as_ref().map(|(address, _)| *address);
    let wanted = Wanted {
        pod,
        address: address.map(|address| address.ip()),
        port: address.map(|address| address.port()),
        source: None,
    };
    let follower = tracing.proxy.follow(wanted);
    let after = tracing.telemetry.flows().after(None).next;
    let session: Arc<Session> = tracing.sessions.begin(asked, address, after, follower)?;
    if let (true, Some((to, host))) = (session.asked.send, dialled) {
        let request = session.asked.request.clone();
        let request = request.map(|(method, path)| (method, path, host));
        let timeout = session.asked.timeout;
        send(&session, Probe { netns, to, timeout, request });
    }
    Ok(session.id)
}
