//! An API server as a source of configuration.

mod bench;
mod cluster;
mod models;
mod source;
