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

/// A Secret of the client's namespace, as `kubectl create secret` writes it but for the encoding.
fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let mut yaml = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n"
    );
    for (key, pem) in entries {
        yaml.push_str(&format!("  {key}: |\n    {}\n", pem.trim().replace('\n', "\n    ")));
    }
    yaml
}

#[test]
fn certificates_keys_and_roots_come_from_secrets_of_the_clients_namespace() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    world.host_is_at(&["one"])?;
    let (ours, theirs) = (world.authority("ours")?, world.authority("theirs")?);
    let client = ours.issue(&["client.example"])?;
    let _server = world.serve(&ours, HOST, Some(&ours), &TLS13)?;
    world.tls("mode: MUTUAL, credentialName: outside")?;
    assert_eq!(world.get()?.0, 503, "without the Secret");
    assert!(world.say("secret").is_err());
    let log = world.rig.agent("a")?.access_log();
    let line = log.wait(&[("reason", "tls_rule"), ("response_flags", "UF")])?;
    assert!(line.get("detail").contains("Secret shop/outside does not exist"));

    let (certificate, key) = (
        std::fs::read_to_string(&client.certificate_file)?,
        std::fs::read_to_string(&client.key_file)?,
    );
    let pair = [("tls.crt", certificate.as_str()), ("tls.key", key.as_str())];
    let root = ours.root();
    world.rig.apply("secret", &secret("outside", &[pair[0], pair[1], ("ca.crt", &root)]))?;
    let mutual = "sni=api.example client=certified version=Some(TLSv1_3)";
    assert_eq!((world.get()?.0, world.get()?.2.as_str()), (200, mutual));
    assert_eq!(world.say("no request at all")?, "no request at all");

    // Roots of a Secret of their own go before those beside the certificate.
    let theirs = theirs.root();
    let other = secret("outside", &[pair[0], pair[1], ("ca.crt", &theirs)]);
    world.rig.apply("secret", &other)?;
    assert_eq!(world.get()?.0, 503, "another authority");
    world
        .rig
        .apply("secret", &format!("{other}{}", secret("outside-cacert", &[("ca.crt", &root)])))?;
    assert_eq!(world.get()?.0, 200);

    // Nothing of the key is told to anybody.
    let agent = world.rig.agent("a")?;
    let secret_line = key.lines().nth(1).context("a key has lines")?;
    for told in [agent.log(), agent.admin("/config_dump")?, agent.metrics()?] {
        assert!(!told.contains(secret_line));
    }
    Ok(())
}

#[test]
fn a_certificate_that_was_revoked_is_refused() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    world.host_is_at(&["one"])?;
    let ours = world.authority("ours")?;
    let issued = ours.issue(&[HOST])?;
    let (netns, at) = (&world.rig.place("one")?.netns, world.rig.at("one", TLS_PORT)?);
    let _server = TlsServer::start(netns, at, &issued, None, &TLS13)?;
    let root = ours.root_file();
    let with = |list: &std::path::Path| {
        let (root, list) = (root.display(), list.display());
        world.tls(&format!("mode: SIMPLE, caCertificates: {root}, caCrl: {list}"))
    };
    with(&ours.revoke(&[])?)?;
    assert_eq!(world.get()?.0, 200);
    with(&ours.revoke(&[&issued])?)?;
    assert_eq!(world.get()?.0, 503);
    assert!(world.say("secret").is_err());
    let log = world.rig.agent("a")?.access_log();
    log.wait(&[("response_flags", "UF"), ("reason", "tls_revoked")])?;
    // Of a list that is not there, nobody knows what it would say.
    with(std::path::Path::new("/none/such"))?;
    assert_eq!(world.get()?.0, 503);
    Ok(())
}

#[test]
fn an_endpoint_that_is_not_enrolled_is_shown_the_clients_own_identity_and_has_to_prove_its()
-> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    world.host_is_at(&["one"])?;
    let mesh = Authority::of_mesh(&world.rig.ca_dir(), &world.rig.node("a")?.dir)?;
    let one = "spiffe://cluster.local/ns/shop/sa/one";
    let _server = world.serve(&mesh, one, Some(&mesh), &TLS13)?;
    world.tls("mode: ISTIO_MUTUAL")?;
    assert_eq!(world.get()?.0, 503, "nobody says who it is");
    assert!(world.say("secret").is_err());
    let log = world.rig.agent("a")?.access_log();
    let line = log.wait(&[("reason", "tls_rule"), ("response_flags", "UF")])?;
    assert!(line.get("detail").contains("nobody says who the endpoint is"));

    world.tls(&format!("mode: ISTIO_MUTUAL, subjectAltNames: ['{one}']"))?;
    let (status, _, body) = world.get()?;
    let client = "spiffe://cluster.local/ns/shop/sa/client";
    let wanted = format!("sni=outbound_.80_._.{HOST} client={client} version=Some(TLSv1_3)");
    assert_eq!((status, body), (200, wanted));
    assert_eq!(world.say("no request at all")?, "no request at all");

    world.tls("mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/two']")?;
    assert_eq!(world.get()?.0, 503);
    assert!(world.say("secret").is_err());
    let line = log.wait(&[("response_flags", "UF"), ("reason", "tls_wrong_name")])?;
    assert!(line.get("detail").contains(one), "{}", line.get("detail"));
    Ok(())
}

#[test]
fn an_endpoint_has_to_be_who_the_service_account_of_its_workload_entry_says() -> Result<()> {
    let world = World::open("DNS", TLS_PORT)?;
    let mesh = Authority::of_mesh(&world.rig.ca_dir(), &world.rig.node("a")?.dir)?;
    let one = "spiffe://cluster.local/ns/shop/sa/one";
    let _server = world.serve(&mesh, one, Some(&mesh), &TLS13)?;
    world.tls("mode: ISTIO_MUTUAL")?;
    let entry = |account: &str| -> Result<()> {
        let address = world.rig.at("one", 0)?.ip();
        world.rig.apply(
            "entry",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
                 metadata: {{name: one, namespace: shop}}\n\
                 spec: {{address: {address}, labels: {{app: api}}, serviceAccount: {account}}}\n---\n\
                 apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {{name: api, namespace: shop}}\nspec:\n  hosts: [{HOST}]\n  \
                 addresses: [{VIP}]\n  resolution: STATIC\n  \
                 workloadSelector: {{labels: {{app: api}}}}\n  \
                 ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {TLS_PORT}}}]\n"
            ),
        )
    };
    entry("one")?;
    assert_eq!(world.get()?.0, 200);
    entry("two")?;
    assert_eq!(world.get()?.0, 503);
    Ok(())
}
