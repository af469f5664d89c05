//! Asks DNS servers: those of the system that the agent runs in, or those that a setting names.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
    system_conf::parse_resolv_conf,
};
use tokio::time::Instant;

use super::answer::Reply;

/// Where the system says which servers it asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How often that is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Asks for addresses.
pub(super) struct Lookups {
    servers: Vec<SocketAddr>,
    system: Mutex<System>,
}

/// The resolver, and what it was made from.
#[derive(Default)]
struct System {
    resolver: Option<Result<Arc<TokioResolver>, String>>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl Lookups {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec(), system: Mutex::default() }
    }

    /// What DNS has to say about both families of a name. It is taken as a full one: nothing of the
    /// system's search list is appended.
    pub(super) async fn ask(&self, name: &str) -> (Reply, Reply) {
        let failed = |error: String| (Reply::Failed(error.clone()), Reply::Failed(error));
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => return failed(error),
        };
        let mut name = match Name::from_utf8(name) {
            Ok(name) => name,
            Err(error) => return failed(format!("it is no name of DNS: {error}")),
        };
        name.set_fqdn(true);
        tokio::join!(ask(&resolver, &name, RecordType::A), ask(&resolver, &name, RecordType::AAAA))
    }

    /// The resolver; a new one where the system's configuration has changed.
    fn resolver(&self) -> Result<Arc<TokioResolver>, String> {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = system.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN);
        if let Some(resolver) = system.resolver.clone().filter(|_| fresh) {
            return resolver;
        }
        system.looked = Some(Instant::now());
        let modified = fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok();
        if let Some(Ok(resolver)) = &system.resolver
            && (modified == system.modified || !self.servers.is_empty())
        {
            return Ok(Arc::clone(resolver));
        }
        system.modified = modified;
        let made = self.make().map(Arc::new);
        system.resolver = Some(made.clone());
        made
    }

    fn make(&self) -> Result<TokioResolver, String> {
        let (config, mut options) = match self.servers.as_slice() {
            [] => of_system()?,
            servers => {
                let servers = servers.iter().map(|server| name_server(*server)).collect();
                (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
            }
        };
        // Answers are kept by whoever asks; kept here as well, they would seem younger than they are.
        options.cache_size = 0;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().map_err(|error| format!("no resolver can be made: {error}"))
    }
}

fn of_system() -> Result<(ResolverConfig, ResolverOpts), String> {
    let text = fs::read(RESOLV_CONF).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
    parse_resolv_conf(text).map_err(|error| format!("{RESOLV_CONF}: {error}"))
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

async fn ask(resolver: &TokioResolver, name: &Name, family: RecordType) -> Reply {
    let found = match resolver.lookup(name.clone(), family).await {
        Ok(found) => found,
        Err(error) => return refused(&error),
    };
    let ttl = found.answers().iter().map(|record| record.ttl).min();
    let addresses: Vec<_> = found.answers().iter().filter_map(|record| of(&record.data)).collect();
    match (addresses.as_slice(), ttl) {
        ([], _) | (_, None) => Reply::Nothing,
        (_, Some(ttl)) => Reply::Found(addresses, Duration::from_secs(u64::from(ttl))),
    }
}

/// The address in a record, where there is one that can be dialled.
fn of(data: &RData) -> Option<IpAddr> {
    let address = match data {
        RData::A(address) => IpAddr::from(address.0),
        RData::AAAA(address) => IpAddr::from(address.0).to_canonical(),
        _ => return None,
    };
    Some(address).filter(|address| !address.is_unspecified() && !address.is_multicast())
}

fn refused(error: &NetError) -> Reply {
    match error {
        error if error.is_no_records_found() => Reply::Nothing,
        error => Reply::Failed(error.to_string()),
    }
}
