//! Moves a snapshot's tables into the maps, make before break.

use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, PolicyKey, PolicyVerdict, PortKey, Service,
    ServiceKey, Settings, WorkloadEntry,
};
use undermesh_snapshot::{DatapathTables, ip, socket};

use aya::maps::{Array, LpmTrie, MapData};

use crate::{DatapathError, table::Table};

/// `BLOCKS`.
pub(crate) type Blocks = Table<(u32, BlockKey), Block, LpmTrie<MapData, BlockKey, Block>>;

/// The maps that follow from configuration alone.
pub(crate) struct ConfigTables {
    pub(crate) policy: Table<PolicyKey, PolicyVerdict>,
    pub(crate) workloads: Table<Addr, WorkloadEntry>,
    pub(crate) services: Table<ServiceKey, Service>,
    pub(crate) backends: Table<BackendKey, Backend>,
    pub(crate) blocks: Blocks,
    pub(crate) probe_ports: Table<PortKey, u32>,
    pub(crate) settings: Array<MapData, Settings>,
}

impl ConfigTables {
    /// Applies `desired`; returns how many entries changed.
    ///
    /// The order keeps every intermediate state safe: a service is never seen without the
    /// backends it counts, a block never without the services within it, an address never without its workload, a workload never without the
    /// answers of its policy, and strictness comes first.
    pub(crate) fn apply(&mut self, desired: &DatapathTables) -> Result<usize, DatapathError> {
        if desired.strict_unknown {
            self.set_strict_unknown(true)?;
        }
        let mut changed =
            self.policy.add(&desired.policy, |key| format!("policy {:016x}", key.policy))?;
        changed +=
            self.workloads.add(&desired.workloads, |addr| format!("workload {}", ip(*addr)))?;
        changed += self.probe_ports.add(&desired.probe_ports, |key| {
            format!("probe port {}", socket(key.addr, key.port_be))
        })?;
        changed += self.backends.add(&desired.backends, |key| describe(&key.service))?;
        changed += self.services.add(&desired.services, describe)?;
        changed += self.blocks.add(&desired.blocks, describe_block)?;
        changed += self.blocks.prune(&desired.blocks)?;
        changed += self.services.prune(&desired.services)?;
        changed += self.backends.prune(&desired.backends)?;
        changed += self.probe_ports.prune(&desired.probe_ports)?;
        changed += self.workloads.prune(&desired.workloads)?;
        changed += self.policy.prune(&desired.policy)?;
        if !desired.strict_unknown {
            self.set_strict_unknown(false)?;
        }
        Ok(changed)
    }

    /// Reads the maps again: another agent may have written to them.
    pub(crate) fn read_again(&mut self) -> Result<(), DatapathError> {
        self.policy.read_again()?;
        self.probe_ports.read_again()?;
        self.workloads.read_again()?;
        self.services.read_again()?;
        self.blocks.read_again()?;
        self.backends.read_again()
    }

    fn set_strict_unknown(&mut self, strict: bool) -> Result<(), DatapathError> {
        let settings = Settings { strict_unknown: u32::from(strict), pad: 0 };
        self.settings.set(0, settings, 0).map_err(DatapathError::map("write", "SETTINGS"))
    }
}

fn describe_block((length, key): &(u32, BlockKey)) -> String {
    let bits = length.saturating_sub(BlockKey::PORT_BITS);
    format!("port {} of {} with {bits} bits", u16::from_be(key.port_be), ip(key.addr))
}

fn describe(key: &ServiceKey) -> String {
    format!("service {}", socket(key.addr, key.port_be))
}
