//! Interfaces of network namespaces, as far as packet sizes need them.

use std::{fs, io};

use serde::Serialize;

use crate::{Netns, sys};

/// Interfaces of one namespace that are listed; nobody has more in a pod.
const MAX_INTERFACES: usize = 4096;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// The largest packet that it sends, in bytes.
    pub mtu: u32,
    /// The default route leads through it.
    pub default_route: bool,
}

/// Interfaces of a namespace, or of our own, without loopback.
///
/// # Errors
/// Where the namespace cannot be entered, or its tables cannot be read.
pub fn interfaces(netns: Option<&Netns>) -> io::Result<Vec<Interface>> {
    match netns {
        Some(netns) => netns.run(list)?,
        None => list(),
    }
}

fn list() -> io::Result<Vec<Interface>> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    // Absent where the kernel has no IPv4 or no IPv6.
    let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let routes6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let through = |name: &str| is_default(&routes, name) || is_default6(&routes6, name);
    let names = names(&devices).take(MAX_INTERFACES);
    // One that goes away meanwhile has no MTU.
    let interface = |name: &str| {
        let mtu = sys::mtu(name).ok()?;
        Some(Interface { name: name.to_owned(), mtu, default_route: through(name) })
    };
    Ok(names.filter_map(interface).collect())
}

/// proc(5): two lines of headings, then `name: counters`.
fn names(devices: &str) -> impl Iterator<Item = &str> {
    let lines = devices.lines().skip(2).filter_map(|line| line.split_once(':'));
    lines.map(|(name, _)| name.trim()).filter(|name| *name != "lo")
}

/// Columns: interface, destination, gateway, flags, ..., mask at the eighth.
fn is_default(routes: &str, name: &str) -> bool {
    routes.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        columns.first() == Some(&name)
            && columns.get(1) == Some(&"00000000")
            && columns.get(7) == Some(&"00000000")
    })
}

/// Columns: destination, its length, ..., gateway at the fifth, interface at the tenth. Without a
/// gateway it is the kernel's own "unreachable".
fn is_default6(routes: &str, name: &str) -> bool {
    let zero = "0".repeat(32);
    routes.lines().any(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        columns.get(9) == Some(&name)
            && columns.first() == Some(&zero.as_str())
            && columns.get(1) == Some(&"00")
            && columns.get(4).is_some_and(|gateway| *gateway != zero)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_and_default_routes_are_read_from_the_kernels_tables() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0: 12 0\nveth1:0 0\n";
        assert_eq!(names(devices).collect::<Vec<_>>(), ["eth0", "veth1"]);
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU\n\
                      eth0 00000000 0102A8C0 0003 0 0 0 00000000 0\n\
                      veth1 0002010A 00000000 0001 0 0 0 00FFFFFF 0\n";
        assert!(is_default(routes, "eth0") && !is_default(routes, "veth1"));
        let zero = "0".repeat(32);
        let gateway = format!("fe80{}1", "0".repeat(27));
        let line = |via: &str, name: &str| {
            format!("{zero} 00 {zero} 00 {via} 00000400 00000001 00000000 00000003 {name}\n")
        };
        assert!(is_default6(&line(&gateway, "eth0"), "eth0"));
        assert!(!is_default6(&line(&zero, "lo"), "lo"));
    }
}
