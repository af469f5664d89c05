//! Manifests: whatever a file says, it is read to its end, twice in the same way, and compiled.

use std::path::Path;

use undermesh_control::parse_manifests;
use undermesh_model::Generation;
use undermesh_snapshot::{Options, compile};

use crate::source::{Source, spell};

/// Pieces of manifests, and what YAML has beside them.
pub(super) const DICTIONARY: &[&[u8]] = &[
    b"\n",
    b"  ",
    b"    ",
    b"- ",
    b": ",
    b"---\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b", ",
    b"\"",
    b"'",
    b"|\n",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!str ",
    b"#",
    b"\t",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"\x00",
    b"apiVersion: v1\n",
    b"kind: ",
    b"metadata:\n",
    b"name: ",
    b"namespace: ",
    b"labels:\n",
    b"spec:\n",
    b"status:\n",
    b"items:\n",
    b"List",
    b"Pod",
    b"Service",
    b"Namespace",
    b"EndpointSlice",
    b"VirtualService",
    b"DestinationRule",
    b"HTTPRoute",
    b"ServiceEntry",
    b"AuthorizationPolicy",
    b"PeerAuthentication",
    b"RequestAuthentication",
    b"networking.istio.io/v1",
    b"security.istio.io/v1",
    b"gateway.networking.k8s.io/v1",
    b"hosts",
    b"http",
    b"match",
    b"route",
    b"destination",
    b"host",
    b"port",
    b"regex",
    b"prefix",
    b"exact",
    b"rules",
    b"matches",
    b"backendRefs",
    b"selector",
    b"subsets",
    b"trafficPolicy",
    b"10.0.0.1",
    b"10.0.0.0/8",
    b"fd00::1",
    b"cart",
    b"shop",
    b"*",
    b"5s",
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let spelled = source.flag();
    let text = if spelled { source.spelled(DICTIONARY) } else { source.rest().to_vec() };
    let text = String::from_utf8_lossy(&text);
    let file = Path::new("all.yaml");
    let read = parse_manifests(&text, file);
    let again = parse_manifests(&text, file);
    assert_eq!(read.diagnostics, again.diagnostics, "read again");
    assert_eq!(read.cluster, again.cluster, "read again");
    assert_eq!(
        read.cluster.is_none(),
        read.diagnostics.iter().any(|one| one.severity == undermesh_model::Severity::Error),
        "a state with an error in it"
    );
    let Some(cluster) = read.cluster else { return };
    let options = Options { node: "node-a".to_owned(), ..Options::default() };
    let one = compile(&cluster, &options, Generation(1));
    let two = compile(&cluster, &options, Generation(1));
    assert_eq!(one.diagnostics, two.diagnostics, "compiled again");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for text in MANIFESTS {
        seeds.push([&[0][..], text.as_bytes()].concat());
        seeds.push([&[1][..], &spell(text.as_bytes(), DICTIONARY)].concat());
    }
    seeds
}

const MANIFESTS: [&str; 6] = [
    "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  labels: {app: cart}
  annotations: {undermesh.io/netns: /run/netns/cart}
spec:
  nodeName: node-a
  serviceAccountName: cart
  containers:
  - name: app
    ports:
    - {name: http, containerPort: 8080}
status:
  podIPs:
  - ip: 10.1.0.2
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: cart}
  ports:
  - {name: http, port: 80, targetPort: http}
",
    "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  ports:
  - {name: http, port: 80}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - name: one
    match:
    - uri: {prefix: /api}
      headers: {x-a: {exact: '1'}, x-b: {regex: 'a+'}}
      queryParams: {q: {exact: z}}
    rewrite: {uri: /}
    route:
    - destination: {host: cart, subset: v1}
      weight: 90
    - destination: {host: cart}
      weight: 10
    timeout: 5s
    retries: {attempts: 2, retryOn: 5xx}
  - fault: {abort: {httpStatus: 500, percentage: {value: 0.5}}}
    redirect: {uri: /x, redirectCode: 302}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user}}
    connectionPool: {tcp: {maxConnections: 10}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s}
  subsets:
  - {name: v1, labels: {version: v1}}
",
    "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  ports:
  - {name: http, port: 80}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs:
  - {group: '', kind: Service, name: cart, port: 80}
  rules:
  - matches:
    - path: {type: PathPrefix, value: /api}
      headers:
      - {name: x-a, value: '1'}
      queryParams:
      - {name: q, value: z}
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs:
    - {name: cart, port: 80, weight: 2}
    timeouts: {request: 5s}
",
    "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules:
  - from:
    - source: {principals: ['*/sa/evil'], ipBlocks: [10.0.0.0/8]}
    to:
    - operation: {paths: [/admin*], methods: [GET], ports: ['80']}
    when:
    - {key: 'request.headers[x-a]', values: ['1']}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec:
  mtls: {mode: STRICT}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: cart, namespace: shop}
spec:
  jwtRules:
  - issuer: a
    jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"YQ\"}]}'
",
    "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example, '*.example']
  addresses: [240.0.0.1]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
  - {number: 443, name: tls, protocol: TLS}
  endpoints:
  - {address: 10.9.0.1, ports: {tls: 8443}, locality: a/b/c, weight: 3}
",
    "apiVersion: v1
kind: List
items:
- &a {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- *a
---
{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"x\"}, \"data\": {\"a\": \"|\"}}
",
];
