//! Carries out what a build's state calls for: fetch, build and push; then tag. Every effect may run twice.

use async_trait::async_trait;
use build_domain::build::{Build, Command, Effect, Request, codes};
use slipway_ledger::{EffectRun, Effects, ExecuteError, Ledger};
use slipway_model::{Actor, Fault, Reason};
use slipway_telemetry::Service;
use tracing::Instrument;

use crate::backends::{
    Backends,
    logs::{Log, Logs},
    registries::Registry,
    stop::Stop,
    workspace::Workspace,
};

mod image;
mod tags;

/// Carries out the effects of builds.
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

    fn registry(&self, request: &Request) -> Result<&dyn Registry, Stop> {
        let image = &request.recipe.image;
        self.backends
            .registries
            .of(image)
            .map(AsRef::as_ref)
            .ok_or_else(|| {
                Stop::failed(
                    codes::REGISTRY_REFUSED,
                    format!("no registry is configured for {image} any longer; add it to registries and build again"),
                )
            })
    }

    /// Ends an effect: the log is complete before the outcome is known.
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
                log.line("slipway: cancelled");
                None
            }
        };
        log.close().await;
        // After a lost lease or a shutdown, the image stays for the next run; an ended build does not need it.
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

    /// Reasons quote the output of programs.
    fn redacted(&self, reason: Reason) -> Reason {
        Reason {
            message: self.backends.redactor.redact(&reason.message, false),
            code: reason.code,
        }
    }

    /// Records progress. An effect goes on when its progress cannot be recorded: its outcome counts.
    async fn record(&self, run: &EffectRun<Build>, command: Command) {
        if let Err(ExecuteError::Ledger(error)) = run.tell(command, self.actor()).await {
            tracing::warn!(%error, build = %run.id, "progress not recorded");
        }
    }

    /// Opens the build's log. Without one, nothing is done: the executor tries again.
    async fn open_log(&self, run: &EffectRun<Build>) -> Result<Log, Reason> {
        self.logs.open(&run.id).await.map_err(|error| {
            Reason::new(
                codes::BUILDER_UNAVAILABLE,
                format!("cannot open the log: {error}"),
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

/// A call to a registry, given up when the effect is cancelled.
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

fn fail(run: &EffectRun<Build>, reason: Reason, log_tail: Vec<String>) -> Command {
    Command::Fail {
        key: run.key.clone(),
        reason,
        log_tail,
    }
}

/// Removes the images on this machine whose builds ended on another one or before a crash.
pub(crate) async fn forget_images_of_ended(ledger: &Ledger, workspace: &Workspace) {
    let images = match workspace.images() {
        Ok(images) => images,
        Err(error) => {
            tracing::warn!(%error, "built images not listed");
            return;
        }
    };
    for id in images {
        match ledger.get::<Build>(&id).await {
            Ok(Some(build)) if !build.state.status.is_final() => {}
            Ok(_) => workspace.forget_image(&id),
            Err(error) => {
                tracing::warn!(%error, build = %id, "state of a build not read; its image stays");
            }
        }
    }
}
