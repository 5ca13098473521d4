//! `slipway config …`

mod checkout;

use std::{
    fs,
    path::{Path, PathBuf},
};

use deploy_domain::catalog::{Catalog, GitOps};
use slipway_server::{Config, ServiceSettings};

use crate::{Outcome, args::ConfigCommand, failure::Failure, out};

pub(crate) fn run(command: ConfigCommand) -> Result<Outcome, Failure> {
    let ConfigCommand::Validate {
        catalog,
        configs,
        checkouts,
    } = command;
    if catalog.is_empty() && configs.is_empty() {
        return Err(Failure::new("nothing to validate").next("give --catalog FILE or --config SERVICE=FILE"));
    }
    let mut outcome = Outcome::Happened;
    let mut told = |path: &Path, result: Result<(), String>| match result {
        Ok(()) => out::line(format_args!("{}: ok", path.display())),
        Err(error) => {
            outcome = Outcome::DidNot;
            let place = format!("{}: ", path.display());
            // Those that read files name them themselves.
            eprintln!("{place}{}", error.strip_prefix(&place).unwrap_or(&error));
        }
    };
    let mut catalogs = Vec::new();
    for path in &catalog {
        let read = read_catalog(path);
        told(path, read.map(|catalog| catalogs.push((path, catalog))));
    }
    for (path, catalog) in &catalogs {
        for warning in warnings(catalog, &checkouts) {
            eprintln!("{}: warning: {warning}", path.display());
        }
    }
    for (service, path) in &configs {
        let result = match service.trim_end_matches("-svc") {
            "build" => check(path).map(|_: build_svc::Config| ()),
            "gitops" => check(path).map(|_: gitops_svc::Config| ()),
            "approval" => check(path).map(|_: approval_svc::Config| ()),
            "deploy" => check_deploy(path, &catalogs),
            _ => Err(format!(
                "unknown service {service}: use build-svc, gitops-svc, approval-svc or deploy-svc"
            )),
        };
        told(path, result);
    }
    Ok(outcome)
}

fn read_catalog(path: &Path) -> Result<Catalog, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    Catalog::parse(&text).map_err(|error| error.to_string())
}

/// What is valid and still unlikely to work, as the manifests in the checkouts show.
fn warnings(catalog: &Catalog, checkouts: &[(String, PathBuf)]) -> Vec<String> {
    let objects = |gitops: &GitOps| {
        let mut known = checkouts.iter();
        let known = known.find(|(repository, _)| *repository == gitops.repository.as_str());
        known.map_or_else(Vec::new, |(_, folder)| {
            checkout::objects(&folder.join(&gitops.path))
        })
    };
    let warnings = catalog.too_short(objects);
    warnings.iter().map(ToString::to_string).collect()
}

/// The clusters and Prometheus servers that the catalogs name must be there.
fn check_deploy(path: &Path, catalogs: &[(&PathBuf, Catalog)]) -> Result<(), String> {
    let config: deploy_svc::Config = check(path)?;
    let configured = config.settings.configured();
    let wrong: Vec<String> = catalogs
        .iter()
        .filter_map(|(catalog_path, catalog)| {
            let error = configured.check(catalog).err()?;
            Some(format!("{}: {error}", catalog_path.display()))
        })
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// Checks the file alone: the files that it names are where the service runs, which has `--check` for that.
fn check<S: ServiceSettings>(path: &Path) -> Result<Config<S>, String> {
    let config: Config<S> = slipway_server::config::read(path).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}
