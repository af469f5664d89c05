//! What is valid and not done here is said, with what happens instead.

use super::{policy, read};

#[test]
fn fields_that_are_not_supported_are_said() {
    for (settings, field) in [
        ("tunnel: {targetHost: a, targetPort: 1}", "tunnel"),
        ("proxyProtocol: {version: V2}", "proxyProtocol"),
        ("retryBudget: {percent: 20}", "retryBudget"),
        ("loadBalancer: {zoneAwareLbSetting: {}}", "loadBalancer.zoneAwareLbSetting"),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: [{name: Secure}]}}}",
            "loadBalancer.consistentHash.httpCookie.attributes",
        ),
        (
            "connectionPool: {http: {http2KeepAlive: {interval: 1s, timeout: 1s}}}",
            "connectionPool.http.http2KeepAlive",
        ),
        (
            "outlierDetection: {outlierDetectionHttpErrorCodes: [429]}",
            "outlierDetection.outlierDetectionHttpErrorCodes",
        ),
    ] {
        let (read, said) = read(&policy(&format!("{{{settings}}}")));
        let expected = format!("Warning unsupported-field: spec.trafficPolicy.{field}: ");
        assert!(read.is_some(), "{said:?}");
        assert!(said.len() == 1 && said[0].starts_with(&expected), "{expected:?}: {said:#?}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for (settings, expected) in [
        ("loadBalancer: {consistentHash: {}}", "hash-without-key"),
        ("loadBalancer: {consistentHash: {useSourceIp: false}}", "hash-without-key"),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 7}}",
            "deprecated-field",
        ),
        ("loadBalancer: {simple: RANDOM, warmup: {duration: 1s}}", "no-effect"),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true}, warmup: {duration: 1s}}",
            "no-effect",
        ),
        (
            "loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}",
            "failover-without-outlier-detection",
        ),
        ("outlierDetection: {consecutiveErrors: 5}", "deprecated-field"),
    ] {
        let (read, said) = read(&policy(&format!("{{{settings}}}")));
        assert!(read.is_some(), "{said:?}");
        let expected = format!("Warning {expected}: spec.trafficPolicy.");
        assert!(said.len() == 1 && said[0].starts_with(&expected), "{expected:?}: {said:#?}");
    }
}

#[test]
fn fields_that_nobody_knows_are_said_at_every_depth() {
    for (settings, place) in [
        ("loadbalancer: {}, tls: {}", "spec.trafficPolicy"),
        ("loadBalancer: {Simple: RANDOM}", "spec.trafficPolicy.loadBalancer"),
        (
            "portLevelSettings: [{port: {number: 1}, tls: {ca: a}}]",
            "spec.trafficPolicy.portLevelSettings.[].tls",
        ),
        (
            "portLevelSettings: [{port: {number: 1, name: a}, tls: {}}]",
            "spec.trafficPolicy.portLevelSettings.[].port",
        ),
        ("connectionPool: {tcp: {maxPending: 1}}", "spec.trafficPolicy.connectionPool.tcp"),
    ] {
        let (read, said) = read(&policy(&format!("{{{settings}}}")));
        assert!(read.is_some(), "{said:?}");
        assert!(said.len() == 1 && said[0].starts_with("Warning unknown-field"), "{said:?}");
        assert!(said[0].ends_with(&format!("of {place} is not known")), "{said:?}");
    }
}
