//! What all that is told of one connection has in common.

use std::net::SocketAddr;

use crate::{
    ConnectionInfo, Peer, Reporter, Security, Transport,
    json::{Object, key},
    texts::{Length, Pack, Unpack},
};

/// A connection that things are told of: what was known of it when it opened.
///
/// Records of it outlive it. It is one piece of memory and another for its texts, which is what that costs: it is freed
/// when nothing of it is in a cache any more.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    reporter: Reporter,
    security: Security,
    transport: Transport,
    source_addr: SocketAddr,
    dialled: Option<SocketAddr>,
    upstream: Option<SocketAddr>,
    generation: u64,
    source: End,
    destination: End,
    service: Option<Length>,
    texts: Box<str>,
}

#[derive(Debug)]
struct End {
    workload: Length,
    pod: Length,
    namespace: Length,
    identity: Option<Length>,
}

impl Connection {
    pub(crate) fn new(id: u64, info: &ConnectionInfo) -> Self {
        let mut texts = String::with_capacity(512);
        let mut pack = Pack(&mut texts);
        let source = End::new(&info.source, &mut pack);
        let destination = End::new(&info.destination, &mut pack);
        let service = info.service.as_ref().map(|service| pack.text(&service.host));
        Self {
            id,
            reporter: info.reporter,
            security: info.security,
            transport: info.transport,
            source_addr: info.source_addr,
            dialled: info.dialled,
            upstream: info.upstream,
            generation: info.generation,
            source,
            destination,
            service,
            texts: texts.into(),
        }
    }

    /// Where it was led to.
    pub(crate) fn upstream(&self) -> Option<SocketAddr> {
        self.upstream
    }

    /// Generation of the configuration that decided.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes what lines say of it, given the address of its destination, where it has one.
    pub(crate) fn write(&self, line: &mut Object<'_>, address: Option<SocketAddr>) {
        let mut texts = Unpack(&self.texts);
        line.number(key!("connection"), self.id);
        line.text(key!("reporter"), self.reporter.as_str());
        line.open(key!("source"));
        line.address(key!("address"), self.source_addr);
        self.source.write(line, &mut texts);
        line.close();
        line.open(key!("destination"));
        if let Some(address) = address {
            line.address(key!("address"), address);
        }
        self.destination.write(line, &mut texts);
        line.close();
        if let Some(service) = texts.known(self.service) {
            line.text(key!("service"), service);
        }
        if let Some(dialled) = self.dialled {
            line.address(key!("dialled"), dialled);
        }
        line.text(key!("transport"), self.transport.as_str());
        line.text(key!("security"), self.security.as_str());
    }
}

impl End {
    fn new(peer: &Peer, pack: &mut Pack<'_>) -> Self {
        Self {
            workload: pack.text(&peer.workload),
            pod: pack.text(&peer.pod),
            namespace: pack.text(&peer.namespace),
            identity: peer.principal.as_ref().map(|identity| pack.joined(&identity.words())),
        }
    }

    fn write(&self, line: &mut Object<'_>, texts: &mut Unpack<'_>) {
        line.filled(key!("workload"), texts.text(self.workload));
        line.filled(key!("pod"), texts.text(self.pod));
        line.filled(key!("namespace"), texts.text(self.namespace));
        if let Some(identity) = texts.known(self.identity) {
            line.text(key!("identity"), identity);
        }
    }
}
