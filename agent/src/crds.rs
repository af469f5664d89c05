//! `undermesh crds`: the definitions of the mesh's own kinds.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

/// Options of `crds`.
#[derive(Args)]
pub(crate) struct CrdsArgs {
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For `kubectl apply --server-side -f -`.
    Yaml,
    /// One object a line.
    Json,
    /// The page of the documentation.
    Markdown,
}

/// Prints them.
pub(crate) fn run(args: &CrdsArgs) -> Result<ExitCode> {
    match args.output {
        Output::Markdown => print!("{}", undermesh_control::definitions_page()),
        Output::Json => {
            undermesh_control::definitions().iter().for_each(|definition| println!("{definition}"));
        }
        Output::Yaml => {
            for definition in undermesh_control::definitions() {
                print!("---\n{}", serde_yaml_ng::to_string(&definition)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
