//! Whole connections: real sockets, real TLS, one proxy that serves the pods of both ends.

mod bytes;
mod http;
mod judged;
mod mesh;
mod native;
mod pooling;
mod refusals;
mod resets;
mod room;
