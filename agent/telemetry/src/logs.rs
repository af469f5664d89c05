//! The agent's own log, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Registry, fmt, prelude::*, reload};

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not understood.
    #[error(
        "log filter {filter:?} is not usable: {reason}; write a level (error, warn, info, debug, trace) or directives such as info,undermesh_proxy=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A log has been set up before.
    #[error("a log has been set up already")]
    Twice,
}

/// Changes the filter of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`LogError::Filter`]; the old filter then stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        self.0.reload(parsed).map_err(|error| LogError::Filter {
            filter: filter.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Sets up the process's log.
///
/// # Errors
/// Where the filter is not understood, or a log exists already.
pub fn init(filter: &str, format: LogFormat) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let set = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    set.map_err(|_| LogError::Twice)?;
    Ok(LogHandle(handle))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_in_the_error() {
        let error = parse("info,proxy=loud").unwrap_err().to_string();
        assert!(
            error.contains("\"info,proxy=loud\"") && error.contains("write a level"),
            "{error}"
        );
        assert!(parse("info,undermesh_proxy=debug").is_ok());
    }
}
