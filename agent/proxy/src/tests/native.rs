//! The native wire between two pods, and peers that speak it badly or not at all.

mod fallback;
mod peers;
mod pooling;
mod refusals;
mod resets;
mod sessions;

use super::mesh::{Client, Mesh, Server};

/// The number of sessions that got their connection in this way.
fn sessions(mesh: &Mesh, connection: &str) -> u64 {
    mesh.metric(&format!("undermesh_native_sessions_total{{connection=\"{connection}\"}}"))
}

/// The number of handshakes with this result, seen from the client.
fn handshakes(mesh: &Mesh, result: &str) -> u64 {
    mesh.metric(&format!(
        "undermesh_native_handshakes_total{{direction=\"outbound\",result=\"{result}\"}}"
    ))
}

fn fallbacks(mesh: &Mesh, reason: &str) -> u64 {
    mesh.metric(&format!("undermesh_native_fallbacks_total{{reason=\"{reason}\"}}"))
}

/// A mesh whose connections are made when they are needed.
fn unwarmed() -> Mesh {
    Mesh::with(|config| config.native.max_ready = 0)
}

async fn pair(mesh: &Mesh) -> (Client, Server) {
    (mesh.native_client("client"), mesh.native_server("server").await)
}
