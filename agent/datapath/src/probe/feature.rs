//! The list of features: what each is for, what becomes of us without it, and how it is asked for.

use serde::Serialize;

use super::{
    Availability, helpers, maps,
    programs::{self, Hook},
};

/// Whether Undermesh can do without a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Need {
    /// No agent without it.
    Required,
    /// Something else takes its place, or something gets worse; `without` says what.
    Degrades,
    /// Nothing depends on it yet.
    Informative,
}

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $need:ident, $used:literal, $without:literal;)*) => {
        /// Something that a kernel may or may not offer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// Every one, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether Undermesh can do without.
            pub fn need(self) -> Need {
                match self { $(Self::$variant => Need::$need,)* }
            }

            /// What it is used for.
            pub fn used_for(self) -> &'static str {
                match self { $(Self::$variant => $used,)* }
            }

            /// What happens without it.
            pub fn without(self) -> &'static str {
                match self { $(Self::$variant => $without,)* }
            }
        }
    };
}

features! {
    /// Programs at `connect` over IPv4.
    Connect4 = "program.connect4", Required,
        "deciding where a connection goes", "the agent does not start";
    /// Programs at `connect` over IPv6.
    Connect6 = "program.connect6", Required,
        "deciding where a connection goes", "the agent does not start";
    /// Programs at `bind` over IPv4.
    Bind4 = "program.bind4", Degrades,
        "noting the netns cookie where sockops cannot ask for it",
        "nothing, where helper.sockops.get_netns_cookie is available";
    /// Programs at `bind` over IPv6.
    Bind6 = "program.bind6", Degrades,
        "noting the netns cookie where sockops cannot ask for it",
        "nothing, where helper.sockops.get_netns_cookie is available";
    /// Programs at `getpeername` over IPv4.
    Getpeername4 = "program.getpeername4", Required,
        "showing applications their client, and the address that they dialled",
        "the agent does not start";
    /// Programs at `getpeername` over IPv6.
    Getpeername6 = "program.getpeername6", Required,
        "showing applications their client, and the address that they dialled",
        "the agent does not start";
    /// sockops programs.
    SockOps = "program.sockops", Required,
        "publishing connections before their first packet", "the agent does not start";
    /// sk_lookup programs.
    SkLookup = "program.sk_lookup", Required,
        "leading what arrives at a pod to the agent", "the agent does not start";
    /// `bpf_get_netns_cookie` at `connect`.
    ConnectNetnsCookie = "helper.connect.get_netns_cookie", Required,
        "knowing the pod that connects", "the agent does not start";
    /// `bpf_get_netns_cookie` in sockops.
    SockOpsNetnsCookie = "helper.sockops.get_netns_cookie", Degrades,
        "knowing the pod of a published connection or listener",
        "programs at bind leave a note of the cookie in the socket";
    /// `bpf_sk_storage_get` at `connect`.
    ConnectStorage = "helper.connect.sk_storage_get", Required,
        "remembering where a connection was meant to go", "the agent does not start";
    /// `bpf_sk_storage_get` in sockops.
    SockOpsStorage = "helper.sockops.sk_storage_get", Required,
        "reading where a connection was meant to go", "the agent does not start";
    /// `bpf_sk_lookup_tcp` at `connect`.
    ConnectLookup = "helper.connect.sk_lookup_tcp", Required,
        "noticing a dead agent with the first connection", "the agent does not start";
    /// `bpf_bind` at `connect`.
    ConnectBind = "helper.connect.bind", Required,
        "keeping the pod's address in getsockname", "the agent does not start";
    /// `bpf_setsockopt` at `connect`.
    ConnectSetsockopt = "helper.connect.setsockopt", Required,
        "undoing SO_BINDTODEVICE on what goes to the agent", "the agent does not start";
    /// `bpf_get_current_ancestor_cgroup_id` at `connect`.
    ConnectAncestor = "helper.connect.get_current_ancestor_cgroup_id", Required,
        "holding a pod's first connections until it is in the mesh", "the agent does not start";
    /// `bpf_set_retval` at `connect`.
    ConnectRetval = "helper.connect.set_retval", Informative,
        "nothing yet: refusing a connection with any error",
        "refusals lead to port 0 of the loopback address, which refuses in the same way";
    /// `bpf_sk_lookup_tcp` at `getpeername`.
    PeernameLookup = "helper.getpeername.sk_lookup_tcp", Required,
        "finding the agent's end of a delivered connection", "the agent does not start";
    /// `bpf_sk_storage_get` at `getpeername`.
    PeernameStorage = "helper.getpeername.sk_storage_get", Required,
        "reading which client the agent delivers for", "the agent does not start";
    /// `bpf_get_netns_cookie` in sk_lookup, which no kernel has had so far.
    SkLookupNetnsCookie = "helper.sk_lookup.get_netns_cookie", Informative,
        "nothing yet: knowing the pod at which a connection arrives",
        "the destination's address says it";
    /// `bpf_sk_assign` in sk_lookup.
    Assign = "helper.sk_lookup.sk_assign", Required,
        "leading what arrives at a pod to the agent", "the agent does not start";
    /// Looking up a listener in a sockhash and assigning it, as a whole program.
    SockHashAssign = "sk_lookup.sockhash_assign", Required,
        "finding the agent's listener of a pod", "the agent does not start";
    /// Looking up a socket in a sockhash at `connect`, as a whole program.
    SockHashFind = "connect.sockhash_lookup", Required,
        "seeing whether an agent is there that will let a held pod go", "the agent does not start";
    /// Hash maps.
    Hash = "map.hash", Required,
        "pods, workloads, services, backends, policies", "the agent does not start";
    /// LRU hash maps.
    LruHash = "map.lru_hash", Required,
        "connections", "the agent does not start";
    /// Arrays.
    Array = "map.array", Required, "settings", "the agent does not start";
    /// Per-CPU arrays.
    PerCpuArray = "map.percpu_array", Required,
        "counting verdicts", "the agent does not start";
    /// Sockhash maps.
    SockHash = "map.sockhash", Required, "the agent's listeners", "the agent does not start";
    /// Tries of prefixes.
    LpmTrie = "map.lpm_trie", Required,
        "blocks of addresses that ServiceEntries stand for", "the agent does not start";
    /// Ring buffers.
    RingBuf = "map.ringbuf", Required,
        "events for the access log and for who listens", "the agent does not start";
    /// Socket storage.
    SkStorage = "map.sk_storage", Required,
        "what is known of a socket; the agent's own mark", "the agent does not start";
    /// Links at cgroups.
    CgroupLink = "attach.cgroup_link", Required,
        "programs that stay while the agent restarts, beside those of others",
        "the agent does not start";
    /// Links in network namespaces.
    NetnsLink = "attach.netns_link", Required,
        "the program in each pod's namespace", "no pod can be enrolled";
    /// Replacing the program behind a link.
    LinkUpdate = "attach.link_update", Degrades,
        "upgrades without a gap",
        "programs are detached and attached anew; connections in between are not decided about";
    /// Detaching a link at once.
    LinkDetach = "attach.link_detach", Degrades,
        "letting go of a pod at once",
        "a removed program runs on until the kernel frees its link";
    /// `SO_NETNS_COOKIE`.
    SocketNetnsCookie = "socket.netns_cookie", Degrades,
        "learning which pod a namespace is",
        "a program at the agent's own cgroup answers instead";
    /// Maps are charged to the memory cgroup.
    MemoryAccounting = "memory.memcg", Degrades,
        "maps that count as the agent's memory",
        "maps count against RLIMIT_MEMLOCK, which the agent raises: it needs CAP_SYS_RESOURCE";
}

impl Feature {
    /// What the agent does something else without, by its own decision: sockops that cannot ask for
    /// the netns cookie (before Linux 5.15) get it from a note that `bind` leaves in the socket; and
    /// without SO_NETNS_COOKIE (before 5.14) a program at the agent's own cgroup answers.
    pub(crate) const ALTERNATIVES: [Self; 2] = [Self::SockOpsNetnsCookie, Self::SocketNetnsCookie];

    /// Asks for it alone. Links and memory are asked for together ([`super::KernelFeatures`]).
    pub(crate) fn probe(self) -> Availability {
        use aya::maps::MapType;
        let helper = |hook, number| helpers::probe(hook, number);
        match self {
            Self::Connect4 => programs::probe(Hook::Connect4),
            Self::Connect6 => programs::probe(Hook::Connect6),
            Self::Bind4 => programs::probe(Hook::Bind4),
            Self::Bind6 => programs::probe(Hook::Bind6),
            Self::Getpeername4 => programs::probe(Hook::Getpeername4),
            Self::Getpeername6 => programs::probe(Hook::Getpeername6),
            Self::SockOps => programs::probe(Hook::SockOps),
            Self::SkLookup => programs::probe(Hook::SkLookup),
            Self::ConnectNetnsCookie => helper(Hook::Connect4, helpers::GET_NETNS_COOKIE),
            Self::SockOpsNetnsCookie => helper(Hook::SockOps, helpers::GET_NETNS_COOKIE),
            Self::ConnectStorage => helper(Hook::Connect4, helpers::SK_STORAGE_GET),
            Self::SockOpsStorage => helper(Hook::SockOps, helpers::SK_STORAGE_GET),
            Self::ConnectLookup => helper(Hook::Connect4, helpers::SK_LOOKUP_TCP),
            Self::ConnectBind => helper(Hook::Connect4, helpers::BIND),
            Self::ConnectSetsockopt => helper(Hook::Connect4, helpers::SETSOCKOPT),
            Self::ConnectAncestor => helper(Hook::Connect4, helpers::ANCESTOR_CGROUP_ID),
            Self::PeernameLookup => helper(Hook::Getpeername4, helpers::SK_LOOKUP_TCP),
            Self::PeernameStorage => helper(Hook::Getpeername4, helpers::SK_STORAGE_GET),
            Self::ConnectRetval => helper(Hook::Connect4, helpers::SET_RETVAL),
            Self::SkLookupNetnsCookie => helper(Hook::SkLookup, helpers::GET_NETNS_COOKIE),
            Self::Assign => helper(Hook::SkLookup, helpers::SK_ASSIGN),
            Self::SockHashAssign => programs::probe_assign(),
            Self::SockHashFind => programs::probe_find(),
            Self::Hash => maps::probe(MapType::Hash),
            Self::LruHash => maps::probe(MapType::LruHash),
            Self::Array => maps::probe(MapType::Array),
            Self::PerCpuArray => maps::probe(MapType::PerCpuArray),
            Self::SockHash => maps::probe(MapType::SockHash),
            Self::LpmTrie => maps::probe(MapType::LpmTrie),
            Self::RingBuf => maps::probe(MapType::RingBuf),
            Self::SkStorage => maps::probe(MapType::SkStorage),
            Self::SocketNetnsCookie => helpers::socket_netns_cookie(),
            Self::CgroupLink
            | Self::NetnsLink
            | Self::LinkUpdate
            | Self::LinkDetach
            | Self::MemoryAccounting => Availability::Unknown("it was not asked for".to_owned()),
        }
    }
}
