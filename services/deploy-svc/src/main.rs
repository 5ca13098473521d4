//! deploy-svc: drives releases across environments and verifies rollouts.

use std::process::ExitCode;

fn main() -> ExitCode {
    slipway_server::main(
        "deploy-svc",
        "Drives releases across environments and verifies rollouts",
        deploy_svc::run,
    )
}
