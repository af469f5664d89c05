//! Step *fault*: errors that a route injects, so that applications can be tried against them.

use http::StatusCode;
use undermesh_model::traffic::Fault;

use super::{
    local_reply::LocalReply,
    log::{Flag, RequestLog},
    random,
};
use crate::grpc::http_status;

/// Delays and aborts as the rule says. Envoy's order: a request may be delayed and then aborted.
pub(crate) async fn inject(fault: &Fault, log: &mut RequestLog) -> Result<(), LocalReply> {
    if let Some(delay) = fault.delay.filter(|delay| random::chance(delay.share)) {
        log.flag(Flag::Delay);
        tokio::time::sleep(delay.time).await;
    }
    if let Some((status, share)) = fault.abort
        && random::chance(share)
    {
        return Err(abort(StatusCode::from_u16(status).unwrap_or_default(), None));
    }
    if let Some((status, share)) = fault.grpc_abort
        && random::chance(share)
    {
        return Err(abort(http_status(status), Some(status)));
    }
    Ok(())
}

fn abort(status: StatusCode, grpc: Option<u16>) -> LocalReply {
    let body = bytes::Bytes::from_static(b"fault filter abort");
    LocalReply { grpc, body, flag: Some(Flag::Fault), ..LocalReply::new(status, "fault_injected") }
}
