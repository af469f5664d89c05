//! Lets the programs write into the agent's own log, when asked to.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;

use crate::{DatapathError, sys};

/// Value of aya-log's level switch; at 0 the verifier removes the log statements.
pub(crate) fn level(enabled: bool) -> u8 {
    if enabled { log::Level::Debug as u8 } else { 0 }
}

/// Hands records of the log crate to tracing.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "undermesh_ebpf", "{}", record.args());
    }
    fn flush(&self) {}
}

/// Forwards the programs' log until the runtime ends. Needs a tokio runtime.
pub(crate) fn start(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    let failed = |reason: String| DatapathError::Map { action: "open", map: "AYA_LOGS", reason };
    let logger =
        EbpfLogger::init_with_logger(ebpf, ToTracing).map_err(|error| failed(error.to_string()))?;
    let mut logger =
        sys::async_fd(logger, Interest::READABLE).map_err(|error| failed(error.to_string()))?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
