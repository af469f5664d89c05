//! Whole connections: real sockets, real TLS, one proxy that serves the pods of both ends.

mod bytes;
mod mesh;
mod pooling;
mod refusals;
mod resets;
