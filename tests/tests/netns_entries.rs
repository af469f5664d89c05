//! ServiceEntries and the outbound policy: YAML in, connections of pods out, and where they went.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use undermesh_tests::{
    Conn, PORT, Pod, PodSpec, Rig, ServiceSpec, cases::client_hello, pod::protocol::Behaviour,
};

/// Where servers say their name to whoever connects, and do not mind what they hear.
const TLS_PORT: u16 = 9443;

/// Pods `client` and `near` on a node, `far` on another, all in the mesh; `out` and `vm` on the second
/// node, whom the mesh does not know. The service `shop` leads to `far`, `plain` to a pod that is not
/// enrolled.
struct World {
    client: Pod,
    /// They serve for as long as their processes run.
    _servers: Vec<Pod>,
    rig: Rig,
}

impl World {
    fn open(policy: &str) -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", [PodSpec::new("client"), PodSpec::new("near")])
            .node(
                "b",
                [
                    PodSpec::new("far"),
                    PodSpec::new("listed").listed(),
                    PodSpec::new("out").unlisted(),
                    PodSpec::new("vm").unlisted(),
                ],
            )
            .service(ServiceSpec::new("shop", 80, PORT, &["far"]))
            .service(ServiceSpec::new("head", 80, PORT, &["listed"]).headless())
            .build()?;
        rig.node_mut("a")?.settings.set("outboundTrafficPolicy", policy);
        rig.start()?;
        let mut servers = Vec::new();
        for name in ["near", "far", "listed", "out", "vm"] {
            let server = rig.pod(name)?;
            server.listen_many(([0, 0, 0, 0], PORT).into(), 1, Behaviour::Http(name.to_owned()))?;
            let banner = Behaviour::Banner(format!("{name:6}"));
            server.listen_many(([0, 0, 0, 0], TLS_PORT).into(), 1, banner)?;
            servers.push(server);
        }
        let client = rig.pod("client")?;
        Ok(Self { client, _servers: servers, rig })
    }

    /// Puts a ServiceEntry in force.
    fn entry(&self, namespace: &str, spec: &str) -> Result<()> {
        self.rig.apply(
            "entry",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {{name: entry, namespace: {namespace}}}\nspec: {spec}\n"
            ),
        )
    }

    /// Who answers a request for `host`, and its status; nobody where it is an agent.
    fn ask(&self, to: SocketAddr, host: &str) -> Result<(String, u16)> {
        let conn = self.client.connect(to)?;
        conn.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        answered(&conn).with_context(|| format!("no answer from {host} at {to}"))
    }

    /// Who a client gets to that asks for a server by this name.
    fn ask_tls(&self, to: SocketAddr, name: &str) -> Result<String> {
        let conn = self.client.connect(to)?;
        conn.send(&client_hello(name))?;
        Ok(String::from_utf8(conn.receive(6)?)?.trim().to_owned())
    }

    /// How a connection to nowhere ends.
    fn refused(&self, to: SocketAddr) -> String {
        self.client.connect(to).map_or_else(|failure| failure.errno, |_| "connected".to_owned())
    }

    fn verdict(&self, reason: &str) -> Result<u64> {
        Ok(self.rig.agent("a")?.status()?.verdict(reason))
    }
}

fn answered(conn: &Conn<'_>) -> Result<(String, u16)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    let head = String::from_utf8(head)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let pod = head.lines().find_map(|line| line.strip_prefix("x-pod: "));
    Ok((pod.unwrap_or_default().to_owned(), status))
}

fn from(pod: &str) -> (String, u16) {
    (pod.to_owned(), 200)
}

#[test]
fn an_external_host_with_static_endpoints_is_reached_at_its_address() -> Result<()> {
    let world = World::open("ALLOW_ANY")?;
    let out = world.rig.at("out", PORT)?;
    world.entry(
        "shop",
        &format!(
            "{{hosts: [api.example.com], addresses: [240.1.0.1], resolution: STATIC,
              ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {PORT}}}],
              endpoints: [{{address: {}}}]}}",
            out.ip()
        ),
    )?;
    let vip = "240.1.0.1:80".parse()?;
    let before = world.verdict("proxied")?;
    assert_eq!(world.ask(vip, "api.example.com")?, from("out"));
    assert_eq!(world.verdict("proxied")?, before + 1);
    Ok(())
}

#[test]
fn every_address_of_a_block_leads_to_the_host_and_those_beside_it_do_not() -> Result<()> {
    let world = World::open("ALLOW_ANY")?;
    let out = world.rig.at("out", PORT)?.ip();
    world.entry(
        "shop",
        &format!(
            "{{hosts: [db.example.com], addresses: [240.2.0.0/16, 'fd00:240::/32'],
              resolution: STATIC, ports: [{{number: 5000, name: tcp, protocol: TCP,
              targetPort: {PORT}}}], endpoints: [{{address: {out}}}]}}"
        ),
    )?;
    assert_eq!(world.rig.agent("a")?.status()?.entries("BLOCKS"), 2);
    for to in ["240.2.0.1:5000", "240.2.255.254:5000", "[fd00:240::7]:5000"] {
        assert_eq!(world.ask(to.parse()?, "any")?, from("out"), "{to}");
    }
    let before = world.verdict("proxied")?;
    for to in ["240.3.0.1:5000", "240.2.0.1:5001"] {
        assert_ne!(world.refused(to.parse()?), "connected", "{to}");
    }
    assert_eq!(world.verdict("proxied")?, before, "the block is smaller, and about one port");
    Ok(())
}

#[test]
fn a_block_without_resolution_leads_to_the_address_that_was_dialled() -> Result<()> {
    let world = World::open("ALLOW_ANY")?;
    let (out, vm) = (world.rig.at("out", PORT)?, world.rig.at("vm", PORT)?);
    world.entry(
        "shop",
        &format!(
            "{{hosts: ['*.example.com'], addresses: [{}/32, {}/31], resolution: NONE,
              ports: [{{number: {PORT}, name: http, protocol: HTTP}}]}}",
            out.ip(),
            vm.ip()
        ),
    )?;
    let before = world.verdict("proxied")?;
    assert_eq!(world.ask(out, "a.example.com")?, from("out"));
    assert_eq!(world.ask(vm, "b.example.com")?, from("vm"));
    assert_eq!(world.verdict("proxied")?, before + 2);
    // What is in the mesh and lies in the block goes over the mesh's own wires.
    let far = world.rig.at("far", PORT)?;
    assert_eq!(world.ask(far, "c.example.com")?, from("far"));
    Ok(())
}

#[test]
fn endpoints_in_the_mesh_and_workload_entries_are_selected_by_label() -> Result<()> {
    let world = World::open("ALLOW_ANY")?;
    let vm = world.rig.at("vm", PORT)?.ip();
    world.rig.manifests.write(
        "workload",
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: vm, namespace: shop, labels: {{app: far}}}}\n\
             spec: {{address: {vm}, ports: {{http: {PORT}}}}}\n"
        ),
    )?;
    world.entry(
        "shop",
        &format!(
            "{{hosts: [mixed.internal], addresses: [240.4.0.1], location: MESH_INTERNAL,
              resolution: STATIC, workloadSelector: {{labels: {{app: far}}}},
              ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {PORT}}}]}}"
        ),
    )?;
    let vip = "240.4.0.1:80".parse()?;
    let answers: Result<Vec<_>> = (0..20).map(|_| world.ask(vip, "mixed.internal")).collect();
    let answers = answers?;
    let of = |pod: &str| answers.iter().filter(|answer| **answer == from(pod)).count();
    assert_eq!(of("far") + of("vm"), 20, "{answers:?}");
    assert!(of("far") > 0 && of("vm") > 0, "{answers:?}");
    // The one that is a pod of the mesh was reached as one.
    world.rig.agent("b")?.access_log().wait(&[("security", "mutual_tls")])?;
    Ok(())
}

#[test]
fn hosts_without_an_address_are_told_apart_by_name_and_others_go_their_way() -> Result<()> {
    let world = World::open("ALLOW_ANY")?;
    let (out, vm) = (world.rig.at("out", PORT)?, world.rig.at("vm", PORT)?);
    world.entry(
        "shop",
        &format!(
            "{{hosts: [api.example.com], resolution: STATIC, endpoints: [{{address: {}}}],
              ports: [{{number: {PORT}, name: http, protocol: HTTP}}]}}",
            vm.ip()
        ),
    )?;
    // By the name, whatever was dialled; by the address, whatever else was asked for.
    assert_eq!(world.ask(out, "api.example.com")?, from("vm"));
    assert_eq!(world.ask(out, "elsewhere.example.com")?, from("out"));
    // A service that is known keeps its address.
    let listed = world.rig.at("listed", PORT)?;
    let before = world.verdict("proxied")?;
    assert_eq!(world.ask(listed, "api.example.com")?, from("listed"));
    assert_eq!(world.verdict("proxied")?, before);
    Ok(())
}

#[test]
fn server_names_tell_hosts_without_an_address_apart_and_unknown_ones_follow_the_policy()
-> Result<()> {
    for (policy, unknown, service) in [
        ("ALLOW_ANY", Some("out"), "PassthroughCluster"),
        ("REGISTRY_ONLY", None, "BlackHoleCluster"),
    ] {
        let world = World::open(policy)?;
        let out = world.rig.at("out", TLS_PORT)?;
        let spec = format!(
            "{{hosts: [api.example.com], resolution: STATIC, endpoints: [{{address: {}}}],
              ports: [{{number: {TLS_PORT}, name: tls, protocol: TLS}}]}}",
            world.rig.at("vm", TLS_PORT)?.ip()
        );
        world.entry("shop", &spec)?;
        assert_eq!(world.ask_tls(out, "api.example.com")?, "vm");
        let log = world.rig.agent("a")?.access_log();
        log.wait(&[("service", "api.example.com"), ("dialled", &out.to_string())])?;
        assert_eq!(
            world.ask_tls(out, "elsewhere.example.com").ok().as_deref(),
            unknown,
            "{policy}"
        );
        log.wait(&[("service", service), ("dialled", &out.to_string())])?;
    }
    Ok(())
}

#[test]
fn with_registry_only_what_nobody_has_registered_is_refused_and_the_rest_is_not() -> Result<()> {
    let world = World::open("REGISTRY_ONLY")?;
    let (out, vm) = (world.rig.at("out", PORT)?, world.rig.at("vm", PORT)?);
    let out6 = world.rig.at6("out", PORT)?;
    for to in [out, out6, vm] {
        assert_eq!(world.refused(to), "ECONNREFUSED", "{to}");
    }
    assert_eq!(world.verdict("not_registered")?, 3);
    let log = world.rig.agent("a")?.access_log();
    let denied = log.wait(&[("event", "denied"), ("dialled", &out.to_string())])?;
    assert_eq!(
        (denied.get("reason"), denied.get("response_flags")),
        ("not_registered".into(), "NR".into())
    );
    assert_eq!(denied.get("source.pod"), "client");
    // Services and pods of the mesh, and pods behind a headless service, are registered.
    assert_eq!(world.ask(world.rig.vip("shop", 80)?, "shop")?, from("far"));
    assert_eq!(world.ask(world.rig.at("far", PORT)?, "far")?, from("far"));
    assert_eq!(world.ask(world.rig.at("near", PORT)?, "near")?, from("near"));
    assert_eq!(world.ask(world.rig.at("listed", PORT)?, "listed")?, from("listed"));
    // So is a ServiceEntry, from the moment on that it is there, and only at its port.
    world.entry(
        "shop",
        &format!(
            "{{hosts: [api.example.com], addresses: [{}], resolution: NONE,
              ports: [{{number: {PORT}, name: tcp, protocol: TCP}}]}}",
            out.ip()
        ),
    )?;
    assert_eq!(world.ask(out, "any")?, from("out"));
    assert_eq!(world.refused(SocketAddr::new(out.ip(), 1)), "ECONNREFUSED");
    assert_eq!(world.refused(vm), "ECONNREFUSED");
    assert_eq!(world.verdict("not_registered")?, 5);
    Ok(())
}

#[test]
fn with_registry_only_an_unknown_name_at_a_registered_port_is_answered_502() -> Result<()> {
    let world = World::open("REGISTRY_ONLY")?;
    let out = world.rig.at("out", PORT)?;
    let spec = format!(
        "{{hosts: ['*.example.com'], resolution: NONE,
          ports: [{{number: {PORT}, name: http, protocol: HTTP}}]}}"
    );
    world.entry("shop", &spec)?;
    assert_eq!(world.ask(out, "api.example.com")?, from("out"));
    assert_eq!(world.ask(out, "api.example.org")?, (String::new(), 502));
    Ok(())
}

#[test]
fn an_entry_is_registered_for_those_alone_that_it_is_exported_to() -> Result<()> {
    let world = World::open("REGISTRY_ONLY")?;
    let out = world.rig.at("out", PORT)?;
    let spec = |export: &str| {
        format!(
            "{{hosts: [api.example.com], addresses: [{}], resolution: NONE, exportTo: [{export}],
              ports: [{{number: {PORT}, name: tcp, protocol: TCP}}]}}",
            out.ip()
        )
    };
    world.entry("elsewhere", &spec("'.'"))?;
    assert_eq!(world.refused(out), "ECONNREFUSED");
    world.entry("elsewhere", &spec("'.', shop"))?;
    assert_eq!(world.ask(out, "any")?, from("out"));
    Ok(())
}

#[test]
fn with_allow_any_what_nobody_has_registered_never_enters_user_space() -> Result<()> {
    let world = World::open("ALLOW_ANY")?;
    let (out, vm) = (world.rig.at("out", PORT)?, world.rig.at("vm", PORT)?);
    world.entry(
        "shop",
        &format!(
            "{{hosts: [api.example.com], addresses: [{}], resolution: NONE,
              ports: [{{number: {PORT}, name: tcp, protocol: TCP}}]}}",
            vm.ip()
        ),
    )?;
    let agent = world.rig.agent("a")?;
    let (lines, proxied) = (agent.access_log().lines()?.len(), world.verdict("proxied")?);
    let outside = world.verdict("outside_mesh")?;
    for _ in 0..5 {
        assert_eq!(world.ask(out, "any")?, from("out"));
    }
    assert_eq!(world.verdict("outside_mesh")?, outside + 5);
    assert_eq!(world.verdict("proxied")?, proxied);
    assert_eq!(agent.access_log().lines()?.len(), lines, "nobody has seen them");
    Ok(())
}
