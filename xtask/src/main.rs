//! `cargo xtask`: everything a developer does with this repository, as one program.
//!
//! It compiles in seconds because it needs no crate but std.

mod build_components;
mod embed;
mod manifest;
mod shell;
mod toolchain;

use build_components::{Kind, Request};
use shell::{Failure, Result, red};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{} {failure}", red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (command, rest) = arguments
        .split_first()
        .map_or(("help", arguments), |(name, rest)| (name.as_str(), rest));
    let root = shell::root()?;
    match command {
        "build-components" => build_components::build_components(&root, &build_request(rest)?),
        other => Err(Failure::new(format!("there is no task {other:?}"))),
    }
}

fn build_request(arguments: &[String]) -> Result<Request> {
    let mut request = Request {
        kind: Kind::Services,
        names: Vec::new(),
        json: false,
    };
    for argument in arguments {
        match argument.as_str() {
            "--json" => request.json = true,
            "--guests" => request.kind = Kind::Guests,
            option if option.starts_with('-') => {
                return Err(
                    Failure::new(format!("build-components does not know {option}"))
                        .remedy("cargo xtask build-components [NAME…] [--guests] [--json]"),
                );
            }
            name => request.names.push(name.to_string()),
        }
    }
    Ok(request)
}
