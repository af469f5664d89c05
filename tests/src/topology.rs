//! Nodes and pods as network namespaces, joined by a wire.
//!
//! ```text
//!   um-<tag>-wire     bridge ── one port per node; whoever listens here sees what crosses nodes
//!        │ 172.31.0.<node>, fd00:ffff::<node>
//!   um-<tag>-<node>   routes; bridge br0 = gateway 10.<node>.0.1, fd00:<node>::1
//!        │
//!   um-<tag>-<pod>    eth0 10.<node>.0.<n>, fd00:<node>::<n>, default routes by the gateway
//! ```
//!
//! No address translation anywhere: what a pod sends arrives with the pod's address.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    agent::{Agent, Settings},
    clock::Clock,
    footprint::Footprint,
    manifest::PodSpec,
    netns::Netns,
    poll::wait_for,
};

/// First host number of pods, below which gateways live.
const FIRST_POD: u8 = 10;
/// How long a removed namespace may be held by whoever has sockets in it.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A node: a namespace that routes, and the agent that may run there.
#[derive(Debug)]
pub struct Node {
    /// Its name, as manifests and configuration have it.
    pub name: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Its addresses on the wire.
    pub addresses: [IpAddr; 2],
    /// Its part of the cgroup hierarchy; `pods` and `agent` are below.
    pub cgroup: PathBuf,
    /// Its files: configuration, logs.
    pub dir: PathBuf,
    /// What the agent's configuration file will say at the next start.
    pub settings: Settings,
    /// What the agent takes for the time, if it is not the machine's clocks.
    pub clock: Option<Clock>,
    /// The agent, once it has been started.
    pub agent: Option<Agent>,
}

/// A pod: where it is, and what the manifests say about it.
#[derive(Clone, Debug)]
pub struct PodPlace {
    /// What was asked for.
    pub spec: PodSpec,
    /// The node it is on.
    pub node: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// The node's end of its link.
    pub link: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl PodPlace {
    /// Its address in a family.
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// A port of its address in a family.
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }
}

/// Builds everything; `plan` holds nodes in order, each with its pods.
pub(crate) fn build(
    footprint: &Footprint,
    plan: &[(String, Vec<PodSpec>)],
) -> Result<(Netns, Vec<Node>, Vec<PodPlace>)> {
    ensure!(plan.len() < 250, "a rig has room for 249 nodes");
    let wire = Netns::create(&footprint.netns("wire"))?;
    wire.ip(
        "link set lo up\nlink add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 up\n",
    )?;
    let mut nodes = Vec::new();
    let mut pods = Vec::new();
    for (index, (name, specs)) in (1..).zip(plan) {
        let node = node(footprint, &wire, name, index)?;
        for (number, spec) in (FIRST_POD..).zip(specs) {
            pods.push(pod(footprint, &node, spec, index, number)?);
        }
        nodes.push(node);
    }
    let count = u8::try_from(nodes.len())?;
    for (index, node) in (1..=count).zip(&nodes) {
        node.netns.ip(&routes(index, count))?;
    }
    Ok((wire, nodes, pods))
}

fn node(footprint: &Footprint, wire: &Netns, name: &str, index: u8) -> Result<Node> {
    let netns = Netns::create(&footprint.netns(name))?;
    prepare(&netns, true)?;
    wire.ip(&format!(
        "link add port{index} type veth peer name wire0 netns {ns}\n\
         link set port{index} master br0\n\
         link set port{index} up\n",
        ns = netns.name()
    ))?;
    netns.ip(&format!(
        "link set lo up\n\
         addr add 172.31.0.{index}/24 dev wire0\n\
         addr add fd00:ffff::{index:x}/64 dev wire0 nodad\n\
         link set wire0 up\n\
         link add br0 type bridge stp_state 0 mcast_snooping 0\n\
         addr add 10.{index}.0.1/24 dev br0\n\
         addr add fd00:{index:x}::1/64 dev br0 nodad\n\
         link set br0 up\n"
    ))?;
    let cgroup = footprint.cgroup().join(name);
    let dir = footprint.dir().join(name);
    for path in [&cgroup.join("pods"), &cgroup.join("agent"), &dir] {
        make(path)?;
    }
    Ok(Node {
        name: name.to_owned(),
        netns,
        addresses: [
            Ipv4Addr::new(172, 31, 0, index).into(),
            Ipv6Addr::new(0xfd00, 0xffff, 0, 0, 0, 0, 0, index.into()).into(),
        ],
        settings: Settings::of(footprint, name, &cgroup),
        cgroup,
        dir,
        clock: None,
        agent: None,
    })
}

fn pod(
    footprint: &Footprint,
    node: &Node,
    spec: &PodSpec,
    index: u8,
    number: u8,
) -> Result<PodPlace> {
    let place = PodPlace {
        spec: spec.clone(),
        node: node.name.clone(),
        netns: Netns::create(&footprint.netns(&spec.name))?,
        cgroup: node.cgroup.join("pods").join(&spec.name),
        link: format!("pod{number}"),
        v4: Ipv4Addr::new(10, index, 0, number),
        v6: Ipv6Addr::new(0xfd00, index.into(), 0, 0, 0, 0, 0, number.into()),
    };
    make(&place.cgroup)?;
    plug(node, &place)?;
    Ok(place)
}

/// Gives a pod's new namespace its interface, addresses and routes.
fn plug(node: &Node, place: &PodPlace) -> Result<()> {
    let PodPlace { netns, link, v4, v6, .. } = place;
    let [_, index, _, number] = v4.octets();
    // The same for every successor of the namespace: neighbours remember it.
    let mac = format!("02:00:00:00:{index:02x}:{number:02x}");
    prepare(netns, false)?;
    node.netns.ip(&format!(
        "link add {link} type veth peer name eth0 address {mac} netns {ns}\n\
         link set {link} master br0\n\
         link set {link} up\n",
        ns = netns.name()
    ))?;
    netns.ip(&format!(
        "link set lo up\n\
         addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 10.{index}.0.1\n\
         route add default via fd00:{index:x}::1\n"
    ))
}

/// Removes a pod's namespace, waits until the kernel has let go of it, and makes another one with
/// the same name and addresses, as happens when a pod is replaced.
pub(crate) fn replace(node: &Node, place: &PodPlace) -> Result<()> {
    Netns::delete(place.netns.name())?;
    let what = format!("the old namespace of pod {} to go", place.spec.name);
    wait_for(&what, GONE_WITHIN, || {
        let gone = node.netns.ip(&format!("link show {}\n", place.link)).is_err();
        Ok(gone.then_some(()))
    })?;
    Netns::create(place.netns.name())?;
    plug(node, place)
}

/// Settings of a new namespace, before it has interfaces: addresses are usable at once, and
/// packets are not dropped for coming in where answers would not go out.
fn prepare(netns: &Netns, router: bool) -> Result<()> {
    let forward = if router { "1" } else { "0" };
    let mut settings = vec![
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    ];
    if router {
        settings.push(("net/ipv4/ip_forward", forward));
        settings.push(("net/ipv6/conf/all/forwarding", forward));
    }
    netns.sysctls(&settings)
}

/// Routes from a node to the pods of all others.
fn routes(own: u8, count: u8) -> String {
    let mut batch = String::new();
    for other in (1..=count).filter(|other| *other != own) {
        // Writing to a string cannot fail.
        let _ = write!(
            batch,
            "route add 10.{other}.0.0/24 via 172.31.0.{other}\n\
             route add fd00:{other:x}::/64 via fd00:ffff::{other:x}\n"
        );
    }
    batch
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}
