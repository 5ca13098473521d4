//! The effect `image`: fetches, builds and pushes, or finds what an earlier run of it has left.

use std::{
    io,
    path::{Path, PathBuf},
};

use build_domain::{
    build::{Build, Command, Phase, Request, Status, codes, of_commit},
    spec::BUILD_LABEL,
};
use slipway_ledger::{EffectRun, ListFilter, Page};
use slipway_model::{Digest, Id, Reason};

use super::{Worker, fail, unless_cancelled};
use crate::backends::{
    builders::{Builder, Job},
    image_layout::Image,
    logs::Log,
    registries::Registry,
    stop::Stop,
    workspace::Attempt,
};

/// How many earlier builds of a commit are looked at, the newest first.
const EARLIER: u32 = 50;

/// An image, and where it comes from.
enum Made {
    Now(Digest),
    Earlier {
        build: Id,
        digest: Digest,
        authors: Vec<String>,
    },
}

impl Worker {
    pub(super) async fn image(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
    ) -> Result<Option<Command>, Reason> {
        let Some(builder) = self.backends.builders.get(&request.builder).map(AsRef::as_ref) else {
            let message = format!(
                "builder {:?} is not configured any longer; add it to builders and build again",
                request.builder
            );
            return Ok(Some(fail(
                run,
                Reason::new(codes::BUILDER_UNKNOWN, message),
                Vec::new(),
            )));
        };
        self.record(run, Command::Begin { key: run.key.clone() }).await;
        let log = self.open_log(run).await?;
        let made = self.make(run, request, builder, &log).await;
        let key = run.key.clone();
        let pushed = made.map(|made| match made {
            Made::Now(digest) => Command::Pushed { key, digest },
            Made::Earlier {
                build,
                digest,
                authors,
            } => Command::Found {
                key,
                build,
                digest,
                authors,
            },
        });
        Ok(self.conclude(run, &log, pushed).await)
    }

    /// Fetches, builds and pushes, or finds what an earlier run of this build has left, or what an earlier build has made.
    async fn make(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        builder: &dyn Builder,
        log: &Log,
    ) -> Result<Made, Stop> {
        let recipe = &request.recipe;
        let registry = self.registry(request)?;
        if let Some(digest) = self.adopt(run, request, registry).await? {
            log.line(&format!(
                "slipway: {} exists already, pushed by this build: {digest}",
                recipe.image
            ));
            return Ok(Made::Now(digest));
        }
        if !request.rebuild
            && let Some(earlier) = self.earlier(run, request, registry, log).await?
        {
            return Ok(earlier);
        }
        let staged = self.workspace.image(&run.id);
        let image = match open_image(&staged).await {
            Ok(image) => {
                log.line("slipway: resuming with the image that was built before the interruption");
                image
            }
            Err(_) => {
                self.workspace.forget_image(&run.id);
                let folder = self.build(run, request, builder, log).await?;
                open_image(&folder)
                    .await
                    .map_err(|error| unusable("image", &error))?
            }
        };
        self.record(
            run,
            Command::Advance {
                key: run.key.clone(),
                phase: Phase::Pushing,
            },
        )
        .await;
        log.line(&format!("slipway: pushing {}@{}", recipe.image, image.digest));
        slipway_faults::point("build.push.before");
        unless_cancelled(run, registry.push(&recipe.image, &image)).await?;
        slipway_faults::point("build.push.after");
        Ok(Made::Now(image.digest))
    }

    /// The image of the newest earlier build that did the same work, as long as it is still in the registry: the same commit
    /// is the same image, in every release.
    async fn earlier(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        registry: &dyn Registry,
        log: &Log,
    ) -> Result<Option<Made>, Stop> {
        let filter = ListFilter {
            status: vec![Status::Succeeded.as_str().to_owned()],
            service: Some(request.service.to_string()),
            labels: of_commit(&request.recipe.commit),
            ..ListFilter::default()
        };
        let page = Page {
            size: EARLIER,
            token: String::new(),
        };
        let found = self.ledger.list_of::<Build>(&filter, &page).await;
        let found = found.map_err(|error| unusable("ledger", &error))?;
        for earlier in found.items {
            let state = earlier.state;
            let (Some(was), Some(digest)) = (&state.request, &state.digest) else {
                continue;
            };
            if !request.makes_image_of(was) {
                continue;
            }
            // Who made it, also where that one is an image of an earlier build itself.
            let build = state.made_by.unwrap_or(earlier.id);
            if unless_cancelled(run, registry.has(&request.recipe.image, digest)).await? {
                log.line(&format!(
                    "slipway: {build} has built this commit before: {}@{digest}; `rebuild` builds it again",
                    request.recipe.image
                ));
                return Ok(Some(Made::Earlier {
                    build,
                    digest: digest.clone(),
                    authors: state.authors,
                }));
            }
            log.line(&format!(
                "slipway: {build} has built this commit before, but the image is not in the registry any more"
            ));
        }
        Ok(None)
    }

    /// An image of this build that the commit's tag already names: pushed by a run that was not recorded.
    async fn adopt(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        registry: &dyn Registry,
    ) -> Result<Option<Digest>, Stop> {
        let Some(tag) = request.recipe.commit_tag() else {
            return Ok(None);
        };
        let tagged = unless_cancelled(run, registry.inspect(&request.recipe.image, &tag)).await?;
        Ok(tagged
            .filter(|image| {
                image
                    .labels
                    .get(BUILD_LABEL)
                    .is_some_and(|build| build == run.id.as_str())
            })
            .map(|image| image.digest))
    }

    async fn build(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        builder: &dyn Builder,
        log: &Log,
    ) -> Result<PathBuf, Stop> {
        let attempt = self
            .workspace
            .attempt(&run.id)
            .map_err(|error| unusable("scratch space", &error))?;
        let built = self.build_in(&attempt, run, request, builder, log).await;
        // Removing gigabytes takes long.
        let _ = tokio::task::spawn_blocking(move || drop(attempt)).await;
        built
    }

    async fn build_in(
        &self,
        attempt: &Attempt,
        run: &EffectRun<Build>,
        request: &Request,
        builder: &dyn Builder,
        log: &Log,
    ) -> Result<PathBuf, Stop> {
        let recipe = &request.recipe;
        let requested_at = run.snapshot.state.requested_at.unwrap_or(run.snapshot.created_at);
        log.line(&format!(
            "slipway: fetching {} of {}",
            recipe.commit, recipe.repository
        ));
        let source = self
            .backends
            .git
            .fetch(&recipe.repository, &recipe.commit, attempt, log, &run.cancelled)
            .await?;
        let tree = source.tree;

        let context = inside(&tree, &tree.join(&recipe.context), "context")?;
        let dockerfile = if recipe.dockerfile.is_empty() {
            "Dockerfile"
        } else {
            &recipe.dockerfile
        };
        let dockerfile = inside(&tree, &context.join(dockerfile), "Dockerfile")?;
        if !context.is_dir() || !dockerfile.is_file() {
            let message = "spec.context must be a folder and spec.dockerfile a file in the commit";
            return Err(Stop::failed(codes::BUILD_FAILED, message));
        }
        self.record(
            run,
            Command::Fetched {
                key: run.key.clone(),
                authors: source.authors,
            },
        )
        .await;
        log.line(&format!("slipway: building with {}", request.builder));
        let image = attempt.path().join("image");
        let job = Job {
            context: &context,
            dockerfile: &dockerfile,
            target: &recipe.target,
            arguments: &recipe.build_arguments(requested_at),
            labels: &recipe.labels(&run.id, &request.service, requested_at),
            created: requested_at,
            image: &image,
            attempt,
            log,
            cancelled: &run.cancelled,
        };
        let digest = builder.build(job).await?;
        log.line(&format!("slipway: built {digest}"));
        self.workspace
            .keep_image(&run.id, &image)
            .map_err(|error| unusable("scratch space", &error))
    }
}

/// Something on this machine does not work: a transient fault.
fn unusable(what: &str, error: &dyn std::fmt::Display) -> Stop {
    Stop::unavailable(codes::BUILDER_UNAVAILABLE, format!("{what}: {error}"))
}

async fn open_image(folder: &Path) -> Result<Image, String> {
    let folder = folder.to_owned();
    match tokio::task::spawn_blocking(move || Image::open(&folder)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A path in the checkout with its symbolic links resolved, which must not lead out of it.
fn inside(tree: &Path, path: &Path, what: &str) -> Result<PathBuf, Stop> {
    let failed = |message: String| Stop::failed(codes::BUILD_FAILED, message);
    let resolve = |path: &Path| -> io::Result<PathBuf> { path.canonicalize() };
    let tree = resolve(tree).map_err(|error| unusable("checkout", &error))?;
    let found =
        resolve(path).map_err(|_| failed(format!("the commit has no {what} at {}", shown(&tree, path))))?;
    if found.starts_with(&tree) {
        Ok(found)
    } else {
        Err(failed(format!(
            "the {what} is a symbolic link that points outside the repository"
        )))
    }
}

fn shown(tree: &Path, path: &Path) -> String {
    path.strip_prefix(tree).unwrap_or(path).display().to_string()
}
