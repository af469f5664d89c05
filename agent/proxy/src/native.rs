//! The native wire, `undermesh/1`: what two agents of this mesh speak to each other
//! (`docs/reference/wire.md`). Mutual TLS to the destination's own address and port, and frames in it
//! that carry one connection of an application at a time.
//!
//! Outbound: `pool.rs` -> `dial.rs` -> `client.rs` -> `stream.rs`. Inbound: `server.rs` ->
//! `stream.rs`. `frame.rs`, `open.rs` and `decoder.rs` know bytes and nothing else.

mod callers;
mod client;
mod connection;
mod decoder;
mod dial;
#[cfg(feature = "fuzzing")]
pub mod echo;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod io;
mod open;
mod pool;
mod server;
mod stream;

pub(crate) use callers::Callers;
pub(crate) use client::{Session, open};
pub(crate) use dial::DialError;
pub(crate) use pool::Pool;
pub(crate) use server::serve;
