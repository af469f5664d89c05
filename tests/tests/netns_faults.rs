//! `docs/guide/troubleshooting.md`: each fault that it tells of is made, and the commands that it shows say what it says
//! they do.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::json;
use undermesh_tests::{
    Agent, DnsServer, PodSpec, Rig, Section, ServiceSpec,
    cases::Shop,
    pod::{
        http::{Ask, PLAN},
        protocol::Behaviour,
    },
};

const PAGE: &str = "troubleshooting.md";

fn section(title: &str) -> Result<Section> {
    Section::read(PAGE, title)
}

/// An object of the namespace `shop`.
fn object(api: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    object("networking.istio.io/v1", kind, name, spec)
}

fn security(kind: &str, name: &str, spec: &str) -> String {
    object("security.istio.io/v1", kind, name, spec)
}

/// Where [`service`] is.
const VIP: &str = "10.96.9.9:80";

/// A Service of pods with this label `app`.
fn service(name: &str, app: &str) -> String {
    let spec = format!(
        "{{clusterIP: 10.96.9.9, selector: {{app: {app}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}"
    );
    object("v1", "Service", name, &spec)
}

/// A request of an address.
fn get(to: &str, authority: &str) -> Result<Ask> {
    Ok(Ask {
        to: Some(to.parse()?),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        authority: authority.to_owned(),
        ..Ask::default()
    })
}

/// A request of a service of the shop, for which servers have a plan.
fn ask(shop: &Shop, service: &str, path: &str, plan: &str) -> Result<Ask> {
    Ok(Ask {
        to: Some(shop.rig.vip(service, 80)?),
        method: "GET".to_owned(),
        path: path.to_owned(),
        authority: service.to_owned(),
        headers: [(PLAN.to_owned(), plan.to_owned())].into(),
        ..Ask::default()
    })
}

#[test]
fn a_service_without_pods() -> Result<()> {
    let section = section("A Service has no pod behind it")?;
    let rig = Rig::started()?;
    rig.apply("service", &service("empty", "nobody"))?;
    rig.pod("client")?.connect(VIP.parse()?).err().context("somebody answers")?;
    section.holds(&rig, "a", "no_endpoint")
}

#[test]
fn a_port_that_no_service_has() -> Result<()> {
    let section = section("The port is not one of the Service's")?;
    section.holds(&Rig::started()?, "a", "81")
}

#[test]
fn nobody_listens() -> Result<()> {
    let section = section("The application does not listen")?;
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    if let Ok(conn) = client.connect(rig.vip("far", 80)?) {
        conn.exchange(b"hello").err().context("somebody answers")?;
    }
    section.holds(&rig, "a", "destination_unreachable")
}

#[test]
fn a_policy_denies_connections() -> Result<()> {
    let section = section("A policy refuses the connection")?;
    let rig = Rig::started()?;
    let near = rig.pod("near")?;
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    rig.apply(
        "guard",
        &security(
            "AuthorizationPolicy",
            "no-client",
            "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]}",
        ),
    )?;
    rig.pod("client")?.connect(rig.vip("near", 80)?).err().context("it is allowed")?;
    section.holds(&rig, "a", "AuthorizationPolicy shop/no-client")
}

#[test]
fn strict_and_a_client_outside() -> Result<()> {
    let section = section("STRICT refuses a client that is not in the mesh")?;
    let rig = Rig::started()?;
    let near = rig.pod("near")?;
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    rig.apply("strict", &security("PeerAuthentication", "default", "{mtls: {mode: STRICT}}"))?;
    rig.pod("outsider")?.connect(rig.at("near", 8080)?).err().context("it is let in")?;
    section.holds(&rig, "a", "strict-beside-unmeshed")
}

#[test]
fn a_subset_without_pods() -> Result<()> {
    let section = section("A subset has no pod")?;
    let rig = Rig::started()?;
    let subsets = "{host: cart, subsets: [{name: v9, labels: {version: v9}}]}";
    let route = "{hosts: [cart], http: [{route: [{destination: {host: cart, subset: v9}}]}]}";
    let objects = [
        service("cart", "server"),
        istio("DestinationRule", "cart", subsets),
        istio("VirtualService", "cart", route),
    ];
    rig.apply("subset", &objects.join("---\n"))?;
    let replies = rig.pod("client")?.ask(get(VIP, "cart")?)?;
    assert_eq!(replies[0].status, 503, "{replies:?}");
    section.holds(&rig, "a", "subset-without-pods")
}

#[test]
fn an_unknown_subset() -> Result<()> {
    let section = section("A route names a subset that does not exist")?;
    let shop = Shop::open()?;
    let route = "{hosts: [trio], http: [{route: [{destination: {host: trio, subset: v2}}]}]}";
    shop.rig.submit("subset", &istio("VirtualService", "trio", route))?;
    section.holds(&shop.rig, "a", "v2")
}

#[test]
fn a_shadowed_route() -> Result<()> {
    let section = section("A rule is never reached")?;
    let shop = Shop::open()?;
    let route = "{hosts: [trio], http: [\
                 {name: all, route: [{destination: {host: trio}}]},\
                 {name: canary, match: [{headers: {x-canary: {exact: 'yes'}}}], route: [{destination: {host: trio}}]}]}";
    shop.rig.apply("routes", &istio("VirtualService", "trio", route))?;
    section.holds(&shop.rig, "a", "unreachable-rule")
}

#[test]
fn an_ejected_endpoint() -> Result<()> {
    let section = section("An endpoint is ejected")?;
    let shop = Shop::open()?;
    let rule = "{host: trio, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: \
                {consecutive5xxErrors: 1, baseEjectionTime: 600s, maxEjectionPercent: 50}}}";
    shop.rig.apply("rule", &istio("DestinationRule", "trio", rule))?;
    shop.client("client")?.ask(Ask { times: 3, ..ask(&shop, "trio", "/", "two:500")? })?;
    section.holds(&shop.rig, "a", "consecutive_5xx")
}

#[test]
fn a_slow_endpoint() -> Result<()> {
    let section = section("Requests end with 504")?;
    let shop = Shop::open()?;
    let route = "{hosts: [two], http: [{timeout: 200ms, route: [{destination: {host: two}}]}]}";
    shop.rig.apply("routes", &istio("VirtualService", "two", route))?;
    let replies = shop.client("client")?.ask(ask(&shop, "two", "/items", "hold")?)?;
    assert_eq!(replies[0].status, 504, "{replies:?}");
    section.holds(&shop.rig, "a", "504 UT timeout")
}

#[test]
fn a_denied_request() -> Result<()> {
    let section = section("Requests end with 403")?;
    let shop = Shop::open()?;
    let spec = "{action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}";
    shop.rig.apply("guard", &security("AuthorizationPolicy", "no-admin", spec))?;
    // Its one pod is on node b.
    let replies = shop.client("client")?.ask(ask(&shop, "two", "/admin/users", "")?)?;
    assert_eq!(replies[0].status, 403, "{replies:?}");
    section.holds(&shop.rig, "b", "AuthorizationPolicy shop/no-admin")
}

/// A token of an issuer that ends so many seconds from now.
fn token(key: &EncodingKey, issuer: &str, seconds: i64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let claims = json!({"iss": issuer, "sub": "alice", "exp": now + seconds});
    Ok(encode(&Header::new(Algorithm::ES256), &claims, key)?)
}

#[test]
fn tokens_that_are_not_taken() -> Result<()> {
    let section = section("Tokens are refused")?;
    let key = EncodingKey::from_ec_der(&KeyPair::generate()?.serialize_der());
    let keys = json!({"keys": [Jwk::from_encoding_key(&key, Algorithm::ES256)?]});
    let shop = Shop::open()?;
    let selector = "selector: {matchLabels: {app: two}}";
    let rules =
        format!("{{{selector}, jwtRules: [{{issuer: 'https://login.example', jwks: '{keys}'}}]}}");
    let allowed = format!(
        "{{{selector}, action: ALLOW, rules: [{{from: [{{source: {{requestPrincipals: \
         ['https://login.example/*']}}}}]}}]}}"
    );
    let objects = [
        security("RequestAuthentication", "tokens", &rules),
        security("AuthorizationPolicy", "with-token", &allowed),
    ];
    shop.rig.apply("tokens", &objects.join("---\n"))?;
    let client = shop.client("client")?;
    let with = |token: Option<String>| -> Result<u16> {
        let mut ask = ask(&shop, "two", "/items", "")?;
        let bearer = token.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        ask.headers.extend(bearer);
        Ok(client.ask(ask)?[0].status)
    };
    assert_eq!(with(Some(token(&key, "https://login.example", 600)?))?, 200);
    assert_eq!(with(Some(token(&key, "https://login.example", -600)?))?, 401);
    assert_eq!(with(Some(token(&key, "https://old.example", 600)?))?, 401);
    assert_eq!(with(None)?, 403);
    // Its one pod is on node b.
    section.holds(&shop.rig, "b", "RequestAuthentication shop/tokens")
}

#[test]
fn a_certificate_that_is_not_renewed() -> Result<()> {
    let section = section("Certificates are not renewed")?;
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("svidLifetime", "40s");
    rig.start()?;
    let dir = rig.node("a")?.settings.get("caDir").context("no caDir")?.to_owned();
    fs::remove_file(Path::new(&dir).join("intermediate.key"))?;
    section.holds(&rig, "a", "cannot be renewed")
}

#[test]
fn a_full_map() -> Result<()> {
    let section = section("A map is full")?;
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("maxServices", "2");
    rig.init_ca()?;
    let agent = Agent::start(rig.node("a")?)?;
    rig.node_mut("a")?.agent = Some(agent);
    section.holds(&rig, "a", "maxServices")
}

#[test]
fn pins_without_an_agent() -> Result<()> {
    let section = section("An agent has left programs behind")?;
    let mut rig = Rig::started()?;
    rig.take_agent("a")?.kill()?;
    section.holds(&rig, "a", "pins-without-agent")
}

#[test]
fn a_name_that_dns_does_not_know() -> Result<()> {
    let section = section("A host cannot be resolved")?;
    let pods = [PodSpec::new("client"), PodSpec::new("dns").unlisted()];
    let mut rig = Rig::builder().node("a", pods).build()?;
    let at = rig.at("dns", 53)?;
    let dns = DnsServer::start(&rig.place("dns")?.netns, at)?;
    dns.fail();
    rig.node_mut("a")?.settings.set("dnsServers", &format!("[\"{at}\"]"));
    rig.start()?;
    let entry = "{hosts: [api.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, \
                 location: MESH_EXTERNAL, addresses: [240.1.1.1]}";
    rig.apply("entry", &istio("ServiceEntry", "api", entry))?;
    let replies = rig.pod("client")?.ask(get("240.1.1.1:80", "api.example")?)?;
    assert_eq!(replies[0].status, 503, "{replies:?}");
    section.holds(&rig, "a", "DNS does not answer for api.example")
}

#[test]
fn a_configuration_that_is_rejected() -> Result<()> {
    let section = section("A change does nothing")?;
    let rig = Rig::started()?;
    rig.manifests.write("broken", "apiVersion: v1\nkind: Service\nmetadata: {name: x\n")?;
    section.holds(&rig, "a", "configuration rejected")
}

#[test]
fn a_port_named_against_its_protocol() -> Result<()> {
    let section = section("Routes are ignored at a port")?;
    let mut rig = Rig::standard()
        .service(ServiceSpec::new("cart", 80, 8080, &["server"]).port(81, 8081, "tcp-http"))
        .build()?;
    rig.start()?;
    let route = "{hosts: [cart], http: [{match: [{port: 81}], route: \
                 [{destination: {host: cart, port: {number: 81}}}]}]}";
    rig.apply("routes", &istio("VirtualService", "cart", route))?;
    section.holds(&rig, "a", "route-without-port")
}

#[test]
fn a_pod_that_is_not_led_through_the_mesh() -> Result<()> {
    let section = section("A pod is not in the mesh")?;
    let mut rig = Rig::builder().node("a", [PodSpec::new("client")]).build()?;
    rig.start()?;
    rig.manifests.write(
        "ghost",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: ghost\n  namespace: shop\n  labels: {istio.io/dataplane-mode: ambient}\n  \
         annotations: {undermesh.io/netns: /run/netns/there-is-none}\n\
         spec: {nodeName: a, serviceAccountName: client}\nstatus: {phase: Running, podIP: 10.9.9.9, podIPs: [{ip: 10.9.9.9}]}\n",
    )?;
    section.holds(&rig, "a", "there-is-none")
}

#[test]
fn a_network_policy_between_nodes() -> Result<()> {
    let section = section("A NetworkPolicy keeps the mesh out")?;
    // The native wire needs no tunnel.
    let mut rig = Rig::speaking("hbone").build()?;
    rig.start()?;
    let spec = "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], \
                ingress: [{ports: [{port: 8080}]}]}";
    rig.apply("netpol", &object("networking.k8s.io/v1", "NetworkPolicy", "only-8080", spec))?;
    section.holds(&rig, "a", "NetworkPolicy")
}
