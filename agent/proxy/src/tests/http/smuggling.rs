//! Requests that mean one thing to one reader and another to the next, row by row. Behind every one that
//! has to be refused follows another request, which nobody may ever hear of.
//!
//! Every row runs against both edges: that of the client's node, which routes, and that of the destination,
//! which judges.

mod bodies;
mod chunks;
mod downgrade;
mod heads;
mod targets;

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    recorder::{Recorded, Recorder},
    rig::VIP,
};
use crate::tests::{judged::look_at_requests, mesh::SOON};

/// What follows.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";

/// What a client says, and what becomes of it. `$` is what tells the row's requests from others.
struct Row {
    name: &'static str,
    says: Vec<u8>,
    /// Method, target and body of the requests that reach the endpoint and are answered.
    passes: Vec<&'static str>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// More requests may follow.
    Open,
    /// Answered with one of these statuses, and closed; the endpoint hears nothing.
    Refused(&'static [u16]),
    /// Closed, perhaps after an answer; the endpoint hears of no request that is complete.
    Broken,
}

/// A request that is refused with 400.
fn refused(name: &'static str, says: impl AsRef<[u8]>) -> Row {
    let says = says.as_ref().to_vec();
    Row { name, says, passes: Vec::new(), end: End::Refused(&[400]) }
}

/// A request that passes.
fn passes(name: &'static str, says: impl AsRef<[u8]>, passes: &[&'static str]) -> Row {
    Row { name, says: says.as_ref().to_vec(), passes: passes.to_vec(), end: End::Open }
}

/// Statuses of the answers, in their order.
fn statuses(heard: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(heard);
    let starts = text.match_indices("HTTP/1.");
    let status = |at: usize| text.get(at + 9..at + 12).and_then(|status| status.parse().ok());
    starts.filter_map(|(at, _)| status(at)).filter(|status| *status >= 200).collect()
}

/// Says a row, and hears what comes of it.
async fn say(recorder: &Recorder, to: SocketAddr, row: &Row, says: &[u8]) -> Vec<u16> {
    let mut stream = recorder.rig.client.dial(to).await;
    // It may be refused before all of it was said.
    let _ = stream.write_all(says).await;
    let mut heard = Vec::new();
    loop {
        let done = row.end == End::Open && statuses(&heard).len() >= row.passes.len();
        let read = timeout(SOON, stream.read_buf(&mut heard));
        if done || !matches!(read.await.unwrap_or(Ok(0)), Ok(1..)) {
            return statuses(&heard);
        }
    }
}

/// Whether the answers are as they should be. The judging edge takes what does not look like a request at
/// all for another protocol, which it closes.
fn judge(row: &Row, statuses: &[u16], judging: bool) -> Result<(), String> {
    let wrong = || Err(format!("{}: answered {statuses:?}", row.name));
    let Some((passed, rest)) = statuses.split_at_checked(row.passes.len()) else { return wrong() };
    let right = match row.end {
        End::Open => rest.is_empty(),
        End::Refused(allowed) => match rest {
            [] => judging,
            [one] => allowed.contains(one),
            _ => false,
        },
        End::Broken => matches!(rest, [] | [400 | 503]),
    };
    if right && passed.iter().all(|status| *status == 200) { Ok(()) } else { wrong() }
}

async fn hold(to: impl Fn(&Recorder) -> SocketAddr, judging: bool) {
    let recorder = Recorder::new().await;
    if judging {
        look_at_requests(&recorder.rig.mesh, &recorder.server);
    }
    let rows: Vec<Row> = [bodies::rows(), chunks::rows(), heads::rows(), targets::rows()]
        .into_iter()
        .flatten()
        .collect();
    let tag = |number: usize| format!("row-{number}-");
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut says = replaced(&row.says, tag(number).as_bytes());
        if row.end != End::Open {
            says.extend(SMUGGLED);
        }
        let statuses = say(&recorder, to(&recorder), row, &says).await;
        wrong.extend(judge(row, &statuses, judging).err());
    }
    let recorded = recorder.recorded();
    for (number, row) in rows.iter().enumerate() {
        let tag = tag(number);
        let own = recorded.iter().filter(|request| request.head.contains(&tag));
        let own = own.filter(|request| request.whole || matches!(row.end, End::Refused(_)));
        let reached: Vec<_> = own.map(Recorded::summary).collect();
        let wanted: Vec<_> = row.passes.iter().map(|text| text.replace('$', &tag)).collect();
        if reached != wanted {
            wrong.push(format!(
                "{}: the endpoint heard {reached:?} instead of {wanted:?}",
                row.name
            ));
        }
    }
    let smuggled = recorded.iter().filter(|request| {
        request.head.contains("smuggled")
            || String::from_utf8_lossy(&request.body).contains("smuggled")
    });
    wrong.extend(smuggled.map(|request| format!("smuggled: {request:?}")));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

fn replaced(bytes: &[u8], tag: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'$').collect();
    parts.join(tag)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_past_the_routing_edge() {
    hold(|_| VIP.parse().unwrap(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_past_the_judging_edge() {
    hold(|recorder| recorder.server.address, true).await;
}
