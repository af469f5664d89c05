//! Ports that the agent will want on the node.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use super::{catalogue::Kind, finding::Finding, situation::Situation};

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    // It has them all, or it would not have started.
    if situation.status().is_ok() {
        return Vec::new();
    }
    let outline = &situation.outline;
    let wanted = [
        ("admin", outline.admin_address),
        ("metrics", outline.metrics_address),
        ("readiness", outline.readiness_address),
    ];
    let busy = wanted.into_iter().filter_map(|(purpose, address)| {
        let error = listen(address).err().filter(|it| it.kind() == io::ErrorKind::AddrInUse)?;
        let found = format!("somebody listens where the agent answers for {purpose}: {error}");
        Some(Finding::new(Kind::PortBusy, address.to_string(), found))
    });
    busy.collect()
}

/// As the agent does: on a node without IPv6, "all addresses" are those of IPv4.
fn listen(address: SocketAddr) -> io::Result<()> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map(drop)
        }
        result => result.map(drop),
    }
}
