//! `slipway gitops …` on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::image::ImageOption;

#[derive(Debug, Subcommand)]
pub(crate) enum GitopsCommand {
    /// Set images in local files, and leave every other byte unchanged.
    #[command(after_long_help = EDIT_EXAMPLES)]
    Edit(EditArgs),
    /// Set images in a GitOps repository with one pushed commit.
    #[command(after_long_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// Copy the images of one environment to another, as they are at the head of the branch.
    Promote(PromoteArgs),
    /// Restore the images of before a change, with a new commit.
    Revert {
        /// The change's id.
        id: String,
        /// Revert even if the same images were changed since.
        #[arg(long)]
        force: bool,
        /// The reason, for the commit message.
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
        /// Revert only what was written in this file or folder; may be repeated.
        #[arg(long = "path", value_name = "PATH")]
        paths: Vec<String>,
        #[command(flatten)]
        start: StartChangeArgs,
    },
    /// Cancel a change that is not pushed yet.
    Cancel {
        /// The change's id.
        id: String,
        /// The reason, which is recorded.
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
    },
    /// List changes, newest first; with --history, other commits too.
    List(ListChangesArgs),
    /// Compare the images of environments; differences are marked.
    #[command(after_long_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Show a change.
    Get {
        /// The change's id.
        id: String,
    },
    /// Follow a change until it ends.
    Watch {
        /// The change's id.
        id: String,
    },
}

const EDIT_EXAMPLES: &str = "\
Examples:
  A kustomization, by its folder or file; a tag alone removes the digest:
    slipway gitops edit --image shop:1.4.0 apps/shop/overlays/dev
  Several overlays at once, all or none; only print the difference:
    slipway gitops edit --diff --image shop=registry.example/shop:1.4.0 apps/shop/overlays/*
  A digest in Helm values; `image` is a mapping of repository, tag and digest, or a whole reference:
    slipway gitops edit --helm image --image registry.example/shop:1.4.0@sha256:… charts/shop/values-dev.yaml
  Only the tag, of two images in one file:
    slipway gitops edit --helm web.image --image :1.4.0 --helm worker.image --image :1.4.0 values.yaml
  A container of a plain manifest, and a field of a custom resource:
    slipway gitops edit --container web --image registry.example/shop:1.4.0 deployment.yaml
    slipway gitops edit --object Rollout/shop --field spec.image --image shop:1.4.0 rollout.yaml

An edit that could touch more than the image is rejected with file, line and reason, and no file is written.
";

const APPLY_EXAMPLES: &str = "\
Examples:
  In the files that gitops-svc's configuration names for the environment:
    slipway gitops apply --repository shop --service web --environment dev --image registry.example/web:1.4.0
  Anywhere in the repository; paths are from its root:
    slipway gitops apply --repository shop --service web --environment dev --image web:1.4.0 apps/web/overlays/dev
  An empty commit, for an environment that deploys a moving tag:
    slipway gitops apply --repository shop --service web --environment dev --marker
";

const DIFF_EXAMPLES: &str = "\
Examples:
  slipway gitops diff --repository shop
  slipway gitops diff --repository shop --service web --environments staging,production --only-different
";

/// Which images, and where they are in the files.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImageArgs {
    /// The image to set; may be repeated.
    ///
    /// NAME=REF, NAME:TAG, NAME@DIGEST or NAME=REF:TAG@DIGEST, as in `kustomize edit set image`. NAME is the image's
    /// name in the files; * as REF keeps that name. With --helm, --container or --field, which locate the image,
    /// REF:TAG is enough, or :TAG or @DIGEST to keep the name. A tag without a digest removes the digest, and a digest
    /// without a tag the tag.
    #[arg(long = "image", value_name = "IMAGE")]
    pub(crate) images: Vec<ImageOption>,
    /// Treat the files as kustomizations; their folders may be given instead.
    #[arg(long, conflicts_with_all = ["helm", "manifest"])]
    pub(crate) kustomize: bool,
    /// Treat the files as Helm values, with the image at this path: image, web.image.tag, workers[name=mail].image. May
    /// be repeated; the first path takes the first --image, and so on. In an Application of Argo CD:
    /// spec.source.helm.parameters[name=image.tag], spec.source.kustomize.images[name=web], spec.source.helm.values.image.
    #[arg(long, value_name = "PATH", conflicts_with = "manifest")]
    pub(crate) helm: Vec<String>,
    /// Treat the files as Kubernetes manifests.
    #[arg(long)]
    pub(crate) manifest: bool,
    /// In manifests, only this object.
    #[arg(long, value_name = "KIND/NAME", default_value = "", hide_default_value = true, conflicts_with_all = ["kustomize", "helm"])]
    pub(crate) object: String,
    /// In manifests, only the container or init container of this name.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, conflicts_with_all = ["kustomize", "helm"])]
    pub(crate) container: String,
    /// In manifests of kinds without a pod template, the path of the field with the image, such as spec.image.
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, conflicts_with_all = ["kustomize", "helm"])]
    pub(crate) field: String,
    /// With --helm, the document of a file with several: its number from 1, or KIND/NAME.
    #[arg(
        long,
        value_name = "DOCUMENT",
        default_value = "",
        hide_default_value = true,
        requires = "helm"
    )]
    pub(crate) document: String,
    /// Also change the other places of a file that show the same value by an anchor and aliases. Without this, such an
    /// edit is refused, and the places are named.
    #[arg(long)]
    pub(crate) allow_shared: bool,
    /// With --helm, add the image where the file has none at the path.
    #[arg(long, requires = "helm")]
    pub(crate) add_missing: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    /// Print the difference as a patch and write nothing.
    #[arg(long)]
    pub(crate) diff: bool,
    /// Write nothing, and fail if something would change.
    #[arg(long)]
    pub(crate) check: bool,
    /// Read nothing outside this folder [default: the git working copy of the files, else the current folder, else
    /// their common parent].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) root: Option<PathBuf>,
    /// Files, or folders of kustomizations.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RepositoryArgs {
    /// The repository, as gitops-svc's configuration names it.
    #[arg(long, env = "SLIPWAY_GITOPS_REPOSITORY", value_name = "NAME")]
    pub(crate) repository: String,
    /// The branch [default: as configured].
    #[arg(long, default_value = "", value_name = "BRANCH", hide_default_value = true)]
    pub(crate) branch: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StartChangeArgs {
    /// Return when the change is recorded, without waiting for the push.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Idempotency key: repeated requests with one key make one change [default: a new key].
    #[arg(long, value_name = "KEY")]
    pub(crate) request_id: Option<String>,
    /// The id of what the change belongs to, such as a pipeline run.
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    pub(crate) correlation_id: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    pub(crate) start: StartChangeArgs,
    /// The commit's subject [default: composed of service, version and environment].
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) message: String,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = super::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Open a pull request even if the configuration does not require one.
    #[arg(long)]
    pub(crate) pull_request: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// The service that the images belong to.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// The environment that will run the images.
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: String,
    /// The commit that the image was built from, for the commit message and its trailers.
    #[arg(long, default_value = "", value_name = "SHA", hide_default_value = true)]
    pub(crate) commit: String,
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    /// Make an empty commit, to notify what watches the branch.
    #[arg(long, conflicts_with_all = ["images", "paths"])]
    pub(crate) marker: bool,
    /// Files or folders of kustomizations, from the repository's root [default: as configured for the environment].
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PromoteArgs {
    /// The service to promote.
    pub(crate) service: String,
    /// The environment to copy the images from.
    pub(crate) from: String,
    /// The environment to copy the images to.
    pub(crate) to: String,
    /// Only this image; may be repeated.
    #[arg(long = "image", value_name = "NAME")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListChangesArgs {
    /// Only changes of this repository.
    #[arg(
        long,
        env = "SLIPWAY_GITOPS_REPOSITORY",
        default_value = "",
        value_name = "NAME",
        hide_default_value = true
    )]
    pub(crate) repository: String,
    /// Only changes of this service.
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) service: String,
    /// Only changes of this environment.
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) environment: String,
    /// Only changes with this status.
    #[arg(long, value_enum)]
    pub(crate) status: Option<ChangeStatus>,
    /// Only changes that belong to this, such as a release.
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    pub(crate) correlation_id: String,
    /// Include commits of the branch that gitops-svc did not make.
    #[arg(long, requires = "repository")]
    pub(crate) history: bool,
    /// With --history, the branch [default: as configured].
    #[arg(
        long,
        default_value = "",
        value_name = "BRANCH",
        hide_default_value = true,
        requires = "history"
    )]
    pub(crate) branch: String,
    /// With --history, only changes to this folder or file.
    #[arg(
        long,
        default_value = "",
        value_name = "PATH",
        hide_default_value = true,
        requires = "history"
    )]
    pub(crate) path: String,
    /// Maximum number of changes.
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    pub(crate) limit: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChangeStatus {
    /// Not pushed yet.
    Pending,
    /// On the branch.
    Pushed,
    /// Refused, for a reason that does not pass.
    Failed,
    /// Given up without a definite answer.
    Errored,
    /// Cancelled on request.
    Cancelled,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    /// Only this service.
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) service: String,
    /// Environments to compare, in this order [default: all that are configured].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) environments: Vec<String>,
    /// Show differences only.
    #[arg(long)]
    pub(crate) only_different: bool,
}
