//! Temporary.
use crate::Netns;
use std::{io, net::IpAddr};
/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// a
    pub address: IpAddr,
    /// p
    pub port: u16,
    /// v
    pub v6only: bool,
}
/// Lists.
/// # Errors
/// x
pub fn listeners(netns: &Netns) -> io::Result<Vec<ListeningSocket>> {
    let (a, b) = netns.run(|| {
        (
            std::fs::read_to_string("/proc/thread-self/net/tcp"),
            std::fs::read_to_string("/proc/thread-self/net/tcp6"),
        )
    })?;
    let mut out = vec![];
    for t in [a?, b.unwrap_or_default()] {
        for l in t.lines().skip(1) {
            let f: Vec<&str> = l.split_ascii_whitespace().collect();
            if f.len() < 4 || f[3] != "0A" {
                continue;
            }
            let Some((h, p)) = f[1].split_once(':') else { continue };
            let port = u16::from_str_radix(p, 16).unwrap_or(0);
            let words: Vec<u8> = (0..h.len() / 8)
                .flat_map(|i| {
                    u32::from_str_radix(&h[i * 8..i * 8 + 8], 16).unwrap_or(0).to_ne_bytes()
                })
                .collect();
            let address = if words.len() == 4 {
                IpAddr::from([words[0], words[1], words[2], words[3]])
            } else {
                let mut a = [0u8; 16];
                a.copy_from_slice(&words);
                IpAddr::from(a)
            };
            out.push(ListeningSocket { address, port, v6only: false });
        }
    }
    Ok(out)
}
