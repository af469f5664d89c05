//! A connection through the mesh behaves like a TCP connection, to its last segment.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use undermesh_tests::{
    Conn, PORT, Pod, Rig,
    pod::protocol::{Behaviour, Burst},
};

/// Longest that a writer waits before it counts as held up.
const HELD_UP: Duration = Duration::from_secs(2);
const MIB: u64 = 1 << 20;

/// A meshed client and server on two nodes.
struct Path {
    rig: Rig,
    client: Pod,
    server: Pod,
    to: SocketAddr,
}

impl Path {
    fn build() -> Result<Self> {
        let mut rig = Rig::standard().build()?;
        rig.start()?;
        Ok(Self {
            client: rig.pod("client")?,
            server: rig.pod("server")?,
            to: rig.vip("far", 80)?,
            rig,
        })
    }

    /// Runs `test` with both ends of a fresh connection.
    fn with_ends(test: impl FnOnce(&Self, Conn<'_>, Conn<'_>) -> Result<()>) -> Result<()> {
        let path = Self::build()?;
        let listener = path.server.listen(path.rig.at("server", PORT)?, Behaviour::Manual)?;
        let near = path.client.connect(path.to)?;
        let (far, _) = listener.accept()?;
        test(&path, near, far)
    }

    /// Waits for the reason with which each agent has closed the connection.
    fn close_reasons(&self) -> Result<[String; 2]> {
        let of = |node| -> Result<String> {
            Ok(self.rig.agent(node)?.access_log().wait(&[("event", "close")])?.get("reason"))
        };
        Ok([of("a")?, of("b")?])
    }
}

#[test]
fn the_client_may_close_its_side_first() -> Result<()> {
    Path::with_ends(|path, near, far| {
        near.send(b"question")?;
        near.shutdown_write()?;
        assert_eq!(far.receive_to_end()?, b"question");
        far.send(b"a late answer")?;
        assert_eq!(near.receive(13)?, b"a late answer");
        far.close()?;
        assert_eq!(near.receive_to_end()?, b"");
        assert_eq!(path.close_reasons()?, ["closed", "closed"]);
        Ok(())
    })
}

#[test]
fn the_server_may_close_its_side_first() -> Result<()> {
    Path::with_ends(|path, near, far| {
        far.send(b"that is all from me")?;
        far.shutdown_write()?;
        assert_eq!(near.receive_to_end()?, b"that is all from me");
        near.send(b"but not from me")?;
        assert_eq!(far.receive(15)?, b"but not from me");
        near.close()?;
        assert_eq!(far.receive_to_end()?, b"");
        assert_eq!(path.close_reasons()?, ["closed", "closed"]);
        Ok(())
    })
}

#[test]
fn a_reset_by_the_client_reaches_the_server_as_a_reset() -> Result<()> {
    Path::with_ends(|path, near, far| {
        near.send(b"x")?;
        assert_eq!(far.receive(1)?, b"x");
        near.reset()?;
        assert_eq!(far.receive(1).unwrap_err().errno, "ECONNRESET");
        for reason in path.close_reasons()? {
            assert_ne!(reason, "closed");
        }
        Ok(())
    })
}

#[test]
fn a_reset_by_the_server_reaches_the_client_as_a_reset() -> Result<()> {
    Path::with_ends(|path, near, far| {
        far.send(b"x")?;
        assert_eq!(near.receive(1)?, b"x");
        far.reset()?;
        assert_eq!(near.receive(1).unwrap_err().errno, "ECONNRESET");
        for reason in path.close_reasons()? {
            assert_ne!(reason, "closed");
        }
        Ok(())
    })
}

#[test]
fn a_server_that_dies_resets_its_clients() -> Result<()> {
    let path = Path::build()?;
    let doomed = path.rig.pod("server")?;
    let listener = doomed.listen(path.rig.at("server", PORT)?, Behaviour::Manual)?;
    let near = path.client.connect(path.to)?;
    let (_far, _) = listener.accept()?;
    // Unread bytes make the dying process's kernel answer with a reset.
    near.send(b"never read")?;
    let within = Duration::from_secs(5);
    path.rig
        .agent("b")?
        .wait_status("the bytes to be delivered", within, |status| status.agent.connections == 1)?;
    drop(doomed);
    assert!(near.receive(1).is_err());
    Ok(())
}

#[test]
fn a_server_may_speak_first() -> Result<()> {
    let path = Path::build()?;
    let banner = "220 ready when you are\r\n";
    path.server.listen(path.rig.at("server", PORT)?, Behaviour::Banner(banner.to_owned()))?;
    let conn = path.client.connect(path.to)?;
    assert_eq!(conn.receive(banner.len())?, banner.as_bytes());
    assert_eq!(conn.exchange(b"EHLO")?, b"EHLO");
    Ok(())
}

/// What the kernel lets the buffers of one connection's two ends grow to, in one direction.
fn kernel_buffers() -> Result<u64> {
    let most = |name: &str| -> Result<u64> {
        let sizes = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"))?;
        let most = sizes.split_whitespace().last().context("no size is said")?;
        Ok(most.parse()?)
    };
    Ok(most("tcp_rmem")? + most("tcp_wmem")?)
}

#[test]
fn a_slow_reader_holds_its_writer_up_and_nobody_else() -> Result<()> {
    Path::with_ends(|path, near, far| {
        let resident = |node| path.rig.agent(node)?.resident_bytes();
        let before = [resident("a")?, resident("b")?];
        let sent = near.send_pattern(0, 1024 * MIB, HELD_UP)?;
        // Three connections carry it: what the kernel may hold for them, and what is under way in the agents.
        let most = 3 * kernel_buffers()? + 16 * MIB;
        assert!(sent < most, "{sent} bytes went to a peer that reads nothing, of {most} at most");
        for (node, before) in ["a", "b"].into_iter().zip(before) {
            let grown = resident(node)?.saturating_sub(before);
            assert!(grown < 64 * MIB, "agent {node} has put {grown} bytes aside");
        }
        // The same tunnel carries other connections meanwhile.
        let echo = path.rig.at("server", 8081)?;
        path.server.listen(echo, Behaviour::Echo)?;
        assert_eq!(path.client.connect(echo)?.exchange(b"me first")?, b"me first");
        // And once the reader goes on, so does the writer.
        assert!(far.receive_pattern(0, sent)?);
        assert_eq!(near.send_pattern(sent, 4096, HELD_UP)?, 4096);
        assert!(far.receive_pattern(sent, 4096)?);
        Ok(())
    })
}

#[test]
fn a_slow_reading_client_holds_the_server_up() -> Result<()> {
    Path::with_ends(|_, near, far| {
        let sent = far.send_pattern(0, 1024 * MIB, HELD_UP)?;
        // Three connections carry it: what the kernel may hold for them, and what is under way in the agents.
        let most = 3 * kernel_buffers()? + 16 * MIB;
        assert!(sent < most, "{sent} bytes went to a peer that reads nothing, of {most} at most");
        assert!(near.receive_pattern(0, sent)?);
        Ok(())
    })
}

#[test]
fn sixty_four_connections_at_once_keep_their_bytes_apart() -> Result<()> {
    let path = Path::build()?;
    path.server.listen(path.rig.at("server", PORT)?, Behaviour::Echo)?;
    let burst =
        Burst { to: vec![path.to], count: 64, threads: 64, payload: MIB, ..Burst::default() };
    let report = path.client.burst(burst)?;
    assert_eq!((report.ok, report.wrong), (64, 0), "{}", report.describe());

    let held: Vec<Conn<'_>> =
        (0..64).map(|_| path.client.connect(path.to)).collect::<Result<_, _>>()?;
    for (number, conn) in held.iter().enumerate().rev() {
        let word = format!("connection {number}");
        assert_eq!(conn.exchange(word.as_bytes())?, word.as_bytes());
    }
    let within = Duration::from_secs(5);
    for node in ["a", "b"] {
        path.rig
            .agent(node)?
            .wait_status("64 connections", within, |status| status.agent.connections == 64)?;
    }
    for conn in held {
        conn.close()?;
    }
    for node in ["a", "b"] {
        path.rig.agent(node)?.wait_status("all connections to be closed", within, |status| {
            status.agent.connections == 0
        })?;
    }
    Ok(())
}
