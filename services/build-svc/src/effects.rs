//! Does what a build's state says must happen: fetch, build and push; then tag. Everything may run twice.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use slipway_ledger::{EffectRun, Effects, ExecuteError, Ledger};
use slipway_model::{Actor, Digest, Fault, Reason};
use slipway_telemetry::Service;
use tracing::Instrument;

use crate::{
    backends::Backends,
    build::{Build, Command, Effect, KeptTag, Phase, Request, codes},
    builders::{Builder, Job},
    layout::Image,
    logs::{Log, Logs},
    registries::Registry,
    spec::{BUILD_LABEL, TagVerdict, tag_verdict},
    stop::Stop,
    workspace::{Attempt, Workspace},
};

/// The effects of builds, with what they need.
#[derive(Debug)]
pub(crate) struct Worker {
    ledger: Ledger,
    backends: Backends,
    logs: Logs,
    workspace: Workspace,
    telemetry: Service,
}

impl Worker {
    pub(crate) fn new(
        ledger: Ledger,
        backends: Backends,
        logs: Logs,
        workspace: Workspace,
        telemetry: Service,
    ) -> Self {
        Self {
            ledger,
            backends,
            logs,
            workspace,
            telemetry,
        }
    }

    async fn image(&self, run: &EffectRun<Build>, request: &Request) -> Result<Option<Command>, Reason> {
        let Some(builder) = self.backends.builders.get(&request.builder).map(AsRef::as_ref) else {
            let message = format!("builder {:?} is not configured any more", request.builder);
            return Ok(Some(fail(
                run,
                Reason::new(codes::BUILDER_UNKNOWN, message),
                Vec::new(),
            )));
        };
        self.tell(run, Command::Begin { key: run.key.clone() }).await;
        let log = self.open_log(run).await?;
        let made = self.make(run, request, builder, &log).await;
        let pushed = made.map(|digest| Command::Pushed {
            key: run.key.clone(),
            digest,
        });
        Ok(self.conclude(run, &log, pushed).await)
    }

    /// Fetches, builds and pushes, or finds what an earlier run of this build has left.
    async fn make(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        builder: &dyn Builder,
        log: &Log,
    ) -> Result<Digest, Stop> {
        let recipe = &request.recipe;
        let registry = self.registry(request)?;
        if let Some(digest) = self.adopt(run, request, registry).await? {
            log.line(&format!(
                "slipway: {} is there already, made by this build: {digest}",
                recipe.image
            ));
            return Ok(digest);
        }
        let staged = self.workspace.image(&run.id);
        let image = match open_image(&staged).await {
            Ok(image) => {
                log.line("slipway: going on with the image that was built before the interruption");
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
        self.tell(
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
        Ok(image.digest)
    }

    /// An image of this very build that the commit's tag names: its record was lost, not the image.
    async fn adopt(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        registry: &dyn Registry,
    ) -> Result<Option<Digest>, Stop> {
        let Some(tag) = request.recipe.commit_tag() else {
            return Ok(None);
        };
        let found = unless_cancelled(run, registry.inspect(&request.recipe.image, &tag)).await?;
        Ok(found
            .filter(|found| {
                found
                    .labels
                    .get(BUILD_LABEL)
                    .is_some_and(|build| build == run.id.as_str())
            })
            .map(|found| found.digest))
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
        // Removing gigabytes takes its time.
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
            let message = "spec.context must be a folder and spec.dockerfile a file of the commit";
            return Err(Stop::failed(codes::BUILD_FAILED, message));
        }
        self.tell(
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

    async fn tags(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        digest: &Digest,
    ) -> Result<Option<Command>, Reason> {
        let log = self.open_log(run).await?;
        let named = self.name(run, request, digest, &log).await;
        Ok(self.conclude(run, &log, named).await)
    }

    async fn name(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        digest: &Digest,
        log: &Log,
    ) -> Result<Command, Stop> {
        let registry = self.registry(request)?;
        let requested_at = run.snapshot.state.requested_at.unwrap_or(run.snapshot.created_at);
        let image = &request.recipe.image;
        let (mut tags, mut kept) = (Vec::new(), Vec::new());
        for wanted in request.recipe.tags(requested_at) {
            let found = unless_cancelled(run, registry.inspect(image, &wanted.tag)).await?;
            match tag_verdict(&wanted, digest, requested_at, found.as_ref()) {
                TagVerdict::Write => {
                    slipway_faults::point("build.tag.before");
                    unless_cancelled(run, registry.tag(image, digest, &wanted.tag)).await?;
                    slipway_faults::point("build.tag.after");
                    log.line(&format!("slipway: tagged {image}:{}", wanted.tag));
                    tags.push(wanted.tag);
                }
                TagVerdict::Ours => tags.push(wanted.tag),
                TagVerdict::Keep => {
                    if let Some(found) = found {
                        log.line(&format!(
                            "slipway: {image}:{} stays with {}",
                            wanted.tag, found.digest
                        ));
                        kept.push(KeptTag {
                            tag: wanted.tag,
                            digest: found.digest,
                        });
                    }
                }
            }
        }
        Ok(Command::Tagged {
            key: run.key.clone(),
            tags,
            kept,
        })
    }

    fn registry(&self, request: &Request) -> Result<&dyn Registry, Stop> {
        let image = &request.recipe.image;
        self.backends
            .registries
            .of(image)
            .map(AsRef::as_ref)
            .ok_or_else(|| {
                Stop::failed(
                    codes::REGISTRY_REFUSED,
                    format!("no registry is configured for {image} any more"),
                )
            })
    }

    /// Ends a step: the log is whole before anybody hears of the outcome.
    async fn conclude(
        &self,
        run: &EffectRun<Build>,
        log: &Log,
        outcome: Result<Command, Stop>,
    ) -> Option<Command> {
        let command = match outcome {
            Ok(command) => Some(command),
            Err(Stop::Fault(Fault::Permanent(reason))) => {
                let reason = self.redacted(reason);
                let tail = log.tail();
                log.line(&format!("slipway: failed: {}", reason.message));
                Some(fail(run, reason, tail))
            }
            Err(Stop::Fault(Fault::Transient { error: reason, .. })) => {
                let reason = self.redacted(reason);
                let log_tail = log.tail();
                log.line(&format!("slipway: interrupted: {}", reason.message));
                Some(Command::Fault {
                    key: run.key.clone(),
                    reason,
                    log_tail,
                })
            }
            Err(Stop::Cancelled) => {
                log.line("slipway: stopped");
                None
            }
        };
        log.close().await;
        // A lost lease or a shutdown leaves the image for whoever goes on; an ended build does not need it.
        let over = match &command {
            Some(Command::Fail { .. } | Command::Tagged { .. }) => true,
            Some(_) => false,
            None => {
                matches!(self.ledger.get::<Build>(&run.id).await, Ok(Some(now)) if now.state.status.is_final())
            }
        };
        if over {
            self.workspace.forget_image(&run.id);
        }
        command
    }

    /// Reasons repeat what programs said.
    fn redacted(&self, reason: Reason) -> Reason {
        Reason {
            message: self.backends.redactor.redact(&reason.message, false),
            code: reason.code,
        }
    }

    /// Records how far a step got. The step goes on when it cannot be recorded: its outcome will tell.
    async fn tell(&self, run: &EffectRun<Build>, command: Command) {
        if let Err(ExecuteError::Ledger(error)) = run.tell(command, self.actor()).await {
            tracing::warn!(%error, build = %run.id, "progress not recorded");
        }
    }

    /// A build without a log is not begun: the executor comes back to it.
    async fn open_log(&self, run: &EffectRun<Build>) -> Result<Log, Reason> {
        self.logs.open(&run.id).await.map_err(|error| {
            Reason::new(
                codes::BUILDER_UNAVAILABLE,
                format!("the log cannot be opened: {error}"),
            )
        })
    }
}

#[async_trait]
impl Effects<Build> for Worker {
    async fn perform(&self, run: EffectRun<Build>) -> Result<Option<Command>, Reason> {
        let Some(request) = run.snapshot.state.request.clone() else {
            return Ok(None);
        };
        let span =
            tracing::info_span!("build", step = %run.key, build = %run.id, commit = %request.recipe.commit);
        self.telemetry.adopt(&span, run.traceparent);
        let work = async {
            match run.effect {
                Effect::Image => self.image(&run, &request).await,
                Effect::Tags => match &run.snapshot.state.digest {
                    Some(digest) => self.tags(&run, &request, digest).await,
                    None => Ok(None),
                },
            }
        };
        // Boxed: the futures of a whole build are large.
        Box::pin(work.instrument(span)).await
    }

    fn actor(&self) -> Actor {
        Actor::system("build")
    }
}

/// A call to a registry, given up when nobody wants its outcome any more.
async fn unless_cancelled<T>(
    run: &EffectRun<Build>,
    call: impl Future<Output = Result<T, Fault<Reason>>>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        () = run.cancelled.cancelled() => Err(Stop::Cancelled),
        outcome = call => outcome.map_err(Stop::from),
    }
}

/// What this machine needs for building is not as it should be; may pass.
fn unusable(what: &str, error: &dyn std::fmt::Display) -> Stop {
    Stop::unavailable(codes::BUILDER_UNAVAILABLE, format!("{what}: {error}"))
}

fn fail(run: &EffectRun<Build>, reason: Reason, log_tail: Vec<String>) -> Command {
    Command::Fail {
        key: run.key.clone(),
        reason,
        log_tail,
    }
}

async fn open_image(folder: &Path) -> Result<Image, String> {
    let folder = folder.to_owned();
    match tokio::task::spawn_blocking(move || Image::open(&folder)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A path of the checkout with its links followed, which must not have led out of it.
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
            "the {what} is a link that leads out of the repository"
        )))
    }
}

fn shown(tree: &Path, path: &Path) -> String {
    path.strip_prefix(tree).unwrap_or(path).display().to_string()
}

/// Removes images that this machine still holds of builds which ended elsewhere or before a crash.
pub(crate) async fn forget_images_of_ended(ledger: &Ledger, workspace: &Workspace) {
    let images = match workspace.images() {
        Ok(images) => images,
        Err(error) => {
            tracing::warn!(%error, "built images cannot be listed");
            return;
        }
    };
    for id in images {
        match ledger.get::<Build>(&id).await {
            Ok(Some(build)) if !build.state.status.is_final() => {}
            Ok(_) => workspace.forget_image(&id),
            Err(error) => {
                tracing::warn!(%error, build = %id, "cannot tell whether its image is still needed");
            }
        }
    }
}
