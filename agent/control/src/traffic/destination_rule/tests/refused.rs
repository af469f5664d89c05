//! What Istio's validation refuses is refused, at its field.

use super::{policy, read, rule};

fn is_refused(text: &str, field: &str) {
    let (read, said) = read(text);
    assert_eq!(read, None, "accepted: {text}");
    let expected = format!("Error invalid-destination-rule: spec.{field}: ");
    assert!(said.iter().any(|one| one.starts_with(&expected)), "{expected:?}: {said:#?}\n{text}");
}

#[test]
fn of_the_object() {
    for (spec, field) in [
        ("{}", "host"),
        ("{host: ''}", "host"),
        ("{host: 'a b'}", "host"),
        ("{host: 'a.*.com'}", "host"),
        ("{host: a, exportTo: ['~']}", "exportTo[0]"),
        ("{host: a, exportTo: ['*', b]}", "exportTo[0]"),
        ("{host: a, exportTo: [b, b]}", "exportTo[1]"),
        ("{host: a, exportTo: [shop, '.']}", "exportTo[1]"),
        ("{host: a, exportTo: [B_]}", "exportTo[0]"),
        ("{host: a, exportTo: ['*'], workloadSelector: {matchLabels: {a: b}}}", "exportTo"),
        ("{host: a, workloadSelector: {matchLabels: {a: 'b*'}}}", "workloadSelector.matchLabels.a"),
        ("{host: a, subsets: [{name: V1}]}", "subsets[0].name"),
        ("{host: a, subsets: [{labels: {}}]}", "subsets[0].name"),
        ("{host: a, subsets: [{name: a}, {name: a}]}", "subsets[1].name"),
        ("{host: a, subsets: [{name: a, labels: {a: 'b c'}}]}", "subsets[0].labels.a"),
        ("{host: a, subsets: [{name: a, trafficPolicy: {}}]}", "subsets[0].trafficPolicy"),
    ] {
        is_refused(&rule(spec), field);
    }
}

#[test]
fn of_balancers() {
    for (balancer, field) in [
        ("{simple: RANDOM, consistentHash: {useSourceIp: true}}", ""),
        ("{localityLbSetting: {}, zoneAwareLbSetting: {}}", ""),
        ("{consistentHash: {useSourceIp: true, httpHeaderName: a}}", ".consistentHash"),
        ("{consistentHash: {httpHeaderName: 'a b'}}", ".consistentHash.httpHeaderName"),
        ("{consistentHash: {httpCookie: {ttl: 1s}}}", ".consistentHash.httpCookie.name"),
        ("{consistentHash: {httpCookie: {name: a, ttl: 1}}}", ".consistentHash.httpCookie.ttl"),
        (
            "{consistentHash: {httpCookie: {name: a, attributes: [{name: b}, {name: b}]}}}",
            ".consistentHash.httpCookie.attributes[1]",
        ),
        (
            "{consistentHash: {useSourceIp: true, ringHash: {}, maglev: {tableSize: 7}}}",
            ".consistentHash",
        ),
        (
            "{consistentHash: {useSourceIp: true, ringHash: {}, minimumRingSize: 7}}",
            ".consistentHash.minimumRingSize",
        ),
        ("{consistentHash: {useSourceIp: true, maglev: {}}}", ".consistentHash.maglev.tableSize"),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 9}}}",
            ".consistentHash.maglev.tableSize",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}",
            ".consistentHash.maglev.tableSize",
        ),
        ("{warmup: {}}", ".warmup.duration"),
        ("{warmup: {duration: 0s}}", ".warmup.duration"),
        ("{warmup: {duration: 1s, minimumPercent: 101}}", ".warmup.minimumPercent"),
        ("{warmup: {duration: 1s, aggression: 0}}", ".warmup.aggression"),
        ("{warmup: {duration: 1s}, warmupDurationSecs: 1s}", ""),
        ("{warmupDurationSecs: 100us}", ".warmupDurationSecs"),
    ] {
        // A cookie's life time that is a number is of a wrong type.
        if balancer.contains("ttl: 1}") {
            assert_eq!(read(&policy(&format!("{{loadBalancer: {balancer}}}"))).0, None);
            continue;
        }
        let text = policy(&format!("{{loadBalancer: {balancer}}}"));
        is_refused(&text, &format!("trafficPolicy.loadBalancer{field}"));
    }
}

#[test]
fn of_localities() {
    for (setting, field) in [
        ("{distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}", ""),
        ("{failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/zone]}", ""),
        ("{failover: [{from: a, to: a}]}", ".failover[0]"),
        ("{failover: [{from: a/b, to: c}]}", ".failover[0]"),
        ("{failover: [{from: '*', to: c}]}", ".failover[0]"),
        ("{distribute: [{from: a, to: {a: 90}}]}", ".distribute[0].to"),
        ("{distribute: [{from: a, to: {a: 0, b: 100}}]}", ".distribute[0].to"),
        ("{distribute: [{from: a, to: {a: 101}}]}", ".distribute[0].to"),
        ("{distribute: [{from: a, to: {a: 50, a/b: 50}}]}", ".distribute[0].to"),
        ("{distribute: [{from: a//b, to: {a: 100}}]}", ".distribute"),
        ("{distribute: [{from: '*/a', to: {a: 100}}]}", ".distribute"),
        ("{distribute: [{from: a, to: {a: 100}}, {from: a/b, to: {a: 100}}]}", ".distribute"),
        ("{distribute: [{from: '*', to: {a: 100}}, {from: a/b, to: {a: 100}}]}", ".distribute"),
    ] {
        let text = policy(&format!("{{loadBalancer: {{localityLbSetting: {setting}}}}}"));
        is_refused(&text, &format!("trafficPolicy.loadBalancer.localityLbSetting{field}"));
    }
}

#[test]
fn of_pools_and_outlier_detection() {
    for (settings, field) in [
        ("connectionPool: {}", "connectionPool"),
        ("connectionPool: {tcp: {connectTimeout: 0s}}", "connectionPool.tcp.connectTimeout"),
        ("connectionPool: {tcp: {connectTimeout: 1500us}}", "connectionPool.tcp.connectTimeout"),
        ("connectionPool: {tcp: {connectTimeout: soon}}", "connectionPool.tcp.connectTimeout"),
        ("connectionPool: {tcp: {idleTimeout: -1s}}", "connectionPool.tcp.idleTimeout"),
        (
            "connectionPool: {tcp: {maxConnectionDuration: 0s}}",
            "connectionPool.tcp.maxConnectionDuration",
        ),
        (
            "connectionPool: {tcp: {tcpKeepalive: {time: 0s}}}",
            "connectionPool.tcp.tcpKeepalive.time",
        ),
        ("connectionPool: {http: {idleTimeout: 0s}}", "connectionPool.http.idleTimeout"),
        (
            "connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
            "connectionPool.http.useClientProtocol",
        ),
        (
            "connectionPool: {http: {http2KeepAlive: {interval: 1s}}}",
            "connectionPool.http.http2KeepAlive.timeout",
        ),
        (
            "outlierDetection: {consecutiveLocalOriginFailures: 1}",
            "outlierDetection.consecutiveLocalOriginFailures",
        ),
        ("outlierDetection: {interval: 0s}", "outlierDetection.interval"),
        ("outlierDetection: {baseEjectionTime: 1}", ""),
        ("outlierDetection: {maxEjectionPercent: 101}", "outlierDetection.maxEjectionPercent"),
        ("outlierDetection: {minHealthPercent: 101}", "outlierDetection.minHealthPercent"),
        (
            "outlierDetection: {outlierDetectionHttpErrorCodes: [600]}",
            "outlierDetection.outlierDetectionHttpErrorCodes[0]",
        ),
    ] {
        let text = policy(&format!("{{{settings}}}"));
        match field {
            "" => assert_eq!(read(&text).0, None, "accepted: {text}"),
            field => is_refused(&text, &format!("trafficPolicy.{field}")),
        }
    }
    for settings in ["{http: {maxRetries: -1}}", "{tcp: {maxConnections: 1.5}}"] {
        let (read, said) = read(&policy(&format!("{{connectionPool: {settings}}}")));
        assert!(read.is_none() && said[0].starts_with("Error malformed-manifest"), "{said:?}");
    }
}

#[test]
fn of_tls_and_of_ports() {
    for (settings, field) in [
        ("tls: {mode: MUTUAL, privateKey: /k}", "tls.clientCertificate"),
        ("tls: {mode: MUTUAL, clientCertificate: /c}", "tls.privateKey"),
        ("tls: {mode: SIMPLE, credentialName: a, caCertificates: /ca}", "tls.credentialName"),
        (
            "tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca}",
            "tls.insecureSkipVerify",
        ),
        (
            "tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}",
            "tls.insecureSkipVerify",
        ),
        ("portLevelSettings: [{loadBalancer: {}}]", "portLevelSettings[0].port"),
        ("portLevelSettings: [{port: {}, loadBalancer: {}}]", "portLevelSettings[0].port"),
        ("portLevelSettings: [{port: {number: 80}}]", "portLevelSettings[0]"),
        (
            "portLevelSettings: [{port: {number: 80}, outlierDetection: {interval: 0s}}]",
            "portLevelSettings[0].outlierDetection.interval",
        ),
        ("tunnel: {}, proxyProtocol: {}", ""),
        ("", ""),
    ] {
        let dot = if field.is_empty() { "" } else { "." };
        is_refused(&policy(&format!("{{{settings}}}")), &format!("trafficPolicy{dot}{field}"));
    }
    let (read, said) = read(&policy("{tls: {mode: PERHAPS}}"));
    assert!(read.is_none() && said[0].starts_with("Error malformed-manifest"), "{said:?}");
}
