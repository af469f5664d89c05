//! What either side takes from bytes of a stream, without doing anything with it: for whoever tries both with bytes that nobody
//! would send.

use bytes::Bytes;

use super::{
    frames::Frames,
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    received::Received,
};
use crate::kubernetes::state::State;

/// What an agent would put in force, one line for each change: `+` or `-`, and the name of the object as itself says it.
///
/// # Errors
/// Where it would end the stream; with what it has taken until then.
pub fn read_responses(
    pieces: impl IntoIterator<Item = Bytes>,
) -> Result<Vec<String>, (Vec<String>, String)> {
    let (mut frames, mut received) = (Frames::default(), Received::default());
    let state = State::new("");
    for piece in pieces {
        frames.push(&piece);
        loop {
            let read = frames.next::<DeltaDiscoveryResponse>();
            let added = match read {
                Ok(None) => break,
                Ok(Some(response)) => received.add(response, &state),
                Err(why) => Err(why),
            };
            added.map_err(|why| (received.lines(), why))?;
        }
    }
    Ok(received.lines())
}

/// What a controller would read, one line for each request: the names in it.
///
/// # Errors
/// Where it would end the stream; with what it has read until then.
pub fn read_requests(
    pieces: impl IntoIterator<Item = Bytes>,
) -> Result<Vec<String>, (Vec<String>, String)> {
    let (mut frames, mut lines) = (Frames::default(), Vec::new());
    for piece in pieces {
        frames.push(&piece);
        loop {
            match frames.next::<DeltaDiscoveryRequest>() {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let known: Vec<String> =
                        request.initial_resource_versions.into_keys().collect();
                    lines.push(format!("{} {}", request.response_nonce, known.join(" ")));
                }
                Err(why) => return Err((lines, why)),
            }
        }
    }
    Ok(lines)
}
