//! Blocks of addresses that a host stands for, by port: the smallest one that an address lies in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use undermesh_ebpf_common::BlockKey;

use crate::{ServicePortRoute, addr};

/// Blocks and who stands for them. A lookup takes as many steps as there are different lengths.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    by_port: HashMap<u16, BTreeMap<Reverse<u8>, OfLength>>,
}

/// Blocks of one length.
type OfLength = HashMap<IpNet, Arc<ServicePortRoute>>;

/// The blocks of all addresses of a family: for what is known by its port and its name alone.
pub fn any_address() -> [IpNet; 2] {
    let every = |address: IpAddr| IpNet::new(address, 0).unwrap_or_else(|_| IpNet::from(address));
    [every(Ipv4Addr::UNSPECIFIED.into()), every(Ipv6Addr::UNSPECIFIED.into())]
}

impl Blocks {
    /// Who stands for a port of a block.
    pub fn insert(&mut self, block: IpNet, port: u16, route: Arc<ServicePortRoute>) {
        let lengths = self.by_port.entry(port).or_default();
        lengths.entry(Reverse(block.prefix_len())).or_default().insert(block.trunc(), route);
    }

    /// Who stands for the smallest block that an address lies in.
    pub fn find(&self, dialled: SocketAddr) -> Option<&Arc<ServicePortRoute>> {
        let lengths = self.by_port.get(&dialled.port())?;
        let (ip, most) = (dialled.ip(), if dialled.is_ipv4() { 32 } else { 128 });
        lengths.iter().filter(|(length, _)| length.0 <= most).find_map(|(length, blocks)| {
            let block = IpNet::new(ip, length.0).ok()?;
            blocks.get(&block.trunc())
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_port.is_empty()
    }

    /// Every block, its port, and who stands for it.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, u16, &Arc<ServicePortRoute>)> {
        self.by_port.iter().flat_map(|(port, lengths)| {
            let all = lengths.values().flatten();
            all.map(move |(block, route)| (*block, *port, route))
        })
    }
}

/// A block as the map keeps it.
pub(crate) fn block_key(block: IpNet, port: u16) -> (u32, BlockKey) {
    let bits = u32::from(block.prefix_len()) + if block.addr().is_ipv4() { 96 } else { 0 };
    let key = BlockKey::new(&addr(block.trunc().addr()), port.to_be());
    (BlockKey::PORT_BITS + bits, key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use undermesh_model::{NamespacedName, ResourceRef};

    use super::*;

    fn route(host: &str) -> Arc<ServicePortRoute> {
        Arc::new(ServicePortRoute {
            origin: ResourceRef::namespaced("ServiceEntry", "shop", host),
            service: NamespacedName::new("shop", host),
            host: host.to_owned(),
            port: 443,
            port_name: String::new(),
            endpoints: Vec::new(),
            affinity: false,
            external: true,
            traffic: BTreeMap::new(),
        })
    }

    #[test]
    fn the_smallest_block_that_an_address_lies_in_is_found() {
        let mut blocks = Blocks::default();
        assert!(blocks.is_empty());
        for (block, port, host) in [
            ("10.0.0.0/8", 443, "big"),
            ("10.1.2.3/16", 443, "small"),
            ("10.1.0.0/16", 80, "other"),
            ("fd00::/8", 443, "six"),
        ] {
            blocks.insert(block.parse().unwrap(), port, route(host));
        }
        for block in any_address() {
            blocks.insert(block, 22, route("any"));
        }
        let find =
            |dialled: &str| blocks.find(dialled.parse().unwrap()).map(|route| route.host.as_str());
        for (dialled, found) in [
            ("10.1.9.9:443", Some("small")),
            ("10.2.9.9:443", Some("big")),
            ("10.1.9.9:80", Some("other")),
            ("10.2.9.9:80", None),
            ("11.0.0.1:443", None),
            ("[fd00::1]:443", Some("six")),
            ("[fe00::1]:443", None),
            ("11.0.0.1:22", Some("any")),
            ("[2001:db8::1]:22", Some("any")),
        ] {
            assert_eq!(find(dialled), found, "{dialled}");
        }
        assert_eq!(blocks.iter().count(), 6);
    }

    #[test]
    fn blocks_of_both_families_are_prefixes_of_mapped_addresses() {
        let key = |block: &str| block_key(block.parse().unwrap(), 443);
        assert_eq!(key("10.1.2.3/8").0, 32 + 96 + 8);
        assert_eq!(key("10.1.2.3/8").1.addr, addr("10.0.0.0".parse().unwrap()));
        assert_eq!(key("fd00::/64").0, 32 + 64);
        assert_eq!(key("0.0.0.0/0").0, 32 + 96);
        assert_eq!(key("::/0").0, 32);
        assert_eq!(key("10.0.0.1/32").0, BlockKey::BITS);
    }
}
