//! Routes in words.

use std::fmt;

use undermesh_model::ObjectName;

use super::{
    ConnectionRule, Destination, HeaderEdit, Lead, Object, PortRoutes, RequestRule, RetryRow,
};

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        ObjectName { kind, namespace, name }.fmt(f)
    }
}

impl fmt::Display for PortRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, host, port, protocol, addresses, clients, .. } = self;
        writeln!(f, "{object}, {host}:{port}, speaks {protocol}, at {}", addresses.join(", "))?;
        let clients: Vec<&str> =
            clients.iter().map(|it| if it.is_empty() { "any namespace" } else { it }).collect();
        writeln!(f, "  for clients of {}", clients.join(", "))?;
        for (place, rule) in self.requests.iter().enumerate() {
            write!(f, "  {:>3}. {rule}", place + 1)?;
        }
        for (place, rule) in self.connections.iter().enumerate() {
            write!(f, "  {:>3}. {rule}", self.requests.len() + place + 1)?;
        }
        let otherwise = if self.requests.is_empty() {
            "everything else"
        } else {
            "what is no request, and no rule is about"
        };
        writeln!(f, "    -  {otherwise}\n         -> {}", self.otherwise)
    }
}

impl fmt::Display for RequestRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<String> = self.conditions.iter().map(ToString::to_string).collect();
        let matches = match conditions.is_empty() {
            true => "every request".to_owned(),
            false => conditions.join(", "),
        };
        writeln!(f, "{matches}   ({}, {})", self.object, named(&self.rule))?;
        for lead in &self.destinations {
            write!(f, "{lead}")?;
        }
        if let Some(answer) = &self.answer {
            writeln!(f, "         -> {answer}")?;
        }
        let timeout = self.timeout.iter().map(|timeout| format!("timeout {timeout}"));
        let retries = self.retries.iter().map(ToString::to_string);
        let headers = self.headers.iter().map(ToString::to_string);
        for line in timeout.chain(retries).chain(headers).chain(self.also.iter().cloned()) {
            writeln!(f, "         {line}")?;
        }
        Ok(())
    }
}

/// A rule without a name is called by its place.
fn named(rule: &str) -> String {
    let is_place = rule.bytes().all(|byte| byte.is_ascii_digit());
    if is_place { format!("rule {rule}") } else { format!("rule {rule:?}") }
}

impl fmt::Display for HeaderEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, does, name, value } = self;
        match does.as_str() {
            "remove" => write!(f, "{of} header {name} is removed"),
            "set" => write!(f, "{of} header {name} is set to {value}"),
            _ => write!(f, "{of} header {name} is added: {value}"),
        }
    }
}

impl fmt::Display for RetryRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} retries after {}", self.attempts, self.on.join(", "))?;
        match &self.per_try_timeout {
            Some(time) => write!(f, "; each attempt takes {time} at most"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConnectionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "connections: {}   ({})", self.matches, self.object)?;
        self.destinations.iter().try_for_each(|lead| write!(f, "{lead}"))
    }
}

impl fmt::Display for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = format!("{:.1}", self.percent);
        let share = share.trim_end_matches(".0");
        match (&self.destination, self.status) {
            (Some(destination), _) => writeln!(f, "         -> {share}% {destination}")?,
            (None, Some(status)) => {
                writeln!(f, "         -> {share}% cannot be used, and is answered with {status}")?;
            }
            (None, None) => writeln!(f, "         -> {share}% nowhere")?,
        }
        self.headers.iter().try_for_each(|edit| writeln!(f, "            {edit}"))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, endpoints, names, .. } = self;
        write!(f, "{name}, {endpoints} endpoint{}", if *endpoints == 1 { "" } else { "s" })?;
        if !names.is_empty() {
            write!(f, " and those that DNS has for {}", names.join(", "))?;
        }
        if let Some(object) = &self.object {
            write!(f, "   ({object})")?;
        }
        self.policy.iter().try_for_each(|line| write!(f, "\n            {line}"))
    }
}
