//! A node's tables as its programs find them, for whoever asks what they would decide: the maps, without a kernel.

use std::cell::Cell;

use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, InboundView, OutboundView, PolicyKey,
    PolicyVerdict, Publisher, Service, ServiceKey, WorkloadEntry,
};

use crate::DatapathTables;

/// The tables of a node as a connecting pod's programs find them, where chance chooses this slot.
#[derive(Debug)]
pub struct OutgoingView<'a> {
    tables: &'a DatapathTables,
    slot: u32,
    drawn: Cell<bool>,
}

impl<'a> OutgoingView<'a> {
    /// Of a node.
    pub fn new(tables: &'a DatapathTables, slot: u32) -> Self {
        Self { tables, slot, drawn: Cell::new(false) }
    }

    /// Whether chance had a say.
    pub fn has_drawn(&self) -> bool {
        self.drawn.get()
    }
}

impl OutboundView for OutgoingView<'_> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.tables.services.get(key).copied()
    }

    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        let key = BackendKey { service: *service, slot };
        self.tables.backends.get(&key).copied()
    }

    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.tables.workloads.get(addr).copied()
    }

    fn block(&self, key: &BlockKey) -> Option<Block> {
        let around = |(length, block): &(u32, BlockKey)| covers(*length, block, key);
        let blocks = self.tables.blocks.iter().filter(|(block, _)| around(block));
        blocks.max_by_key(|((length, _), _)| *length).map(|(_, block)| *block)
    }

    fn random(&self) -> u32 {
        self.drawn.set(true);
        self.slot
    }

    /// The agent is taken to run.
    fn proxy_listens(&self, _destination: &Addr, _port_be: u16) -> bool {
        true
    }
}

/// Whether a block of so many bits holds a key, as the kernel's trie has it.
fn covers(length: u32, block: &BlockKey, key: &BlockKey) -> bool {
    let bytes = |key: &BlockKey| {
        let mut bytes = key.port_be.to_ne_bytes().to_vec();
        bytes.extend(key.pad.to_ne_bytes());
        bytes.extend(key.addr.octets());
        bytes
    };
    let (block, key) = (bytes(block), bytes(key));
    let whole = (length / 8) as usize;
    let mask = !(0xff_u16 >> (length % 8)) as u8;
    let same = |at: usize, mask: u8| match (block.get(at), key.get(at)) {
        (Some(one), Some(other)) => one & mask == other & mask,
        _ => true,
    };
    (0..whole).all(|at| same(at, 0xff)) && same(whole, mask)
}

/// The tables of a node as a connection finds them that arrives at a pod of it.
#[derive(Clone, Copy, Debug)]
pub struct ArrivingView<'a> {
    /// Of the node.
    pub tables: &'a DatapathTables,
    /// Who has published it.
    pub publisher: Publisher,
}

impl InboundView for ArrivingView<'_> {
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.tables.workloads.get(addr).copied()
    }

    fn publisher(&self) -> Publisher {
        self.publisher
    }

    fn delivered(&self) -> bool {
        false
    }

    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict> {
        self.tables.policy.get(key).copied()
    }

    /// An application is taken to listen.
    fn listens(&self) -> bool {
        true
    }

    /// It is none of the kubelet's.
    fn is_probed(&self) -> bool {
        false
    }

    fn strict_unknown(&self) -> bool {
        self.tables.strict_unknown
    }
}

#[cfg(test)]
mod tests {
    use undermesh_ebpf_common::block_flags;

    use super::*;

    fn block(prefix: [u8; 4], bits: u32) -> (u32, BlockKey) {
        (BlockKey::PORT_BITS + 96 + bits, BlockKey::new(&Addr::v4(prefix), 443_u16.to_be()))
    }

    #[test]
    fn the_smallest_block_is_found_as_the_kernel_finds_it() {
        let mut tables = DatapathTables::default();
        tables.blocks.insert(block([192, 0, 0, 0], 12), Block { flags: 0 });
        tables.blocks.insert(block([192, 0, 2, 0], 23), Block { flags: block_flags::PROXY });
        let of = |address: [u8; 4], port: u16| {
            let view = OutgoingView::new(&tables, 0);
            view.block(&BlockKey::new(&Addr::v4(address), port.to_be())).map(|block| block.flags)
        };
        assert_eq!(of([192, 0, 3, 7], 443), Some(block_flags::PROXY));
        assert_eq!(of([192, 0, 4, 7], 443), Some(0));
        assert_eq!(of([192, 0, 3, 7], 80), None);
        assert_eq!(of([198, 51, 100, 1], 443), None);
    }
}
