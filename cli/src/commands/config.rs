//! `slipway config …`

use std::path::Path;

use slipway_server::ServiceConfig;

use crate::{Outcome, args::ConfigCommand, failure::Failure, out};

pub(crate) fn run(command: ConfigCommand) -> Result<Outcome, Failure> {
    let ConfigCommand::Validate { catalog, configs } = command;
    if catalog.is_empty() && configs.is_empty() {
        return Err(Failure::new("nothing to validate").next("give --catalog FILE or --config SERVICE=FILE"));
    }
    let mut outcome = Outcome::Happened;
    let mut told = |path: &Path, result: Result<(), String>| match result {
        Ok(()) => out::line(format_args!("{}: ok", path.display())),
        Err(error) => {
            outcome = Outcome::DidNot;
            eprintln!("{}: {error}", path.display());
        }
    };
    for path in &catalog {
        told(
            path,
            deploy_svc::catalog::Catalog::read(path)
                .map(|_| ())
                .map_err(|error| error.to_string()),
        );
    }
    for (service, path) in &configs {
        let result = match service.trim_end_matches("-svc") {
            "build" => check::<build_svc::Config>(path),
            "gitops" => check::<gitops_svc::Config>(path),
            "approval" => check::<approval_svc::Config>(path),
            "deploy" => check::<deploy_svc::Config>(path),
            _ => Err(format!(
                "no service {service:?}: there are build-svc, gitops-svc, approval-svc and deploy-svc"
            )),
        };
        told(path, result);
    }
    Ok(outcome)
}

fn check<C: ServiceConfig>(path: &Path) -> Result<(), String> {
    let config: C = slipway_server::config::read(path).map_err(|error| error.to_string())?;
    config.server().check().map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())
}
