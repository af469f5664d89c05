//! What all that is told of one connection has in common: as it is kept, and as lines say it.

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

/// The same, as lines say it.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Members of the line, up to those of the destination; those, without its address; and those that follow.
    text: String,
    destination: usize,
    rest: usize,
}

impl Ends {
    /// From now on, those of this connection.
    pub(crate) fn describe(&mut self, connection: &Connection) {
        let mut texts = Unpack(&connection.texts);
        self.text.clear();
        let mut line = Object::within(&mut self.text);
        line.number(key!("connection"), connection.id);
        line.text(key!("reporter"), connection.reporter.as_str());
        line.open(key!("source"));
        line.address(key!("address"), connection.source_addr);
        connection.source.write(&mut line, &mut texts);
        line.close();
        line.open(key!("destination"));
        self.destination = line.len();
        connection.destination.write(&mut line, &mut texts);
        self.rest = line.len();
        line.close();
        if let Some(service) = texts.known(connection.service) {
            line.text(key!("service"), service);
        }
        if let Some(dialled) = connection.dialled {
            line.address(key!("dialled"), dialled);
        }
        line.text(key!("transport"), connection.transport.as_str());
        line.text(key!("security"), connection.security.as_str());
    }

    /// Adds them to a line, with the destination's address where it has one.
    pub(crate) fn write(&self, line: &mut Object<'_>, address: Option<SocketAddr>) {
        line.members(&self.text[..self.destination]);
        if let Some(address) = address {
            line.address(key!("address"), address);
        }
        line.members(&self.text[self.destination..self.rest]);
        line.follow(&self.text[self.rest..]);
    }
}
