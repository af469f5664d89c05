//! What clients and servers may do, and what the other end sees of it.

mod answers;
mod bodies;
mod resets;

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use undermesh_snapshot::traffic::AppProtocol;

use super::rig::{Rig, VIP, cluster, endpoint, rules};
use crate::tests::{
    judged::look_at_requests,
    mesh::{SOON, Server},
};

/// A client and a server that are both left to the test.
struct Ends {
    rig: Rig,
    server: Server,
    /// What the client dials.
    to: SocketAddr,
}

impl Ends {
    async fn new(protocol: AppProtocol) -> Self {
        let rig = Rig::new(&[]).await;
        let server = rig.mesh.server("v1").await;
        let endpoint = endpoint(server.address, &server.workload);
        rig.rules(rules(&cluster("v1".to_owned(), protocol, vec![endpoint]), Vec::new()));
        Self { rig, server, to: VIP.parse().unwrap() }
    }

    /// The same, with nobody who routes and somebody who judges.
    async fn judged() -> Self {
        let ends = Self::new(AppProtocol::Http).await;
        look_at_requests(&ends.rig.mesh, &ends.server);
        Self { to: ends.server.address, ..ends }
    }

    async fn dial(&self) -> TcpStream {
        self.rig.client.dial(self.to).await
    }
}

/// Reads as far as the end of a head, and not a byte further.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await.expect("a head in time");
        head.push(
            byte.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head))),
        );
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads to the end of the connection; says whether it was an orderly one.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut rest = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("an end");
    (rest, read.is_ok())
}

async fn write(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    timeout(SOON, stream.write_all(bytes.as_ref())).await.expect("it is read").unwrap();
}

/// Values of a header, in their order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1).collect()
}
