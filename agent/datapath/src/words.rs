//! Keys and values of maps in words, for people who look at what the programs see.

use undermesh_ebpf_common::{
    ANY_PORT, Addr, Backend, BackendKey, Block, BlockKey, GateKey, KUBELET, ListenerKey,
    LocalTuple, OriginalDst, OriginalDstKey, Pod, PolicyKey, PolicyVerdict, PortKey, Service,
    ServiceKey, UNKNOWN_CLASS, WorkloadEntry, backend_flags, block_flags, gate_kind, listener_kind,
    pod_flags, policy_verdict, service_flags, workload_flags,
};
use undermesh_snapshot::{ip, socket};

/// A key or a value of a map.
pub(crate) trait Words {
    /// One line.
    fn words(&self) -> String;
}

/// A number of which nothing more is known.
impl Words for u64 {
    fn words(&self) -> String {
        self.to_string()
    }
}

impl Words for u32 {
    fn words(&self) -> String {
        self.to_string()
    }
}

impl Words for Addr {
    fn words(&self) -> String {
        ip(*self).to_string()
    }
}

impl Words for PortKey {
    fn words(&self) -> String {
        socket(self.addr, self.port_be).to_string()
    }
}

impl Words for Pod {
    fn words(&self) -> String {
        let addresses: Vec<String> = [self.addr4, self.addr6]
            .iter()
            .filter(|addr| !addr.equals(&Addr::UNSPECIFIED))
            .map(Words::words)
            .collect();
        let port = u16::from_be(self.outbound_port_be);
        format!("{} proxy port {port}{}", addresses.join(" "), flags(self.flags, &pod_flags::NAMES))
    }
}

impl Words for WorkloadEntry {
    fn words(&self) -> String {
        format!(
            "policy {:016x} class {:016x} address class {:016x}{}",
            self.policy,
            self.class,
            self.address_class,
            flags(self.flags, &workload_flags::NAMES)
        )
    }
}

impl Words for PolicyKey {
    fn words(&self) -> String {
        let class = match self.class {
            UNKNOWN_CLASS => "unknown clients".to_owned(),
            class => format!("class {class:016x}"),
        };
        let port = match self.port {
            ANY_PORT => "any port".to_owned(),
            port => format!("port {port}"),
        };
        format!("policy {:016x} {class} {port}", self.policy)
    }
}

impl Words for PolicyVerdict {
    fn words(&self) -> String {
        match self.verdict {
            policy_verdict::ALLOW => "allow".to_owned(),
            policy_verdict::DENY => "deny".to_owned(),
            policy_verdict::STRICT => "deny: strict".to_owned(),
            policy_verdict::JUDGE => "ask the proxy".to_owned(),
            other => format!("unknown verdict {other}"),
        }
    }
}

impl Words for ServiceKey {
    fn words(&self) -> String {
        socket(self.addr, self.port_be).to_string()
    }
}

impl Words for Service {
    fn words(&self) -> String {
        format!("{} backends{}", self.backends, flags(self.flags, &service_flags::NAMES))
    }
}

impl Words for BackendKey {
    fn words(&self) -> String {
        format!("{} #{}", self.service.words(), self.slot)
    }
}

impl Words for Backend {
    fn words(&self) -> String {
        format!("{}{}", socket(self.addr, self.port_be), flags(self.flags, &backend_flags::NAMES))
    }
}

/// A length in bits, and what it is a prefix of.
impl Words for (u32, BlockKey) {
    fn words(&self) -> String {
        let (length, key) = self;
        let address = ip(key.addr);
        let mapped = if address.is_ipv4() { 96 } else { 0 };
        let bits = length.saturating_sub(BlockKey::PORT_BITS).saturating_sub(mapped);
        format!("{address}/{bits} port {}", u16::from_be(key.port_be))
    }
}

impl Words for Block {
    fn words(&self) -> String {
        flag_words(self.flags, &block_flags::NAMES).join(" ")
    }
}

impl Words for OriginalDstKey {
    fn words(&self) -> String {
        let of = match self.netns_cookie {
            KUBELET => "kubelet".to_owned(),
            cookie => format!("netns {cookie}"),
        };
        format!("{of} from {}", socket(self.source, self.source_port_be))
    }
}

impl Words for OriginalDst {
    fn words(&self) -> String {
        socket(self.addr, self.port_be).to_string()
    }
}

impl Words for LocalTuple {
    fn words(&self) -> String {
        format!(
            "{} -> {}",
            socket(self.source, self.source_port_be),
            socket(self.destination, self.destination_port_be)
        )
    }
}

impl Words for GateKey {
    fn words(&self) -> String {
        match self.kind {
            gate_kind::CGROUP => format!("cgroup {}", self.id),
            gate_kind::NETNS => format!("netns {}", self.id),
            other => format!("unknown kind {other} {}", self.id),
        }
    }
}

impl Words for ListenerKey {
    fn words(&self) -> String {
        match self.kind {
            listener_kind::INBOUND => format!("{} inbound", self.addr.words()),
            other => format!("{} kind {other}", self.addr.words()),
        }
    }
}

/// Flags that are set, each after a space.
fn flags(set: u32, names: &[(u32, &str)]) -> String {
    flag_words(set, names).iter().map(|word| format!(" {word}")).collect()
}

/// Flags that are set; those without a name as one number.
pub fn flag_words(set: u32, names: &[(u32, &str)]) -> Vec<String> {
    let known = names.iter().filter(|(flag, _)| set & flag != 0);
    let mut words: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    let rest = names.iter().fold(set, |rest, (flag, _)| rest & !flag);
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_in_words() {
        let vip = ServiceKey { addr: Addr::v4([10, 96, 0, 1]), port_be: 80_u16.to_be(), pad: 0 };
        let service =
            Service { backends: 3, flags: service_flags::KNOWN | service_flags::PROXY | 1 << 9 };
        assert_eq!(
            (vip.words(), service.words()),
            ("10.96.0.1:80".to_owned(), "3 backends proxy known 0x200".to_owned())
        );
        let block =
            (BlockKey::PORT_BITS + 96 + 8, BlockKey::new(&Addr::v4([10, 0, 0, 0]), vip.port_be));
        assert_eq!(block.words(), "10.0.0.0/8 port 80");
        let key = PolicyKey { policy: 0xab, class: UNKNOWN_CLASS, port: ANY_PORT, pad: 0 };
        assert_eq!(key.words(), "policy 00000000000000ab unknown clients any port");
        assert_eq!(PolicyVerdict { verdict: policy_verdict::STRICT }.words(), "deny: strict");
        assert_eq!(PolicyVerdict { verdict: 77 }.words(), "unknown verdict 77");
        let kubelet = OriginalDstKey {
            netns_cookie: KUBELET,
            source: Addr::LOOPBACK_V6,
            source_port_be: 1_u16.to_be(),
            pad: [0; 6],
        };
        assert_eq!(kubelet.words(), "kubelet from [::1]:1");
    }
}
