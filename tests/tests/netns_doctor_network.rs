//! `undermesh doctor` about a node's network and its manifests: name servers, ports, packet sizes,
//! network plugins, NetworkPolicies.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::Result;
use undermesh_tests::{Diagnosis, Rig, pod::protocol::Behaviour};

/// Two nodes with their pods, without agents.
fn rig() -> Result<Rig> {
    let rig = Rig::standard().build()?;
    rig.init_ca()?;
    Ok(rig)
}

/// Runs the doctor with another /etc/resolv.conf.
fn with_resolv_conf(rig: &Rig, text: &str) -> Result<Diagnosis> {
    let file = rig.node("a")?.dir.join("resolv.conf");
    fs::write(&file, text)?;
    let setup = format!("mount --bind {} /etc/resolv.conf", file.display());
    rig.preflight("a")?.after(&setup).run()
}

#[test]
fn name_servers_that_do_not_answer_are_found_and_others_are_not() -> Result<()> {
    let rig = rig()?;
    let diagnosis = with_resolv_conf(&rig, "search cluster.local\n")?;
    assert_eq!(diagnosis.find("resolv-missing")?.found, "it names no server");

    // Nobody listens; somebody listens and says nothing; somebody answers.
    let (silent, answering) = rig
        .node("a")?
        .netns
        .run(|| (UdpSocket::bind("127.0.0.3:53"), UdpSocket::bind("127.0.0.4:53")))?;
    let (_silent, answering) = (silent?, answering?);
    answering.set_read_timeout(Some(Duration::from_secs(20)))?;
    let server = thread::spawn(move || -> std::io::Result<()> {
        let mut query = [0; 512];
        let (length, client) = answering.recv_from(&mut query)?;
        answering.send_to(&query[..length], client).map(drop)
    });
    let servers = "nameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4\n";
    let diagnosis = with_resolv_conf(&rig, servers)?;
    let found = |server: &str| {
        let mut rows = diagnosis.findings.iter().filter(|row| row.id == "nameserver-silent");
        rows.find(|row| row.object == server).map(|row| row.found.clone())
    };
    assert!(found("127.0.0.2").is_some_and(|it| it.contains("refused")), "{diagnosis:?}");
    assert!(found("127.0.0.3").is_some_and(|it| it.contains("has not answered 2 queries")));
    assert_eq!(found("127.0.0.4"), None);
    assert!(server.join().is_ok_and(|it| it.is_ok()));
    Ok(())
}

#[test]
fn a_busy_port_is_found_before_the_agent_finds_it() -> Result<()> {
    let rig = rig()?;
    rig.preflight("a")?.run()?.lacks("port-busy")?;
    for address in ["127.0.0.1:15000", "0.0.0.0:15020", "[::]:15021"] {
        let _listener = rig.node("a")?.netns.run(|| TcpListener::bind(address))??;
        let diagnosis = rig.preflight("a")?.run()?;
        let port = address.rsplit(':').next().unwrap_or_default();
        let found = diagnosis.find("port-busy")?;
        assert!(found.object.ends_with(port), "{found:?}");
        assert_eq!(diagnosis.code, 2);
    }
    Ok(())
}

#[test]
fn applications_at_the_ports_of_the_mesh_are_found() -> Result<()> {
    let rig = rig()?;
    let client = rig.pod("client")?;
    let _tunnel = client.listen("0.0.0.0:15008".parse()?, Behaviour::Echo)?;
    let _outbound = client.listen("127.0.0.1:15001".parse()?, Behaviour::Echo)?;
    let diagnosis = rig.preflight("a")?.run()?;
    assert_eq!(diagnosis.find("pod-port-taken")?.object, "Pod shop/client");
    assert_eq!(diagnosis.find("pod-outbound-port-taken")?.severity, "note");
    // That pod is not on node b.
    rig.preflight("b")?.run()?.lacks("pod-port-taken")
}

#[test]
fn pods_that_send_larger_packets_than_their_node_passes_on_are_found() -> Result<()> {
    let rig = rig()?;
    let node = &rig.node("a")?.netns;
    node.ip("link add uplink0 type veth peer name far0\nlink set far0 up\nlink set uplink0 up\n")?;
    node.ip(
        "addr add 192.0.2.1/24 dev uplink0\nroute replace default via 192.0.2.2 dev uplink0\n",
    )?;
    rig.preflight("a")?.run()?.lacks("mtu-mismatch")?;
    node.ip("link set uplink0 mtu 1400\n")?;
    let diagnosis = rig.preflight("a")?.run()?;
    let found = diagnosis.find("mtu-mismatch")?;
    assert!(found.object.starts_with("Pod shop/"), "{found:?}");
    assert_eq!(found.found, "eth0 has MTU 1500, the node's uplink0 has 1400");
    Ok(())
}

#[test]
fn network_plugins_are_found_by_their_configuration_and_by_their_interfaces() -> Result<()> {
    let rig = rig()?;
    rig.node("a")?.netns.ip("link add cilium_host type bridge\n")?;
    let setup = "mount -t tmpfs none /etc\nmkdir -p /etc/cni/net.d\n\
        echo '{\"name\": \"k8s-pod-network\", \"plugins\": [{\"type\": \"calico\"}, {\"type\": \"portmap\"}]}' \
        > /etc/cni/net.d/10-calico.conflist\n\
        echo '{' > /etc/cni/net.d/99-broken.conf";
    let diagnosis = rig.preflight("a")?.after(setup).run()?;
    let found: Vec<_> = diagnosis
        .findings
        .iter()
        .filter(|row| row.id == "cni-found")
        .map(|row| (row.object.as_str(), row.found.as_str()))
        .collect();
    assert_eq!(
        found[0],
        ("/etc/cni/net.d/10-calico.conflist", "network \"k8s-pod-network\" by calico, portmap")
    );
    assert!(found[1].1.starts_with("it cannot be read"), "{found:?}");
    assert_eq!(found[2], ("cilium_host", "an interface of Cilium"));
    // Nor is there a resolv.conf on such a node.
    diagnosis.find("resolv-missing")?;
    Ok(())
}

#[test]
fn manifests_are_judged_as_the_agent_will() -> Result<()> {
    let rig = rig()?;
    let object = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    rig.manifests.write("extra", object)?;
    let diagnosis = rig.preflight("a")?.run()?;
    assert!(diagnosis.find("manifests-warning")?.found.contains("kind Deployment"));
    diagnosis.lacks("manifests-rejected")?;
    rig.manifests.write("extra", "apiVersion: v1\nkind: Pod\nmetadata: {}\n")?;
    let diagnosis = rig.preflight("a")?.run()?;
    let found = diagnosis.find("manifests-rejected")?;
    assert!(found.found.contains("extra.yaml:1") && found.found.contains("no metadata.name"));
    Ok(())
}

#[test]
fn network_policies_that_keep_tunnels_out_are_named_with_both_pods() -> Result<()> {
    // The native wire needs no tunnel.
    let rig = Rig::speaking("hbone").build()?;
    rig.init_ca()?;
    let policy = |ports: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: only-http, namespace: shop}}\n\
             spec: {{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{ports: [{ports}]}}]}}\n"
        )
    };
    rig.manifests.write("network-policy", &policy("{port: 8080}"))?;
    let diagnosis = rig.preflight("a")?.run()?;
    let found = diagnosis.find("network-policy-blocks")?;
    assert_eq!(found.object, "NetworkPolicy shop/only-http");
    assert!(found.found.starts_with("ingress to Pod shop/server: connections from Pod shop/"));
    diagnosis.lacks("manifests-warning")?;
    rig.manifests.write("network-policy", &policy("{port: 8080}, {port: 15008}"))?;
    rig.preflight("a")?.run()?.lacks("network-policy-blocks")
}
