//! The `exprsn` program: everything is in the library, so that tests and benchmarks reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    exprsn::cli::main()
}
