//! `cargo xtask`: every command a contributor runs. This file is the table of contents; each
//! subcommand is a module with its `Args` and a `run`. To add one: a module and a line in
//! `Command` and in `main`.

mod bench;
mod build_ebpf;
mod chart;
mod codegen;
mod command;
mod demo;
mod fuzz;
mod image;
mod install;
mod lint;
mod machine;
mod progress;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Undermesh's commands for contributors.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up two nodes and show what the mesh does, from clear text to denied peer
    Demo(demo::Args),
    /// Build the eBPF programs from source, installing what that needs
    BuildEbpf(build_ebpf::Args),
    /// Write the Rust types of the protobuf files
    Codegen(codegen::Args),
    /// Lint and render the Helm chart, and write the manifest that comes of it
    Chart(chart::Args),
    /// Run every test that this machine can run
    Test(test::Args),
    /// Measure the same work with and without the mesh, as ratios
    Bench(bench::Args),
    /// Try every parser of a peer's bytes with millions of inputs
    Fuzz(fuzz::Args),
    /// Run the kernel ring on other kernels, in virtual machines
    Vm(vm::Args),
    /// Make a container image with nothing but a static binary in it
    Image(image::Args),
    /// Check formatting, clippy, crate walls, source rules, links and names
    Lint(lint::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // One line, and no backtrace: what went wrong is the user's machine, not this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::BuildEbpf(args) => build_ebpf::run(&workspace, &args),
        Command::Codegen(args) => codegen::run(&workspace, &args),
        Command::Chart(args) => chart::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Fuzz(args) => fuzz::run(&workspace, &args),
        Command::Vm(args) => vm::run(&workspace, &args),
        Command::Image(args) => image::run(&workspace, &args),
        Command::Lint(args) => lint::run(&workspace, &args),
    }
}
