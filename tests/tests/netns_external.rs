//! Hosts outside the mesh: found by DNS, spoken to in TLS, as YAML says.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::version::{TLS12, TLS13};
use undermesh_tests::{
    Authority, Conn, DnsServer, PORT, Pod, PodSpec, Rig, ServiceSpec, TlsServer,
    pod::protocol::Behaviour, wait_for,
};

const HOST: &str = "api.example";
const VIP: &str = "240.0.0.1";
const TLS_PORT: u16 = 8443;
/// Longer than the shortest time that a record is kept for, by what a busy machine needs.
const FOLLOWED: Duration = Duration::from_secs(30);

/// A pod `client` with an agent; pods `one` and `two`, which are outside the mesh, and a DNS server.
struct World {
    client: Pod,
    dns: DnsServer,
    rig: Rig,
}

impl World {
    /// `resolution` of the ServiceEntry for [`HOST`], whose port 80 is HTTP and 90 TCP, both at `target`.
    fn open(resolution: &str, target: u16) -> Result<Self> {
        let outside = ["one", "two", "dns"].map(|name| PodSpec::new(name).unlisted());
        let pods = outside.into_iter().chain([PodSpec::new("client")]);
        let legacy = ServiceSpec::new("legacy", 80, TLS_PORT, &["one"]).port(80, TLS_PORT, "http");
        let mut rig = Rig::builder().node("a", pods).service(legacy).build()?;
        let at = rig.at("dns", 53)?;
        let dns = DnsServer::start(&rig.place("dns")?.netns, at)?;
        rig.node_mut("a")?.settings.set("dnsServers", &format!("[\"{at}\"]"));
        rig.manifests.write(
            "entry",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {{name: api, namespace: shop}}\nspec:\n  hosts: [{HOST}]\n  \
                 addresses: [{VIP}]\n  resolution: {resolution}\n  ports:\n  \
                 - {{number: 80, name: http, protocol: HTTP, targetPort: {target}}}\n  \
                 - {{number: 90, name: tcp, protocol: TCP, targetPort: {target}}}\n"
            ),
        )?;
        rig.start()?;
        let client = rig.pod("client")?;
        Ok(Self { client, dns, rig })
    }

    /// From now on, the host is at these pods.
    fn host_is_at(&self, pods: &[&str]) -> Result<()> {
        let addresses: Result<Vec<_>> =
            pods.iter().map(|pod| Ok(self.rig.at(pod, 0)?.ip())).collect();
        self.dns.are(HOST, &addresses?);
        Ok(())
    }

    /// A server with this certificate at pod `one`.
    fn serve(
        &self,
        authority: &Authority,
        name: &str,
        clients: Option<&Authority>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Result<TlsServer> {
        let (netns, at) = (&self.rig.place("one")?.netns, self.rig.at("one", TLS_PORT)?);
        TlsServer::start(netns, at, &authority.issue(&[name])?, clients, version)
    }

    fn authority(&self, name: &str) -> Result<Authority> {
        Authority::new(name, &self.rig.node("a")?.dir)
    }

    /// Puts `tls` of a DestinationRule for the host in force.
    fn tls(&self, tls: &str) -> Result<()> {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: api, namespace: shop}}\nspec:\n  host: {HOST}\n  \
             trafficPolicy:\n    tls: {{{tls}}}\n"
        );
        self.rig.apply("rule", &yaml)
    }

    /// Status, head and body of the answer to one request.
    fn get(&self) -> Result<(u16, String, String)> {
        let conn = self.client.connect(vip(80)?)?;
        conn.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())?;
        read(&conn)
    }

    /// What comes back of a text that is no request.
    fn say(&self, text: &str) -> Result<String> {
        let conn = self.client.connect(vip(90)?)?;
        conn.send(text.as_bytes())?;
        Ok(String::from_utf8(conn.receive(text.len())?)?)
    }
}

fn vip(port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(VIP.parse()?, port))
}

fn read(conn: &Conn<'_>) -> Result<(u16, String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    let head = String::from_utf8(head)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body = conn.receive(length.unwrap_or("0").parse()?)?;
    Ok((status, head, String::from_utf8(body)?))
}

/// The pod that has answered.
fn answered(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("x-pod: ")).unwrap_or_default()
}

/// Plain HTTP servers at `one` and `two`, for as long as they live.
fn servers(world: &World) -> Result<Vec<Pod>> {
    let server = |name: &str| {
        let pod = world.rig.pod(name)?;
        let at = (Ipv6Addr::UNSPECIFIED, PORT).into();
        pod.listen_many(at, 1, Behaviour::Http(name.to_owned()))?;
        Ok(pod)
    };
    ["one", "two"].into_iter().map(server).collect()
}

#[test]
fn a_host_is_followed_where_dns_says_it_is() -> Result<()> {
    let world = World::open("DNS", PORT)?;
    let _servers = servers(&world)?;
    world.host_is_at(&["one"])?;
    let (status, head, _) = world.get()?;
    assert_eq!((status, answered(&head)), (200, "one"));

    world.host_is_at(&["one", "two"])?;
    wait_for("both addresses to be used", FOLLOWED, || {
        let seen: Result<Vec<_>> =
            (0..8).map(|_| Ok(answered(&world.get()?.1).to_owned())).collect();
        let seen = seen?;
        Ok(["one", "two"].iter().all(|name| seen.iter().any(|one| one == name)).then_some(()))
    })?;

    world.host_is_at(&["two"])?;
    wait_for("the other address", FOLLOWED, || {
        // So many that they cannot all have come from one of two by chance.
        let answers: Result<Vec<_>> = (0..64).map(|_| world.get()).collect();
        let answers = answers?;
        assert!(
            answers.iter().all(|(status, ..)| *status == 200),
            "a request was lost: {answers:?}"
        );
        Ok(answers.iter().all(|(_, head, _)| answered(head) == "two").then_some(()))
    })?;

    world.dns.fail();
    let agent = world.rig.agent("a")?;
    wait_for("a warning", FOLLOWED, || {
        let warnings = agent.status()?.warnings;
        Ok(warnings
            .iter()
            .any(|one| one.contains("DNS does not answer for api.example"))
            .then_some(()))
    })?;
    assert_eq!(answered(&world.get()?.1), "two", "what DNS said last stays in force");
    Ok(())
}

#[test]
fn a_host_with_one_address_at_a_time_is_followed_by_new_connections() -> Result<()> {
    let world = World::open("DNS_ROUND_ROBIN", PORT)?;
    let _servers = servers(&world)?;
    world.host_is_at(&["one", "two"])?;
    for _ in 0..8 {
        assert_eq!(answered(&world.get()?.1), "one");
    }
    let kept = world.client.connect(vip(90)?)?;
    let ask = |conn: &Conn<'_>| -> Result<String> {
        conn.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        Ok(answered(&read(conn)?.1).to_owned())
    };
    assert_eq!(ask(&kept)?, "one");
    world.host_is_at(&["two", "one"])?;
    wait_for("new connections at the other address", FOLLOWED, || {
        Ok((ask(&world.client.connect(vip(90)?)?)? == "two").then_some(()))
    })?;
    assert_eq!(ask(&kept)?, "one", "a connection stays where it is");
    Ok(())
}

#[test]
fn a_host_outside_is_spoken_to_in_tls_that_proves_who_it_is() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    world.host_is_at(&["one"])?;
    let (ours, theirs) = (world.authority("ours")?, world.authority("theirs")?);
    let server = world.serve(&ours, HOST, None, &TLS13)?;
    world.tls(&format!("mode: SIMPLE, caCertificates: {}", ours.root_file().display()))?;
    let (status, _, body) = world.get()?;
    assert_eq!(
        (status, body.as_str()),
        (200, "sni=api.example client=unknown version=Some(TLSv1_3)")
    );
    assert_eq!(world.say("no request at all")?, "no request at all");

    // The wrong authority.
    world.tls(&format!("mode: SIMPLE, caCertificates: {}", theirs.root_file().display()))?;
    assert_eq!(world.get()?.0, 503);
    assert!(world.say("secret").is_err());
    let log = world.rig.agent("a")?.access_log();
    log.wait(&[("response_flags", "UF"), ("reason", "tls_unknown_issuer")])?;

    // The system's authorities know nothing of ours, and are asked where none is named.
    world.tls("mode: SIMPLE")?;
    assert_eq!(world.get()?.0, 503);
    world.tls("mode: SIMPLE, insecureSkipVerify: true")?;
    assert_eq!(world.get()?.0, 200);

    // A server that speaks only what is older, at the same address.
    drop(server);
    let older =
        wait_for("the address", FOLLOWED, || Ok(world.serve(&ours, HOST, None, &TLS12).ok()))?;
    world.tls(&format!(
        "mode: SIMPLE, sni: other.example, subjectAltNames: [{HOST}], caCertificates: {}",
        ours.root_file().display()
    ))?;
    assert_eq!(world.get()?.2, "sni=other.example client=unknown version=Some(TLSv1_2)");
    drop(older);
    Ok(())
}

#[test]
fn a_certificate_for_another_name_is_refused_and_the_log_has_both_names() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    world.host_is_at(&["one"])?;
    let ours = world.authority("ours")?;
    let _server = world.serve(&ours, HOST, None, &TLS13)?;
    let root = ours.root_file();
    world.tls(&format!(
        "mode: SIMPLE, subjectAltNames: [else.example], caCertificates: {}",
        root.display()
    ))?;
    assert!(world.say("secret").is_err());
    let log = world.rig.agent("a")?.access_log();
    let line = log.wait(&[("response_flags", "UF"), ("reason", "tls_wrong_name")])?;
    let detail = line.get("detail");
    assert!(detail.contains("is for api.example instead of else.example"), "{detail}");
    assert_eq!(world.get()?.0, 503);
    Ok(())
}

#[test]
fn a_server_that_wants_to_know_its_client_gets_a_certificate() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    world.host_is_at(&["one"])?;
    let ours = world.authority("ours")?;
    let client = ours.issue(&["client.example"])?;
    let _server = world.serve(&ours, HOST, Some(&ours), &TLS13)?;
    let root = ours.root_file();
    world.tls(&format!("mode: SIMPLE, caCertificates: {}", root.display()))?;
    assert_eq!(world.get()?.0, 503, "without a certificate");
    world.tls(&format!(
        "mode: MUTUAL, caCertificates: {}, clientCertificate: {}, privateKey: {}",
        root.display(),
        client.certificate_file.display(),
        client.key_file.display()
    ))?;
    let (status, _, body) = world.get()?;
    assert_eq!(
        (status, body.as_str()),
        (200, "sni=api.example client=certified version=Some(TLSv1_3)")
    );
    assert_eq!(world.say("no request at all")?, "no request at all");
    Ok(())
}

#[test]
fn a_backend_tls_policy_is_kept_to_for_endpoints_that_are_not_enrolled() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    let ours = world.authority("ours")?;
    let _server = world.serve(&ours, "legacy.example", None, &TLS13)?;
    let policy = |host: &str, map: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
             metadata: {{name: legacy, namespace: shop}}\nspec:\n  \
             targetRefs: [{{group: '', kind: Service, name: legacy}}]\n  \
             validation: {{hostname: {host}, \
             caCertificateRefs: [{{group: '', kind: ConfigMap, name: {map}}}]}}\n"
        )
    };
    let root = ours.root().replace('\n', "\n    ");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: shop}";
    world.rig.manifests.write("ca", &format!("{map}\ndata:\n  ca.crt: |\n    {root}\n"))?;
    world.rig.apply("policy", &policy("legacy.example", "ca"))?;
    let get = || -> Result<(u16, String, String)> {
        let conn = world.client.connect(world.rig.vip("legacy", 80)?)?;
        conn.send(b"GET / HTTP/1.1\r\nHost: legacy\r\n\r\n")?;
        read(&conn)
    };
    let (status, _, body) = get()?;
    let wanted = "sni=legacy.example client=unknown version=Some(TLSv1_3)";
    assert_eq!((status, body.as_str()), (200, wanted));

    world.rig.apply("policy", &policy("other.example", "ca"))?;
    assert_eq!(get()?.0, 503, "a certificate for another name");
    world.rig.apply("policy", &policy("legacy.example", "none"))?;
    assert_eq!(get()?.0, 503, "without a root, nobody is trusted");
    world.rig.apply("policy", &policy("legacy.example", "ca"))?;
    assert_eq!(get()?.0, 200);
    Ok(())
}
