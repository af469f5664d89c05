//! `undermesh`: the agent of a node, and the commands that look after it.

mod admin;
mod agent;
mod allocator;
mod analyze;
mod bugreport;
mod ca;
mod cli;
mod client;
mod cluster;
mod config;
mod controller;
mod crds;
mod dashboard;
mod discovery;
mod doctor;
mod dump;
mod edges;
mod enrolment;
mod explain;
mod flows;
mod gate;
mod handover;
mod kernel_events;
mod kubelet;
mod listeners;
mod logging;
mod metrics;
mod overload;
mod pod;
mod pod_cgroup;
mod policies;
mod query;
mod readiness;
mod rejudge;
mod sockets;
mod source;
mod spans;
mod status;
mod top;
mod trace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
