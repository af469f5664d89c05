//! How much memory the task of a connection takes. What is needed only until it is open, or only
//! where requests are looked at, must have no place in it: a node has thousands that do nothing.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use crate::{accept::Slot, native, outbound, pod::Pod};

/// Sizes of which the allocator has blocks.
const CLIENT_SIDE: usize = 2048;
const SERVER_SIDE: usize = 4096;

fn accepted<F>(_: impl FnOnce(Arc<Pod>, TcpStream, SocketAddr, Slot) -> F) -> usize {
    size_of::<F>()
}

fn detected<'a, F>(_: impl FnOnce(&'a Arc<Pod>, TcpStream, SocketAddr, SocketAddr) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_tasks_of_an_open_connection_are_small() {
    let (client, server) = (accepted(outbound::serve), detected(native::serve));
    assert!(client <= CLIENT_SIDE, "{client} bytes on the client's side");
    assert!(server <= SERVER_SIDE, "{server} bytes on the server's side");
}
