//! An agent's access log, as the lines of JSON that it is.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::poll::wait_for;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine(pub Value);

impl LogLine {
    /// A field as text; empty where it is absent, and numbers as they are written. A field of a
    /// field is named with a dot: `source.identity`.
    pub fn get(&self, field: &str) -> String {
        match self.0.pointer(&format!("/{}", field.replace('.', "/"))) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// A field as a number; 0 where it is absent.
    pub fn number(&self, field: &str) -> u64 {
        self.0.get(field).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Whether every given field has the given text.
    pub fn matches(&self, fields: &[(&str, &str)]) -> bool {
        fields.iter().all(|(field, text)| self.get(field) == *text)
    }
}

/// The log of one agent, over all its restarts.
#[derive(Clone, Debug)]
pub struct AccessLog {
    path: PathBuf,
}

impl AccessLog {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// All complete lines so far.
    ///
    /// # Errors
    /// Where a complete line is not JSON.
    pub fn lines(&self) -> Result<Vec<LogLine>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("cannot read {}", self.path.display()))?,
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let value = serde_json::from_str(line);
                Ok(LogLine(value.with_context(|| format!("not JSON: {line}"))?))
            })
            .collect()
    }

    /// Lines whose fields have these texts.
    ///
    /// # Errors
    /// As [`Self::lines`].
    pub fn matching(&self, fields: &[(&str, &str)]) -> Result<Vec<LogLine>> {
        let mut lines = self.lines()?;
        lines.retain(|line| line.matches(fields));
        Ok(lines)
    }

    /// Waits for a line whose fields have these texts.
    ///
    /// # Errors
    /// When it does not come; the error shows the last lines that did.
    pub fn wait(&self, fields: &[(&str, &str)]) -> Result<LogLine> {
        let found = wait_for("an access log line", Duration::from_secs(10), || {
            Ok(self.matching(fields)?.into_iter().next())
        });
        found.with_context(|| {
            let lines = self.lines().unwrap_or_default();
            let tail: Vec<String> = lines.iter().rev().take(12).map(|l| l.0.to_string()).collect();
            format!("no line with {fields:?}; the last lines are\n{}", tail.join("\n"))
        })
    }
}
