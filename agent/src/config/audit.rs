//! Where the audit log goes: the same settings for agents and for the controller.

use anyhow::{Result, ensure};
use undermesh_telemetry::AuditSink;

const DEFAULT_MAX_BYTES: u64 = 100 << 20;
const DEFAULT_KEEP: u32 = 5;

/// The sink of `auditLog`, `auditLogMaxBytes` and `auditLogKeep`.
pub(crate) fn audit_sink(
    target: Option<&str>,
    max_bytes: Option<u64>,
    keep: Option<u32>,
    default: AuditSink,
) -> Result<AuditSink> {
    let max_bytes = max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
    ensure!(max_bytes >= 4096, "auditLogMaxBytes must be at least 4096");
    let keep = keep.unwrap_or(DEFAULT_KEEP);
    ensure!(keep <= 1000, "auditLogKeep must be at most 1000");
    Ok(match target {
        None => default,
        Some("stdout") => AuditSink::Stdout,
        Some("off") => AuditSink::Off,
        Some(path) => AuditSink::File { path: path.into(), max_bytes, keep },
    })
}
