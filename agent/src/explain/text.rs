//! An explanation for people.

use std::fmt;

use super::report::{End, Explanation, Rule, Step, Verdict};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.request.is_empty() { "connects" } else { &self.request };
        writeln!(
            f,
            "{} -> {} at {}: {what}",
            self.source.name, self.destination.name, self.dialled
        )?;
        writeln!(f, "  {}", who(&self.source))?;
        let mut number = 1;
        steps(f, &self.steps, &mut number)?;
        for way in &self.ways {
            if self.ways.len() > 1 {
                let to = way.endpoints.join(", ");
                let to = if to.is_empty() { String::new() } else { format!(" to {to}") };
                writeln!(f, "\nin {:.0}% of cases{to}:", way.percent)?;
                number = self.steps.len() + 1;
            }
            steps(f, &way.steps, &mut number)?;
            if self.ways.len() > 1 {
                ending(f, (way.verdict, way.status), (&way.reason, &way.detail, &way.decided_at))?;
            }
        }
        writeln!(f)?;
        if self.ways.len() > 1 {
            writeln!(f, "altogether: {}", self.verdict.as_str())?;
        } else {
            ending(f, (self.verdict, self.status), (&self.reason, &self.detail, &self.decided_at))?;
        }
        for assumption in &self.assumptions {
            writeln!(f, "  provided that {assumption}")?;
        }
        for now in &self.now {
            writeln!(f, "  now: {now}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  note: {finding}")?;
        }
        Ok(())
    }
}

fn who(end: &End) -> String {
    match end.identity.as_str() {
        "" => format!("{} on node {}, not in the mesh: {}", end.address, end.node, end.mesh),
        identity => format!("{} on node {}, {identity}: {}", end.address, end.node, end.mesh),
    }
}

fn steps(f: &mut fmt::Formatter<'_>, steps: &[Step], number: &mut usize) -> fmt::Result {
    for step in steps {
        writeln!(f, "{number:>2}. {:<12} {:<30} {}", step.step, step.at, step.outcome)?;
        for lookup in &step.lookups {
            writeln!(f, "      {:<13} {} -> {}", lookup.map, lookup.key, lookup.value)?;
        }
        for rule in &step.won {
            writeln!(f, "      + {}", named(rule))?;
        }
        for rule in &step.lost {
            writeln!(f, "      - {}", named(rule))?;
        }
        *number += 1;
    }
    Ok(())
}

fn named(rule: &Rule) -> String {
    let place = match (rule.rule.as_str(), rule.kind.as_str()) {
        ("", _) => String::new(),
        (port, "Service") => format!(", port {port}"),
        (subset, "DestinationRule") => format!(", subset {subset}"),
        (rule, _) => format!(", rule {rule}"),
    };
    format!("{}{place}: {}", rule.object(), rule.why)
}

fn ending(
    f: &mut fmt::Formatter<'_>,
    (verdict, status): (Verdict, Option<u16>),
    (reason, detail, at): (&str, &str, &str),
) -> fmt::Result {
    let status = status.map(|status| format!(", status {status}")).unwrap_or_default();
    let at = if verdict == Verdict::Refused { format!(", by {at}") } else { String::new() };
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    writeln!(f, "{} ({reason}{status}{at}){detail}", verdict.as_str().to_uppercase())
}
