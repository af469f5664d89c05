//! `undermesh dashboard`: says where the dashboard is, once it is known to be there. For one of a cluster, a port of this
//! machine leads to it for as long as the command runs.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
};
use undermesh_control::{ApiServer, Forwarded};

use super::PATH;
use crate::{
    agent, client,
    cluster::{self, AdminArgs, Place, Reach, RemoteArgs},
};

/// Connections that are carried at once; browsers open six.
const MAX_CONNECTIONS: usize = 32;
/// The page itself is far smaller.
const MOST: usize = 1 << 20;

#[derive(Args)]
pub(crate) struct DashboardArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Port at this machine's loopback that leads to the one of a cluster; 0 for any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Prints the address.
pub(crate) fn run(args: &DashboardArgs) -> Result<ExitCode> {
    if args.remote.is_wanted() {
        return cluster::run(lead_there(args));
    }
    let admin = args.admin.here();
    client::get(admin, PATH).context("there is no dashboard")?;
    println!("http://{admin}{PATH}");
    Ok(ExitCode::SUCCESS)
}

/// Leads to it until a signal.
async fn lead_there(args: &DashboardArgs) -> Result<ExitCode> {
    let api = args.remote.cluster.api().await?;
    let place = first(&args.remote, &api).await?;
    let (remote, admin) = (args.remote.clone(), args.admin);
    let way = Way { api, remote, admin, place: Mutex::new(place.clone()) };
    // Whether it is there, and may be had, is known before anybody opens a browser.
    way.reach(&place).get(PATH, MOST).await.context("there is no dashboard")?;
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await;
    let listener = listener.with_context(|| {
        format!("cannot listen at 127.0.0.1:{}; --port says where else", args.port)
    })?;
    println!("http://{}{PATH}", listener.local_addr()?);
    eprintln!("leads to pod {} on node {}, until Ctrl-C", place.pod, place.node);
    tokio::select! {
        () = serve(listener, Arc::new(way)) => {}
        signal = agent::wait_for_signal() => signal?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn first(remote: &RemoteArgs, api: &ApiServer) -> Result<Place> {
    remote.places(api).await?.into_iter().next().context("there is none")
}

/// To one of the pods that are meant.
struct Way {
    api: ApiServer,
    remote: RemoteArgs,
    admin: AdminArgs,
    place: Mutex<Place>,
}

impl Way {
    fn reach(&self, place: &Place) -> Reach {
        let port = self.remote.port(place, self.admin);
        Reach::new(&self.api, self.remote.cluster.namespace(), &place.pod, port)
    }

    /// A connection; to another pod, where the former one has gone.
    async fn connect(&self) -> Result<Forwarded> {
        let mut place = self.place.lock().await;
        match self.reach(&place).connect().await {
            Ok(connection) => Ok(connection),
            Err(error) => {
                let other = first(&self.remote, &self.api).await?;
                if other.pod == place.pod {
                    return Err(error);
                }
                eprintln!("leads to pod {} on node {} from now on", other.pod, other.node);
                *place = other;
                self.reach(&place).connect().await
            }
        }
    }
}

async fn serve(listener: TcpListener, way: Arc<Way>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let way = Arc::clone(&way);
                tokio::spawn(async move {
                    let _slot = slot;
                    carry(stream, &way).await;
                });
            }
            Err(error) => {
                eprintln!("cannot take a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// What is carried is not looked at: the other end judges by which name it is asked for, as if it were asked there.
async fn carry(mut local: TcpStream, way: &Way) {
    let carried = async {
        let mut remote = way.connect().await?;
        copy_bidirectional(&mut local, &mut remote).await.map_err(anyhow::Error::from)
    };
    if let Err(error) = carried.await {
        let is_browsers = error.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            )
        });
        if !is_browsers {
            eprintln!("a connection has failed: {error:#}");
        }
    }
}
