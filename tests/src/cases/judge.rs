//! Compares what came with what was expected.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::{
    case::{Copies, Exchange, Expected, Protocol, Seen},
    shop::Shop,
};
use crate::{
    pod::{
        PATIENCE,
        http::{CONNECTION, NTH, Reply},
    },
    poll::wait_for,
};

/// What was there before a request was made.
pub(super) struct Before {
    findings: BTreeMap<String, u64>,
    logged: [usize; 2],
}

impl Before {
    /// Notes what the answer will be compared with.
    pub(super) fn note(shop: &Shop, wanted: &Expected) -> Result<Self> {
        let mut findings = BTreeMap::new();
        for kind in wanted.findings.keys() {
            findings.insert(kind.clone(), shop.findings(kind)?);
        }
        let logged = match wanted.because {
            Some(_) => shop.logged()?.map(|lines| lines.len()),
            None => [0; 2],
        };
        Ok(Self { findings, logged })
    }

    /// Judges what agents have noted.
    pub(super) fn judge(&self, shop: &Shop, wanted: &Expected) -> Result<()> {
        for (kind, count) in &wanted.findings {
            let before = self.findings.get(kind).copied().unwrap_or_default();
            wait_for(&format!("{count} findings {kind:?}"), PATIENCE, || {
                let more = shop.findings(kind)? - before;
                ensure!(more <= *count, "there are {more}");
                Ok((more == *count).then_some(()))
            })?;
        }
        let Some(words) = &wanted.because else { return Ok(()) };
        let mut reasons = Vec::new();
        let waited = wait_for("the reason", PATIENCE, || {
            let lines = shop.logged()?.into_iter().zip(self.logged);
            let new = lines.flat_map(|(lines, before)| lines.into_iter().skip(before));
            reasons = new.map(|line| line.get("detail")).filter(|text| !text.is_empty()).collect();
            Ok(reasons.iter().any(|reason| reason.contains(words)).then_some(()))
        });
        waited.with_context(|| format!("{words:?} is not among the reasons {reasons:?}"))
    }
}

/// Judges all answers to a request.
pub(super) fn judge(shop: &Shop, asked: &Exchange, mark: &str, replies: &[Reply]) -> Result<()> {
    let wanted = &asked.answer;
    let together = wanted.shares.is_some() || wanted.statuses.is_some();
    for (number, reply) in replies.iter().enumerate() {
        let problems = if together { Vec::new() } else { problems(asked, reply) };
        ensure!(
            problems.is_empty(),
            "answer {} of {}:\n    {}\n    all of it: {reply:?}",
            number + 1,
            replies.len(),
            problems.join("\n    ")
        );
    }
    if let Some(shares) = &wanted.shares {
        within(shares, replies.iter().map(|reply| pod(asked, reply).to_owned()), replies)?;
    }
    if let Some(statuses) = &wanted.statuses {
        within(statuses, replies.iter().map(|reply| reply.status), replies)?;
    }
    let count = |what: &str, wanted: Option<[usize; 2]>, count: usize| {
        let fits = wanted.is_none_or(|[least, most]| (least..=most).contains(&count));
        ensure!(fits, "{count} {what} instead of {wanted:?}; all answers: {replies:?}");
        anyhow::Ok(())
    };
    let pods: BTreeSet<&str> = replies.iter().map(|reply| pod(asked, reply)).collect();
    count("different pods", wanted.pods, pods.len())?;
    let connections: BTreeSet<_> = replies.iter().filter_map(connection).collect();
    count("connections", wanted.connections, connections.len())?;
    let nth = replies.iter().filter_map(|reply| reply.header(NTH)?.parse().ok()).max();
    count("requests over a connection", wanted.per_connection, nth.unwrap_or(0))?;
    wanted.copies.iter().flatten().try_for_each(|(pod, copies)| heard(shop, pod, copies, mark))
}

/// Everything that is not as it was wanted.
fn problems(asked: &Exchange, reply: &Reply) -> Vec<String> {
    let wanted = &asked.answer;
    let mut problems = Vec::new();
    let mut differs = |what: &str, wanted: String, came: String| {
        if wanted != came {
            problems.push(format!("{what} is {came} instead of {wanted}"));
        }
    };
    let is_http = !matches!(asked.by, Protocol::Tcp | Protocol::Tls);
    if wanted.closed {
        differs("the answer", "closed".to_owned(), closed(reply).to_owned());
        return problems;
    }
    differs("the error", "None".to_owned(), format!("{:?}", reply.error));
    if is_http {
        let status = wanted.status.unwrap_or(200);
        differs("the status", status.to_string(), reply.status.to_string());
    }
    if let Some(wanted) = &wanted.pod {
        differs("the pod", format!("{wanted:?}"), format!("{:?}", pod(asked, reply)));
    }
    for (name, value) in &wanted.headers {
        let came = reply.header(name);
        differs(name, format!("{:?}", value.as_deref()), format!("{came:?}"));
    }
    for (name, part) in &wanted.contains {
        let came = reply.header(name).unwrap_or_default();
        differs(
            name,
            format!("has {part:?} in it"),
            match came.contains(part) {
                true => format!("has {part:?} in it"),
                false => format!("{came:?}"),
            },
        );
    }
    if let Some(body) = &wanted.body {
        differs("the body", format!("{body:?}"), format!("{:?}", reply.body));
    }
    if let Some(grpc) = wanted.grpc {
        let came = reply.header("grpc-status").unwrap_or("missing");
        differs("grpc-status", grpc.to_string(), came.to_owned());
    }
    for difference in inside(wanted, &reply.body) {
        problems.push(difference);
    }
    if let Some([least, most]) = wanted.took
        && !(least..=most).contains(&reply.took)
    {
        problems.push(format!("took {} ms instead of {least} to {most}", reply.took));
    }
    problems
}

/// Whether a connection has ended without an answer.
fn closed(reply: &Reply) -> &'static str {
    if reply.error.is_some() && reply.status == 0 && reply.body.is_empty() {
        "closed"
    } else {
        "complete"
    }
}

/// Who has answered.
fn pod<'a>(asked: &Exchange, reply: &'a Reply) -> &'a str {
    match asked.by {
        Protocol::Tcp | Protocol::Tls => &reply.body,
        _ => reply.header("x-pod").unwrap_or_default(),
    }
}

/// The connection that a pod was asked over.
fn connection(reply: &Reply) -> Option<(&str, &str)> {
    Some((reply.header("x-pod")?, reply.header(CONNECTION)?))
}

/// What the pod says it has seen.
fn inside(wanted: &Expected, head: &str) -> Vec<String> {
    let mut problems = wanted.seen.as_ref().map(|seen| unlike(seen, head)).unwrap_or_default();
    if let Some(attempts) = wanted.attempts {
        let name = "x-envoy-attempt-count".to_owned();
        let headers = BTreeMap::from([(name, Some(attempts.to_string()))]);
        problems.extend(unlike(&Seen { headers, ..Seen::default() }, head));
    }
    problems
}

fn unlike(wanted: &Seen, head: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let first = head.lines().next().unwrap_or_default();
    let (line, version) = first.rsplit_once(' ').unwrap_or((first, ""));
    if let Some(wanted) = wanted.version.as_ref().filter(|wanted| *wanted != version) {
        problems.push(format!("the pod saw {version} instead of {wanted}"));
    }
    if let Some(wanted) = wanted.line.as_ref().filter(|wanted| *wanted != line) {
        problems.push(format!("the pod saw {line:?} instead of {wanted:?}"));
    }
    for (name, value) in &wanted.headers {
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let came: Vec<&str> =
            fields.filter(|(field, _)| field == name).map(|(_, value)| value).collect();
        let wanted: Vec<&str> =
            value.as_deref().map(|value| value.split(" & ").collect()).unwrap_or_default();
        if came != wanted {
            problems.push(format!("the pod saw {name}: {came:?} instead of {wanted:?}"));
        }
    }
    problems
}

/// Counts, and compares each with its limits. What has no limits does not happen.
fn within<K: Ord + std::fmt::Debug>(
    limits: &BTreeMap<K, [usize; 2]>,
    came: impl Iterator<Item = K>,
    replies: &[Reply],
) -> Result<()> {
    let mut counts: BTreeMap<K, usize> = BTreeMap::new();
    for key in came {
        *counts.entry(key).or_default() += 1;
    }
    let in_limits = |key: &K, count: usize| {
        limits.get(key).is_some_and(|[least, most]| (*least..=*most).contains(&count))
    };
    let missing = limits.keys().filter(|key| !counts.contains_key(*key)).map(|key| (key, 0));
    let wrong = counts.iter().map(|(key, count)| (key, *count)).chain(missing);
    let wrong = wrong.filter(|(key, count)| !in_limits(key, *count)).count();
    let one = replies.first();
    ensure!(wrong == 0, "came as {counts:?} instead of {limits:?}; the first: {one:?}");
    Ok(())
}

/// Nobody waits for copies: they may arrive after the answer.
fn heard(shop: &Shop, pod: &str, wanted: &Copies, mark: &str) -> Result<()> {
    let server = shop.server(pod)?;
    let [least, most] = wanted.times;
    let heads = wait_for(&format!("{pod} to hear {least} requests"), PATIENCE, || {
        let heads = server.heard(mark)?;
        Ok(Some(heads).filter(|heads| heads.len() >= least))
    })?;
    ensure!(heads.len() <= most, "{pod} heard {} requests instead of {most} at most", heads.len());
    for head in &heads {
        let problems = unlike(&wanted.seen, head);
        ensure!(problems.is_empty(), "{}\n    in {head:?}", problems.join("\n    "));
    }
    Ok(())
}
