//! The program around [`approval_svc::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    slipway_server::main(
        "approval-svc",
        "Asks people for approvals, counts their decisions under named policies, and can say who decided.",
        approval_svc::run,
    )
}
