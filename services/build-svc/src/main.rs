//! The program `build-svc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    slipway_server::main(
        "build-svc",
        "Builds one commit into one image, pushes it and tags it",
        build_svc::run,
    )
}
