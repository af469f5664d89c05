//! Whether the node's name servers answer.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{catalogue::Kind, finding::Finding, situation::Situation};

const RESOLV: &str = "/etc/resolv.conf";
/// Servers that are asked; resolvers read three.
const MAX_SERVERS: usize = 8;
/// How long a server may take, and how often it is asked.
const PATIENCE: Duration = Duration::from_millis(1000);
const TRIES: usize = 2;
/// "Which are the name servers of the root?" (RFC 1035, section 4.1): every server has an answer,
/// and be it a refusal.
const QUERY: [u8; 17] = [0x75, 0x6d, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

pub(super) fn check(_: &Situation) -> Vec<Finding> {
    let servers = match fs::read_to_string(RESOLV) {
        Ok(text) => nameservers(&text),
        Err(error) => return vec![Finding::new(Kind::ResolvMissing, RESOLV, error.to_string())],
    };
    if servers.is_empty() {
        let found = "it names no server";
        return vec![Finding::new(Kind::ResolvMissing, RESOLV, found)];
    }
    // Side by side: silence takes its time.
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            servers.iter().map(|server| scope.spawn(move || silent(*server))).collect();
        asked.into_iter().filter_map(|it| it.join().ok().flatten()).collect()
    })
}

/// resolv.conf(5). A link-local address may name its interface, which std cannot parse.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).take(MAX_SERVERS).collect()
}

fn silent(server: IpAddr) -> Option<Finding> {
    let mut last = None;
    for _ in 0..TRIES {
        match ask(SocketAddr::new(server, 53)) {
            Ok(()) => return None,
            Err(error) => last = Some(error),
        }
    }
    let found = match last {
        Some(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            format!("it has not answered {TRIES} queries within {PATIENCE:?} each")
        }
        error => error.map(|error| error.to_string()).unwrap_or_default(),
    };
    Some(Finding::new(Kind::NameserverSilent, server.to_string(), found))
}

fn ask(server: SocketAddr) -> io::Result<()> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    // Only what this server sends is heard, and a closed port is an error.
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&QUERY)?;
    let mut answer = [0; 512];
    socket.recv(&mut answer).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_everything_else_is_left_out() {
        let text = "# nameserver 1.1.1.1\nsearch a.b\nnameserver 10.0.0.1\n nameserver\tfd00::1 \n\
                    nameserver fe80::1%eth0\noptions ndots:5\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }
}
