//! The fields of a DestinationRule that somebody may write.

use crate::{
    fields::{self, Known},
    report::{Report, Subject},
};

const OBJECT: &[Known] = &[
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"]),
    ("spec.workloadSelector", &["matchLabels"]),
    ("spec.subsets.[]", &["name", "labels", "trafficPolicy"]),
];

const POLICY: &[&str] = &[
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
    "portLevelSettings",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
];

/// What stands in a policy and in that of a port.
const SETTINGS: &[Known] = &[
    (
        "loadBalancer",
        &[
            "simple",
            "consistentHash",
            "localityLbSetting",
            "zoneAwareLbSetting",
            "warmupDurationSecs",
            "warmup",
        ],
    ),
    (
        "loadBalancer.consistentHash",
        &[
            "httpHeaderName",
            "httpCookie",
            "useSourceIp",
            "httpQueryParameterName",
            "ringHash",
            "maglev",
            "minimumRingSize",
        ],
    ),
    ("loadBalancer.consistentHash.httpCookie", &["name", "path", "ttl", "attributes"]),
    ("loadBalancer.consistentHash.httpCookie.attributes.[]", &["name", "value"]),
    ("loadBalancer.consistentHash.ringHash", &["minimumRingSize"]),
    ("loadBalancer.consistentHash.maglev", &["tableSize"]),
    ("loadBalancer.localityLbSetting", &["distribute", "failover", "failoverPriority", "enabled"]),
    ("loadBalancer.localityLbSetting.distribute.[]", &["from", "to"]),
    ("loadBalancer.localityLbSetting.failover.[]", &["from", "to"]),
    ("loadBalancer.warmup", &["duration", "minimumPercent", "aggression"]),
    ("connectionPool", &["tcp", "http"]),
    (
        "connectionPool.tcp",
        &[
            "maxConnections",
            "connectTimeout",
            "tcpKeepalive",
            "maxConnectionDuration",
            "idleTimeout",
        ],
    ),
    ("connectionPool.tcp.tcpKeepalive", &["probes", "time", "interval"]),
    (
        "connectionPool.http",
        &[
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxRequestsPerConnection",
            "maxRetries",
            "idleTimeout",
            "h2UpgradePolicy",
            "useClientProtocol",
            "maxConcurrentStreams",
            "http2KeepAlive",
        ],
    ),
    ("connectionPool.http.http2KeepAlive", &["interval", "timeout"]),
    (
        "outlierDetection",
        &[
            "consecutiveErrors",
            "splitExternalLocalOriginErrors",
            "consecutiveLocalOriginFailures",
            "consecutiveGatewayErrors",
            "consecutive5xxErrors",
            "interval",
            "baseEjectionTime",
            "maxEjectionPercent",
            "minHealthPercent",
            "outlierDetectionHttpErrorCodes",
        ],
    ),
    (
        "tls",
        &[
            "mode",
            "clientCertificate",
            "privateKey",
            "caCertificates",
            "credentialName",
            "subjectAltNames",
            "sni",
            "insecureSkipVerify",
            "caCrl",
        ],
    ),
];

const PORT: &[&str] = &["port", "loadBalancer", "connectionPool", "outlierDetection", "tls"];

/// Reports fields that nobody knows.
pub(super) fn check(subject: &Subject<'_>, report: &mut Report) {
    fields::check(OBJECT, subject, report);
    for policy in ["spec.trafficPolicy", "spec.subsets.[].trafficPolicy"] {
        fields::check_below(policy, &[("", POLICY)], subject, report);
        fields::check_below(policy, SETTINGS, subject, report);
        let ports = format!("{policy}.portLevelSettings.[]");
        let known = [("", PORT), ("port", &["number"][..])];
        fields::check_below(&ports, &known, subject, report);
        fields::check_below(&ports, SETTINGS, subject, report);
    }
}
