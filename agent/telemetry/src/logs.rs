//! The agent's own log, on standard error; its newest lines are kept, for who asks when something has gone wrong.

mod recent;

use std::io::{self, IsTerminal};

use recent::{Recent, Tee};
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::{Directive, LevelFilter, filter_fn},
    fmt,
    prelude::*,
    reload,
};

/// A library that logs each failure which it returns as well, one for each list of an API server
/// that is away.
const SAID_BY_WHO_ASKED: &str = "kube_client::client::builder";

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
    /// A part of the filter is not understood.
    #[error(
        "log filter {filter:?}: {directive:?} is not usable: {reason}; write a level (off, error, warn, info, debug, trace) or directives such as info,undermesh_proxy=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// The part that is wrong.
        directive: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The running log cannot be changed.
    #[error("log filter {filter:?} cannot be put in force: {reason}; restart with it as logLevel")]
    Reload {
        /// What was given.
        filter: String,
        /// What is in the way.
        reason: String,
    },
    /// A log has been set up before.
    #[error("a log has been set up already")]
    Twice,
}

/// Changes the filter of a running log, and knows what it has said.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    recent: Recent,
}

impl LogHandle {
    /// The newest lines, oldest first, and how many came before them.
    pub fn recent(&self) -> (String, u64) {
        self.recent.lines()
    }

    /// The filter in force.
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// [`LogError::Filter`] or [`LogError::Reload`]; the old filter then stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        self.filter.reload(parsed).map_err(|error| LogError::Reload {
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
    let recent = Recent::default();
    let kept = recent.clone();
    let writer = move || Tee::new(io::stderr(), kept.clone());
    let layer = fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
    let said_once = filter_fn(|about| about.target() != SAID_BY_WHO_ASKED);
    let set = match format {
        LogFormat::Text => registry.with(layer.with_filter(said_once)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(said_once)).try_init()
        }
    };
    set.map_err(|_| LogError::Twice)?;
    Ok(LogHandle { filter: handle, recent })
}

/// Directive by directive, so that an error can name the one that is wrong. An empty filter is
/// refused: it would silence the log, and who means that writes `off`.
fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let mut parsed = EnvFilter::default();
    let mut texts = filter.split(',').map(str::trim).filter(|text| !text.is_empty()).peekable();
    if texts.peek().is_none() {
        return Err(error(filter, filter, "it is empty".to_owned()));
    }
    for text in texts {
        let directive = directive(text).map_err(|reason| error(filter, text, reason))?;
        parsed = parsed.add_directive(directive);
    }
    Ok(parsed)
}

fn error(filter: &str, directive: &str, reason: String) -> LogError {
    LogError::Filter { filter: filter.to_owned(), directive: directive.to_owned(), reason }
}

/// A lone word has to be a level. The library would take a mistyped one for the name of a module
/// and silence everything else.
fn directive(text: &str) -> Result<Directive, String> {
    if !text.contains(['=', '[']) && text.parse::<LevelFilter>().is_err() {
        return Err("it is no level".to_owned());
    }
    text.parse().map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_directive_is_named_in_the_error() {
        for (filter, directive) in [
            ("info,proxy=loud", "\"proxy=loud\" is not usable"),
            (" ,", "\" ,\" is not usable: it is empty"),
            ("debgu", "\"debgu\" is not usable: it is no level"),
            ("warn, undermesh_proxy", "\"undermesh_proxy\" is not usable: it is no level"),
        ] {
            let error = parse(filter).unwrap_err().to_string();
            assert!(error.contains(&format!("{filter:?}")), "{error}");
            assert!(error.contains(directive) && error.contains("write a level"), "{error}");
        }
    }

    #[test]
    fn levels_and_directives_are_understood() {
        for (filter, same) in [
            ("info", "info"),
            ("OFF", "off"),
            ("undermesh_proxy=debug", "undermesh_proxy=debug"),
            ("info, undermesh_proxy=debug,", "undermesh_proxy=debug,info"),
        ] {
            assert_eq!(parse(filter).unwrap().to_string(), same);
        }
    }

    #[test]
    fn a_running_log_changes_its_filter_and_keeps_it_when_the_new_one_is_wrong() {
        let (layer, handle) = reload::Layer::new(parse("info").unwrap());
        let registry = tracing_subscriber::registry().with(layer);
        let handle = LogHandle { filter: handle, recent: Recent::default() };
        assert_eq!(handle.filter(), "info");
        handle.set("debug").unwrap();
        assert_eq!(handle.filter(), "debug");
        assert!(matches!(handle.set("loud"), Err(LogError::Filter { .. })));
        assert_eq!(handle.filter(), "debug");
        drop(registry);
    }
}
