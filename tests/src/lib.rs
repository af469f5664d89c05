//! Two (or more) nodes on one machine, for tests and for `cargo xtask demo`.
//!
//! ```text
//! rig ── footprint   every name, path and process that a rig leaves on the machine, by its tag
//!     ├─ topology    nodes and pods as network namespaces, joined by a wire
//!     ├─ manifest    the Kubernetes objects that describe them
//!     ├─ agent       agent processes: configuration, start, kill, status, metrics, access log
//!     ├─ clock       time that tests move
//!     ├─ guard       cleans up after an owner that died, however it died
//!     ├─ pod         drives sockets inside a pod, one system call at a time
//!     ├─ doctor      `undermesh doctor` on a node, and what it says
//!     ├─ files       files on disk, and commands about them
//!     ├─ authorizer  whom CUSTOM policies ask, over HTTP and gRPC
//!     ├─ foreign     programs of somebody else
//!     ├─ guide       pages of the documentation that show commands and their output
//!     ├─ issuer      who signs tokens
//!     ├─ metrics     what a scrape has, against the page about it
//!     ├─ raw         requests as bytes
//!     ├─ receiver    a receiver of spans
//!     ├─ controller  controllers as processes, and their certificate service as bytes on a wire
//!     ├─ apiserver   a Kubernetes API server
//!     ├─ outside     a DNS server, and servers with certificates of somebody else
//!     ├─ browser     a browser without a window, for pages that agents and controllers serve
//!     └─ capture     every packet on the wire
//! ```
//!
//! Beside it, [`vm`]: what `cargo xtask vm` and the machines that it boots say to each other.
//!
//! Knows the agent only through its command line, its configuration file and its HTTP pages.

mod access_log;
mod agent;
pub mod apiserver;
pub mod authorizer;
mod browser;
mod capture;
pub mod cases;
mod cgroup;
mod clock;
mod controller;
mod doctor;
mod files;
mod footprint;
mod foreign;
mod guard;
mod guide;
mod http;
mod issuer;
mod manifest;
mod metrics;
mod netns;
mod outside;
pub mod pod;
mod poll;
mod programs;
pub mod raw;
mod receiver;
mod rig;
mod standard;
mod status;
mod topology;
pub mod vm;

pub use access_log::{AccessLog, LogLine};
pub use agent::{Agent, Settings};
pub use browser::{Browser, Spoken};
pub use capture::{Capture, Flow};
pub use cgroup::cgroup2_mount;
pub use clock::Clock;
pub use controller::{
    Controller, NAME as CONTROLLER, Plane, certificates, distribution, fleet, watchers,
};
pub use doctor::{Diagnosis, Doctor, FindingRow};
pub use files::Files;
pub use footprint::Footprint;
pub use foreign::ForeignProgram;
pub use guard::watch_owner;
pub use guide::Section;
pub use issuer::Issuer;
pub use manifest::{Manifests, Placement, PodSpec, ServiceSpec};
pub use metrics::Reference;
pub use netns::{Netns, enter_netns};
pub use outside::{Authority, DnsServer, Issued, TlsServer};
pub use pod::{Conn, Listener, Pod};
pub use poll::wait_for;
pub use programs::{locate, use_binaries_of};
pub use receiver::{Received, Receiver};
pub use rig::{Rig, RigBuilder, undermesh};
pub use standard::PORT;
pub use status::{MapRow, PodRow, Status};
pub use topology::{Family, Node, PodPlace};
