//! Where others put what a server does beyond keeping objects: reviews, admission, subresources.

use std::fmt;

use serde_json::Value;

use super::{ApiServer, answer::Refusal, call::Call, forward::Door};

/// Something that the server asks about every call. All methods may block: each call has a thread of its
/// own while it asks.
///
/// To answer a subresource or a review, implement [`Hook::answer`]; to judge or change what is written,
/// [`Hook::admit`]. The server is given so that a hook can read and write objects.
pub trait Hook: Send + Sync {
    /// Answers a call in the server's place: status code and object. `None` leaves it to the next.
    fn answer(&self, server: &ApiServer, call: &Call) -> Option<Result<(u16, Value), Refusal>> {
        let _ = (server, call);
        None
    }

    /// Says where a port of a pod is, of a call of `pods/portforward`. `None` leaves it to the next.
    fn forward(&self, server: &ApiServer, call: &Call, port: u16) -> Option<Result<Door, Refusal>> {
        let _ = (server, call, port);
        None
    }

    /// Sees what is created, updated or patched before it is stored, may change it, or refuse it. For a
    /// patch, `object` is the patch.
    ///
    /// # Errors
    /// What the client is told.
    fn admit(&self, server: &ApiServer, call: &Call, object: &mut Value) -> Result<(), Refusal> {
        let _ = (server, call, object);
        Ok(())
    }
}

impl fmt::Debug for dyn Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
