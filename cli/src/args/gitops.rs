//! `slipway gitops …` as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use crate::commands::gitops::Asked;

#[derive(Debug, Subcommand)]
pub(crate) enum GitopsCommand {
    /// Set images in files of this machine, and leave every other byte as it is.
    #[command(after_long_help = EDIT_EXAMPLES)]
    Edit(EditArgs),
    /// Set images in a GitOps repository: one commit, pushed. Exit code 0 once it is on the branch.
    #[command(after_long_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// Copy the images of one environment to another, as they stand at the head of the branch now.
    Promote(PromoteArgs),
    /// Put the images of before a change back, as a forward commit.
    Revert {
        id: String,
        /// Also when somebody changed the same images since.
        #[arg(long)]
        force: bool,
        /// Why, for the commit message.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        start: StartChangeArgs,
    },
    /// Take a change back that is not pushed yet.
    Cancel {
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Changes, newest first; with --history also the commits of others.
    List(ListChangesArgs),
    /// The images of environments beside each other, those that differ marked.
    #[command(after_long_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// One change as it is now.
    Get { id: String },
    /// Follow a change to its end. Exit code 0 when it was pushed.
    Watch { id: String },
}

const EDIT_EXAMPLES: &str = "\
Examples:
  A kustomization, by its folder or file; the tag alone, so that a digest goes:
    slipway gitops edit --image shop:1.4.0 apps/shop/overlays/dev
  Several overlays at once, all or none; print the difference only:
    slipway gitops edit --diff --image shop=registry.example/shop:1.4.0 apps/shop/overlays/*
  A digest in Helm values; `image` is a mapping of repository, tag and digest, or a whole reference:
    slipway gitops edit --helm image --image registry.example/shop:1.4.0@sha256:… charts/shop/values-dev.yaml
  Only the tag, of two images in one file:
    slipway gitops edit --helm web.image --image :1.4.0 --helm worker.image --image :1.4.0 values.yaml
  A container of a plain manifest, and a field of a custom resource:
    slipway gitops edit --container web --image registry.example/shop:1.4.0 deployment.yaml
    slipway gitops edit --object Rollout/shop --field spec.image --image shop:1.4.0 rollout.yaml

An edit is refused, with file, line and reason, where it could touch more than the image. Then no file is written.
";

const APPLY_EXAMPLES: &str = "\
Examples:
  Where the service's configuration says that the images of an environment stand:
    slipway gitops apply --repository shop --service web --environment dev --image registry.example/web:1.4.0
  Anywhere in the repository; paths are from its root:
    slipway gitops apply --repository shop --service web --environment dev --image web:1.4.0 apps/web/overlays/dev
  An empty commit, for an environment that follows a moving tag:
    slipway gitops apply --repository shop --service web --environment dev --marker
";

const DIFF_EXAMPLES: &str = "\
Examples:
  slipway gitops diff --repository shop
  slipway gitops diff --repository shop --service web --environments staging,production --only-different
";

/// Which images, and where in the files they stand.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImageArgs {
    /// What to write, and over what; may be given several times.
    ///
    /// NAME=REF, NAME:TAG, NAME@DIGEST or NAME=REF:TAG@DIGEST, as `kustomize edit set image` knows them; REF may be *
    /// for the name that is there. NAME is the image as the files know it. With --helm, --container or --field, which
    /// say it already, REF:TAG alone, or :TAG or @DIGEST, which leave the name. A tag without a digest removes the
    /// digest, and the other way round.
    #[arg(long = "image", value_name = "IMAGE")]
    pub(crate) images: Vec<Asked>,
    /// The files are kustomizations, or their folders.
    #[arg(long, conflicts_with_all = ["helm", "manifest"])]
    pub(crate) kustomize: bool,
    /// The files are Helm values, and the image stands at this path: image, web.image.tag, workers[name=mail].image.
    /// Given several times, the first path takes the first --image, and so on.
    #[arg(long, value_name = "PATH", conflicts_with = "manifest")]
    pub(crate) helm: Vec<String>,
    /// The files are Kubernetes manifests.
    #[arg(long)]
    pub(crate) manifest: bool,
    /// In manifests, only this object.
    #[arg(long, value_name = "KIND/NAME", default_value = "", conflicts_with_all = ["kustomize", "helm"])]
    pub(crate) object: String,
    /// In manifests, only the container or init container of this name.
    #[arg(long, value_name = "NAME", default_value = "", conflicts_with_all = ["kustomize", "helm"])]
    pub(crate) container: String,
    /// In manifests, the path of the field that holds the image, for kinds without a pod template: spec.image.
    #[arg(long, value_name = "PATH", default_value = "", conflicts_with_all = ["kustomize", "helm"])]
    pub(crate) field: String,
    /// In a file of several documents with --helm, which one: its number from 1, or KIND/NAME.
    #[arg(long, value_name = "DOCUMENT", default_value = "", requires = "helm")]
    pub(crate) document: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    /// Print the difference as a patch, and write nothing. Exit code 0 whether there is one or not.
    #[arg(long)]
    pub(crate) diff: bool,
    /// Write nothing; exit code 1 when something would change.
    #[arg(long)]
    pub(crate) check: bool,
    /// Read nothing outside this folder [default: the git working copy of the files, else the current folder, else the
    /// folder that holds them all].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) root: Option<PathBuf>,
    /// Files, and folders of kustomizations.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RepositoryArgs {
    /// The repository's name in gitops-svc's configuration.
    #[arg(long, env = "SLIPWAY_GITOPS_REPOSITORY", value_name = "NAME")]
    pub(crate) repository: String,
    /// The branch [default: the configured one].
    #[arg(long, default_value = "", value_name = "BRANCH", hide_default_value = true)]
    pub(crate) branch: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StartChangeArgs {
    /// Return once the change is recorded, before it is pushed.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Idempotency key: the same key makes the same change once [default: a new one].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
    /// What it belongs to, such as the id of a pipeline's run.
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    pub(crate) correlation_id: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    pub(crate) start: StartChangeArgs,
    /// The commit's subject [default: made from service, version and environment].
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) message: String,
    /// A label as NAME=VALUE; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = super::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// By a pull request, also where the configuration asks for none.
    #[arg(long)]
    pub(crate) pull_request: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// The service whose images they are.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// The environment that is to run them.
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: String,
    /// The commit that the image was built from, for the message and trailers.
    #[arg(long, default_value = "", value_name = "SHA", hide_default_value = true)]
    pub(crate) commit: String,
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    /// Change no file: an empty commit that tells those who watch the branch.
    #[arg(long, conflicts_with_all = ["images", "paths"])]
    pub(crate) marker: bool,
    /// Files and folders of kustomizations, from the repository's root. None: where the configuration says.
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PromoteArgs {
    pub(crate) service: String,
    /// The environment whose images are copied.
    pub(crate) from: String,
    /// The environment that takes them.
    pub(crate) to: String,
    /// Only this image, by name; may be given several times.
    #[arg(long = "image", value_name = "NAME")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListChangesArgs {
    /// Only of this repository.
    #[arg(
        long,
        env = "SLIPWAY_GITOPS_REPOSITORY",
        default_value = "",
        value_name = "NAME",
        hide_default_value = true
    )]
    pub(crate) repository: String,
    /// Only of this service.
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) service: String,
    /// Only of this environment.
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) environment: String,
    /// Only in this state.
    #[arg(long, value_enum)]
    pub(crate) status: Option<ChangeStatus>,
    /// Only what belongs to this, such as a release.
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    pub(crate) correlation_id: String,
    /// Also commits that gitops-svc did not make, from the branch's history.
    #[arg(long, requires = "repository")]
    pub(crate) history: bool,
    /// With --history, the branch [default: the configured one].
    #[arg(
        long,
        default_value = "",
        value_name = "BRANCH",
        hide_default_value = true,
        requires = "history"
    )]
    pub(crate) branch: String,
    /// With --history, only what changed something in this folder or file.
    #[arg(
        long,
        default_value = "",
        value_name = "PATH",
        hide_default_value = true,
        requires = "history"
    )]
    pub(crate) path: String,
    /// At most this many.
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChangeStatus {
    Pending,
    Pushed,
    Failed,
    Errored,
    Cancelled,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    /// Only of this service.
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) service: String,
    /// These environments, in this order [default: all that are configured].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) environments: Vec<String>,
    /// Leave out what is the same everywhere.
    #[arg(long)]
    pub(crate) only_different: bool,
}
