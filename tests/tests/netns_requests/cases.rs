//! Rules about requests, requests for every way that they may end, and what is to be known of each.

use undermesh_tests::pod::http::Speaks;

/// Routes of the service `two`, which is on another node; a limit for `three`, on the same one; destinations that cannot
/// answer; and policies that look at requests of `two` and of `one`, which is on the client's node.
pub(super) const OBJECTS: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: two, namespace: shop}
spec:
  hosts: [two]
  http:
  - name: slow
    match: [{uri: {prefix: /slow}}]
    timeout: 0.2s
    route: [{destination: {host: two}}]
  - name: retried
    match: [{uri: {prefix: /retried}}]
    retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: two}}]
  - name: aborted
    match: [{uri: {prefix: /aborted}}]
    fault: {delay: {fixedDelay: 0.01s, percentage: {value: 100}}, abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: two}}]
  - name: direct
    match: [{uri: {prefix: /direct}}]
    directResponse: {status: 202, body: {string: here}}
  - name: moved
    match: [{uri: {prefix: /moved}}]
    redirect: {uri: /new}
  - name: mirrored
    match: [{uri: {prefix: /mirrored}}]
    mirror: {host: one}
    mirrorPercentage: {value: 100}
    route: [{destination: {host: two}}]
  - name: plain
    match: [{uri: {prefix: /plain}}, {uri: {prefix: /admin}}, {uri: {prefix: /pkg}}]
    route: [{destination: {host: two}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: shop}
spec: {hosts: [one], http: [{name: near, route: [{destination: {host: one}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: empty, namespace: shop}
spec: {hosts: [empty], http: [{route: [{destination: {host: empty}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: dead, namespace: shop}
spec: {hosts: [dead], http: [{route: [{destination: {host: dead}}], retries: {attempts: 0}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: three, namespace: shop}
spec: {host: three, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard-two, namespace: shop}
spec: {selector: {matchLabels: {app: two}}, action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard-one, namespace: shop}
spec: {selector: {matchLabels: {app: one}}, action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}
";

/// A request of `client`, and what is to be known of it.
pub(super) struct Case<'a> {
    /// Its `x-request-id`.
    pub(super) id: &'a str,
    pub(super) to: &'a str,
    pub(super) path: &'a str,
    pub(super) plan: &'a str,
    pub(super) speaks: Speaks,
    pub(super) status: u16,
    /// Fields of the source's line.
    pub(super) source: &'a [(&'a str, &'a str)],
    /// Fields of the destination's lines, and how many of these there are.
    pub(super) destination: (usize, &'a [(&'a str, &'a str)]),
}

pub(super) const PLAIN: Case<'_> = Case {
    id: "plain",
    to: "two:80",
    path: "/plain?token=secret",
    plan: "",
    speaks: Speaks::Http1,
    status: 200,
    source: &[
        ("method", "GET"),
        ("authority", "two"),
        ("path", "/plain?token=*"),
        ("protocol", "HTTP/1.1"),
        ("status", "200"),
        ("reason", "answered"),
        ("response_flags", "-"),
        ("route", "VirtualService shop/two"),
        ("route_name", "plain"),
        ("cluster", "outbound|80||two.shop.svc.cluster.local"),
        ("service", "two.shop.svc.cluster.local"),
        ("attempts", "1"),
        ("source.pod", "client"),
        ("destination.pod", "two"),
        ("transport", "native"),
        ("security", "mutual_tls"),
        ("user_agent", "tester/1"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
    ],
    destination: (
        1,
        &[
            ("path", "/plain?token=*"),
            ("status", "200"),
            ("reason", "answered"),
            ("source.identity", "spiffe://cluster.local/ns/shop/sa/client"),
            ("destination.pod", "two"),
            ("service", "two.shop.svc.cluster.local"),
            ("security", "mutual_tls"),
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ],
    ),
};

pub(super) const CASES: [Case<'_>; 12] = [
    PLAIN,
    Case {
        id: "none",
        path: "/nothing",
        status: 404,
        source: &[
            ("status", "404"),
            ("reason", "no_route"),
            ("response_flags", "NR"),
            ("attempts", "0"),
        ],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "slow",
        path: "/slow",
        plan: "wait=3000",
        status: 504,
        source: &[
            ("status", "504"),
            ("reason", "timeout"),
            ("response_flags", "UT"),
            ("route_name", "slow"),
        ],
        // Whether the application's late answer finds somebody is for the wire to say.
        destination: (1, &[("destination.pod", "two")]),
        ..PLAIN
    },
    Case {
        id: "retried",
        path: "/retried",
        plan: "503",
        status: 503,
        source: &[
            ("status", "503"),
            ("reason", "answered"),
            ("response_flags", "URX"),
            ("attempts", "3"),
        ],
        destination: (3, &[("status", "503"), ("reason", "answered"), ("response_flags", "-")]),
        ..PLAIN
    },
    Case {
        id: "aborted",
        path: "/aborted",
        status: 418,
        source: &[("status", "418"), ("reason", "fault_injected"), ("response_flags", "DI,FI")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "direct",
        path: "/direct",
        status: 202,
        source: &[("reason", "direct_response"), ("response_flags", "-"), ("bytes_sent", "4")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "moved",
        path: "/moved",
        status: 301,
        source: &[("status", "301"), ("reason", "redirect"), ("response_flags", "-")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "denied",
        path: "/admin",
        status: 403,
        source: &[("status", "403"), ("reason", "answered"), ("response_flags", "-")],
        destination: (
            1,
            &[
                ("status", "403"),
                ("reason", "policy_denied"),
                ("response_flags", "UAEX"),
                ("policy", "AuthorizationPolicy shop/guard-two"),
                ("attempts", "0"),
            ],
        ),
        ..PLAIN
    },
    Case {
        id: "call",
        to: "two:82",
        path: "/pkg.Service/Call",
        plan: "trailer=5",
        speaks: Speaks::Grpc,
        source: &[
            ("protocol", "HTTP/2"),
            ("status", "200"),
            ("grpc_status", "5"),
            ("reason", "answered"),
        ],
        destination: (1, &[("grpc_status", "5"), ("reason", "answered")]),
        ..PLAIN
    },
    Case {
        id: "empty",
        to: "empty:80",
        status: 503,
        source: &[("status", "503"), ("reason", "no_endpoints"), ("response_flags", "UH")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "dead",
        to: "dead:80",
        status: 503,
        // On the client's node the policy of `one` stands between: its judge cannot connect.
        source: &[("status", "503"), ("reason", "answered"), ("destination.pod", "one")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "mirrored",
        path: "/mirrored",
        source: &[("reason", "answered"), ("destination.pod", "two")],
        destination: (1, &[("reason", "answered")]),
        ..PLAIN
    },
];
