//! The page as tables for a terminal; sections without rows are left out.

use std::fmt;

use super::{
    AuthorizerRow, CertificateRow, KeyRow, ListRow, MapRow, PodState, PodStatus, PolicyRow,
    ProgramRow, Status, destinations,
};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agent = &self.agent;
        writeln!(
            f,
            "Agent {} on node {} (pid {}, up {})",
            agent.version,
            agent.node,
            agent.pid,
            duration(agent.uptime_seconds as i64)
        )?;
        writeln!(f, "  ready        {}", if agent.ready { "yes" } else { "NO" })?;
        for reason in &agent.not_ready {
            writeln!(f, "               {reason}")?;
        }
        writeln!(f, "  source       {}", self.source.summary())?;
        writeln!(f, "  generation   {}", agent.generation)?;
        writeln!(f, "  connections  {} (tunnels: {})", agent.connections, agent.tunnels)?;
        writeln!(f, "  overload     {}", agent.overload)?;
        writeln!(f, "  startup gate {}", self.gate)?;
        section(
            f,
            "Pods",
            &["POD", "ADDRESSES", "STATE", "IDENTITY", "DETAIL"],
            self.pods.iter().map(PodStatus::row),
        )?;
        destinations::write(f, &self.destinations)?;
        section(
            f,
            "Certificates",
            &["IDENTITY", "SERIAL", "EXPIRES IN", "LIFE", "PROBLEM"],
            self.certificates.iter().map(CertificateRow::row),
        )?;
        section(
            f,
            "Policies",
            &["POLICY", "ACTION", "PODS", "STATE", "DETAIL"],
            self.policies.iter().map(PolicyRow::row),
        )?;
        section(
            f,
            "Authorizers",
            &["PROVIDER", "ALLOWED", "DENIED", "FAILED CLOSED", "FAILED OPEN", "LAST FAILURE"],
            self.authorizers.iter().map(AuthorizerRow::row),
        )?;
        section(
            f,
            "Token keys",
            &["ISSUER", "SOURCE", "KEYS", "READ", "PROBLEM"],
            self.token_keys.iter().map(KeyRow::row),
        )?;
        section(
            f,
            "Programs",
            &["PROGRAM", "HOOK", "ID", "ATTACHED TO"],
            self.programs.iter().map(ProgramRow::row),
        )?;
        let lists = self.source.lists.iter().map(ListRow::row);
        let head = &["LIST", "OBJECTS", "COMPLETE", "HEARD", "RESTARTS", "RELISTS", "PROBLEM"];
        section(f, "Lists of the API server", head, lists)?;
        section(f, "Maps", &["MAP", "ENTRIES", "OF", "USED"], self.maps.iter().map(MapRow::row))?;
        section(
            f,
            "Verdicts",
            &["REASON", "CONNECTIONS"],
            self.verdicts.iter().map(|(reason, count)| vec![reason.clone(), count.to_string()]),
        )?;
        if !self.warnings.is_empty() {
            writeln!(f, "\nWarnings")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        Ok(())
    }
}

impl PodStatus {
    fn row(&self) -> Vec<String> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let state = match self.state {
            PodState::Enrolled => "enrolled",
            PodState::Pending => "PENDING",
            PodState::Waiting => "waiting",
            PodState::Impossible => "impossible",
        };
        vec![
            format!("{}/{}", self.namespace, self.name),
            addresses.join(","),
            state.to_owned(),
            self.identity.clone(),
            self.detail.clone(),
        ]
    }
}

impl CertificateRow {
    fn row(&self) -> Vec<String> {
        let serial: String = self.serial.chars().take(12).collect();
        let life = self.life_percent.map_or_else(String::new, |percent| format!("{percent}%"));
        let expires = duration(self.expires_in_seconds);
        vec![self.id.clone(), serial, expires, life, self.last_error.clone()]
    }
}

impl ProgramRow {
    fn row(&self) -> Vec<String> {
        let target = if self.attached { self.attached_to.clone() } else { "NOTHING".to_owned() };
        vec![self.name.clone(), self.hook.clone(), self.program_id.to_string(), target]
    }
}

impl MapRow {
    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.entries.to_string(),
            self.max_entries.to_string(),
            format!("{}%", self.percent),
        ]
    }
}

/// Prints a heading and aligned columns; nothing at all where there are no rows.
pub(crate) fn section(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let mut table = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    table.extend(rows);
    if table.len() == 1 {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in &table {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(f, "  {}", line.join("  ").trim_end())?;
    }
    Ok(())
}

/// `2d 3h`, `4h 5m`, `6m 7s`: the two largest units.
pub(crate) fn duration(seconds: i64) -> String {
    if seconds < 0 {
        return format!("EXPIRED {} ago", duration(-seconds));
    }
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (61, "1m 1s"),
            (3_660, "1h 1m"),
            (90_000, "1d 1h"),
            (-61, "EXPIRED 1m 1s ago"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
