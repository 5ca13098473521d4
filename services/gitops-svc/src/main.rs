//! gitops-svc: reads its configuration and runs the service.

use std::process::ExitCode;

fn main() -> ExitCode {
    slipway_server::main(
        "gitops-svc",
        "Writes images into GitOps repositories: one commit each, many changes in one push.",
        gitops_svc::run,
    )
}
