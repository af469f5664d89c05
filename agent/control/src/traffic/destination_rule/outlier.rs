//! `outlierDetection`: when an endpoint is left out for a while.

use undermesh_model::traffic::{Millionths, OutlierDetection};

use super::shapes;
use crate::traffic::place::Place;

/// Reads the detection.
pub(super) fn outlier(at: &Place<'_>, shape: &shapes::OutlierDetection) -> OutlierDetection {
    let local = shape.consecutive_local_origin_failures.filter(|number| *number > 0);
    if local.is_some() && !shape.split_external_local_origin_errors {
        let what = "is set, and splitExternalLocalOriginErrors is not";
        let remedy = "set splitExternalLocalOriginErrors, or leave it out";
        at.field("consecutiveLocalOriginFailures").refuse(what, remedy);
    }
    if shape.consecutive_errors.is_some_and(|number| number > 0) {
        let what = "is deprecated and has no effect";
        let remedy = "write consecutive5xxErrors or consecutiveGatewayErrors";
        at.field("consecutiveErrors").warn("deprecated-field", what, remedy);
    }
    check_codes(at, &shape.outlier_detection_http_error_codes);
    let percent = |name: &str, number: Option<u32>| {
        let number = number.unwrap_or_default();
        if number > 100 {
            let what = format!("{number} is no percentage");
            at.field(name).refuse(what, "write a number from 0 to 100");
        }
        // Istio cannot tell a 0 from nothing.
        (number > 0).then(|| Millionths::from_percent(f64::from(number)))
    };
    OutlierDetection {
        split_local_errors: shape.split_external_local_origin_errors,
        consecutive_local: local,
        consecutive_gateway: shape.consecutive_gateway_errors,
        consecutive_5xx: shape.consecutive_5xx_errors,
        interval: at.duration("interval", shape.interval.as_ref()),
        base_ejection_time: at.duration("baseEjectionTime", shape.base_ejection_time.as_ref()),
        max_ejection: percent("maxEjectionPercent", shape.max_ejection_percent),
        min_health: percent("minHealthPercent", shape.min_health_percent),
    }
}

fn check_codes(at: &Place<'_>, codes: &[u32]) {
    let list = at.field("outlierDetectionHttpErrorCodes");
    for (index, code) in codes.iter().enumerate() {
        if !(100..=599).contains(code) {
            let what = format!("{code} is no status");
            list.item(index).refuse(what, "write a number from 100 to 599");
        }
    }
    let instead = "500 to 599 count as errors, and no other status";
    at.unsupported("outlierDetectionHttpErrorCodes", codes.first(), instead);
}
