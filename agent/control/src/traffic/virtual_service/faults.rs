//! Errors to inject, and copies of requests: what is done to a share of them.

use undermesh_model::traffic::{Delay, Fault, Millionths, Mirror};

use super::{
    actions, destinations,
    findings::{Findings, Path},
    shapes,
};

/// gRPC's statuses by number.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// The least share that Istio can tell from none, in percent.
const LEAST_PERCENT: f64 = 0.0001;

/// `fault`.
pub(super) fn fault(findings: &mut Findings<'_>, at: &Path, shape: &shapes::Fault) -> Fault {
    if shape.delay.is_none() && shape.abort.is_none() {
        findings.refuse(at, "says nothing", "write delay or abort");
    }
    let mut read = Fault::default();
    if let Some(shape) = &shape.delay {
        read.delay = delay(findings, &at.field("delay"), shape);
    }
    if let Some(shape) = &shape.abort {
        abort(findings, &at.field("abort"), shape, &mut read);
    }
    read
}

fn delay(findings: &mut Findings<'_>, at: &Path, shape: &shapes::Delay) -> Option<Delay> {
    if shape.exponential_delay.is_some() {
        findings.refuse(&at.field("exponentialDelay"), "is not supported", "write fixedDelay");
    }
    let whole = shape.percent.map(|value| (at.field("percent"), value));
    let share = shape.percentage.map(|share| (at.field("percentage"), share.value));
    let share = injected(findings, at, share.or(whole));
    match &shape.fixed_delay {
        Some(text) => {
            let time = findings.duration(&at.field("fixedDelay"), text)?;
            Some(Delay { time, share })
        }
        None if shape.exponential_delay.is_some() => None,
        None => {
            findings.warn(at, "no-effect", "has no fixedDelay", "write how long to wait");
            None
        }
    }
}

fn abort(findings: &mut Findings<'_>, at: &Path, shape: &shapes::Abort, fault: &mut Fault) {
    let shapes::Abort { http_status, grpc_status, http2_error, percentage } = shape;
    let share = percentage.map(|share| (at.field("percentage"), share.value));
    let share = injected(findings, at, share);
    if http2_error.is_some() {
        let remedy = "write httpStatus or grpcStatus";
        findings.refuse(&at.field("http2Error"), "is not supported", remedy);
    } else if http_status.is_some() && grpc_status.is_some() {
        findings.refuse(at, "has both httpStatus and grpcStatus", "write one of them");
    } else if let Some(status) = http_status {
        actions::status(findings, &at.field("httpStatus"), *status);
        fault.abort = Some((*status, share));
    } else if let Some(name) = grpc_status {
        let number = GRPC.iter().position(|known| known == name);
        match number.and_then(|number| u16::try_from(number).ok()) {
            Some(number) => fault.grpc_abort = Some((number, share)),
            None => {
                let what = format!("{name:?} is no status of gRPC");
                findings.refuse(&at.field("grpcStatus"), what, "write one such as UNAVAILABLE");
            }
        }
    } else {
        findings.warn(at, "no-effect", "has no status", "write httpStatus or grpcStatus");
    }
}

/// The share of requests that something is injected into; none where nothing is said.
fn injected(findings: &mut Findings<'_>, at: &Path, share: Option<(Path, f64)>) -> Millionths {
    match share {
        Some((at, percent)) => percentage(findings, &at, percent),
        None => {
            let what = "has no percentage and is for no request";
            findings.warn(at, "no-effect", what, "write percentage.value");
            Millionths(0)
        }
    }
}

fn percentage(findings: &mut Findings<'_>, at: &Path, percent: f64) -> Millionths {
    let in_range = percent == 0.0 || (LEAST_PERCENT..=100.0).contains(&percent);
    if !in_range {
        let what = format!("{percent} is no percentage");
        findings.refuse(at, what, "write 0, or a number from 0.0001 to 100");
    }
    Millionths::from_percent(percent)
}

/// `mirror` with `mirrorPercentage`, or `mirrors`.
pub(super) fn mirrors(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: &shapes::HttpRoute,
) -> Vec<Mirror> {
    let mut read = Vec::new();
    let whole = shape.mirror_percent.map(|value| (at.field("mirrorPercent"), value));
    let share = shape.mirror_percentage.map(|share| (at.field("mirrorPercentage"), share.value));
    let share = copied(findings, share.or(whole));
    if let Some(shape) = &shape.mirror {
        let to = destinations::destination(findings, &at.field("mirror"), shape);
        read.push(Mirror { to, share });
    }
    if shape.mirror.is_some() && !shape.mirrors.is_empty() {
        findings.refuse(at, "has both mirror and mirrors", "write mirrors alone");
    }
    for (index, shape) in shape.mirrors.iter().enumerate() {
        let at = at.field("mirrors").item(index);
        let share = shape.percentage.map(|share| (at.field("percentage"), share.value));
        let share = copied(findings, share);
        let to = destinations::required(findings, &at, shape.destination.as_ref());
        read.extend(to.map(|to| Mirror { to, share }));
    }
    read
}

/// The share of requests that are copied; all where nothing is said.
fn copied(findings: &mut Findings<'_>, share: Option<(Path, f64)>) -> Millionths {
    share.map_or(Millionths::ALL, |(at, percent)| percentage(findings, &at, percent))
}
