//! Tickets of TLS sessions that a client may resume. Each is used once; connections that are made at
//! the same time need one each, and more of them than rustls's own store keeps.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// Tickets that are kept for one address.
const PER_SERVER: usize = 32;
/// Addresses that tickets are kept for. A store serves one pair of identities, and behind one
/// identity may be all replicas of a workload.
const SERVERS: usize = 64;

/// The tickets of one client configuration; they are forgotten with it.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<ServerName<'static>, Server>>);

#[derive(Default)]
struct Server {
    /// The key exchange that it has chosen last.
    group: Option<NamedGroup>,
    /// Oldest first.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, Server>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is kept for a server, making room for it where there is none.
    fn edit(&self, name: ServerName<'static>, edit: impl FnOnce(&mut Server)) {
        let mut servers = self.lock();
        if servers.len() >= SERVERS && !servers.contains_key(&name) {
            let other = servers.keys().next().cloned();
            other.map(|other| servers.remove(&other));
        }
        edit(servers.entry(name).or_default());
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.edit(name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().get(name)?.group
    }

    /// TLS 1.2 is not spoken.
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.edit(name, |server| {
            if server.tickets.len() >= PER_SERVER {
                server.tickets.pop_front();
            }
            server.tickets.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().get_mut(name)?.tickets.pop_back()
    }
}

/// Shows no secrets.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}
