//! The addresses of the services, and the user's credentials.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use slipway_proto::{
    approval::v1::approval_service_client::ApprovalServiceClient,
    build::v1::build_service_client::BuildServiceClient,
    deploy::v1::deploy_service_client::DeployServiceClient,
    gitops::v1::git_ops_service_client::GitOpsServiceClient,
    operations::v1::operations_service_client::OperationsServiceClient,
    release::v1::release_service_client::ReleaseServiceClient,
};
use slipway_server::{Channel, ClientConfig};

use crate::{args::Globals, failure::Failure};

pub(crate) type Operations = OperationsServiceClient<Channel>;

/// Where `slipway dev` writes it by default.
const DEFAULT: &str = ".slipway/context.yaml";

/// The context file. Paths in it are relative to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// URLs of the services; missing ones are omitted.
    #[serde(default)]
    pub(crate) build: String,
    #[serde(default)]
    pub(crate) gitops: String,
    #[serde(default)]
    pub(crate) approval: String,
    #[serde(default)]
    pub(crate) deploy: String,
    /// Trusted certificates, if not the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Whose token is used without `--as`.
    pub(crate) user: String,
    /// A file with the bearer token of each person.
    pub(crate) token_files: BTreeMap<String, PathBuf>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Context {
    /// The context of a new folder of `slipway dev`.
    #[cfg(feature = "dev")]
    pub(crate) fn new(
        urls: [String; 4],
        user: &str,
        token_files: BTreeMap<String, PathBuf>,
        ca_file: Option<PathBuf>,
    ) -> Self {
        let [build, gitops, approval, deploy] = urls;
        Self {
            build,
            gitops,
            approval,
            deploy,
            ca_file,
            user: user.to_owned(),
            token_files,
            folder: PathBuf::new(),
        }
    }

    /// Reads the context that the command line names.
    pub(crate) fn load(globals: &Globals) -> Result<Self, Failure> {
        let path = globals.context.clone().unwrap_or_else(|| DEFAULT.into());
        if !path.exists() {
            let message = format!("the context file {} does not exist", path.display());
            return Err(Failure::new(message)
                .next("start `slipway dev` in this folder, or name a context file with --context"));
        }
        let mut context: Self = slipway_server::config::read(&path).map_err(Failure::new)?;
        context.folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        if let Some(user) = &globals.user {
            context.user.clone_from(user);
        }
        Ok(context)
    }

    fn channel(&self, key: &str, url: &str) -> Result<Channel, Failure> {
        if url.is_empty() {
            let message = format!("the context file has no URL of {key}-svc");
            return Err(Failure::new(message).next(format!("add `{key}: https://HOST:PORT` to it")));
        }
        let token_file = self.token_files.get(&self.user).ok_or_else(|| {
            let known: Vec<&str> = self.token_files.keys().map(String::as_str).collect();
            Failure::new(format!(
                "the context file has no token file for user {}",
                self.user
            ))
            .next(format!("use --as with one of: {}", known.join(", ")))
        })?;
        let config = ClientConfig {
            token: None,
            token_file: Some(self.folder.join(token_file)),
            ca_file: self.ca_file.as_ref().map(|file| self.folder.join(file)),
            ..ClientConfig::new(url, "")
        };
        config.connect(key).map_err(Failure::new)
    }

    pub(crate) fn builds(&self) -> Result<BuildServiceClient<Channel>, Failure> {
        Ok(BuildServiceClient::new(self.channel("build", &self.build)?))
    }

    pub(crate) fn gitops(&self) -> Result<GitOpsServiceClient<Channel>, Failure> {
        Ok(GitOpsServiceClient::new(self.channel("gitops", &self.gitops)?))
    }

    pub(crate) fn approvals(&self) -> Result<ApprovalServiceClient<Channel>, Failure> {
        Ok(ApprovalServiceClient::new(
            self.channel("approval", &self.approval)?,
        ))
    }

    pub(crate) fn deployments(&self) -> Result<DeployServiceClient<Channel>, Failure> {
        Ok(DeployServiceClient::new(self.channel("deploy", &self.deploy)?))
    }

    /// For every service that the context names, with its name.
    pub(crate) fn operations(&self) -> Result<Vec<(&'static str, Operations)>, Failure> {
        [
            ("build", &self.build),
            ("gitops", &self.gitops),
            ("approval", &self.approval),
            ("deploy", &self.deploy),
        ]
        .into_iter()
        .filter(|(_, url)| !url.is_empty())
        .map(|(key, url)| Ok((key, OperationsServiceClient::new(self.channel(key, url)?))))
        .collect()
    }

    pub(crate) fn releases(&self) -> Result<ReleaseServiceClient<Channel>, Failure> {
        Ok(ReleaseServiceClient::new(self.channel("deploy", &self.deploy)?))
    }
}
