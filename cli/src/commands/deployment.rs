//! `slipway deployment …`

pub(crate) mod draw;

use std::time::Duration;

use slipway_model::Timestamp;
use slipway_proto::{
    common::v1::Image,
    deploy::v1::{
        AbortDeploymentRequest, CancelDeploymentRequest, DeployRequest, Deployment, GetDeploymentRequest,
        GetLiveStateRequest, ListDeploymentsRequest, PromoteDeploymentRequest, RollbackRequest,
        WatchDeploymentRequest,
        deployment::{Ask, Status},
    },
};
use slipway_server::convert;

use super::{present, request_id, table};
use crate::{
    Outcome,
    args::{DeployArgs, DeploymentCommand, Output, RollbackArgs},
    context::Context,
    failure::Failure,
    follow::{self, Followed},
    out,
    progress::{self, Moment, Progress, spinner},
    readable, retry,
};

const DEPLOYMENT: &str = "slipway.deploy.v1.Deployment";
/// How long a promotion or an abort is followed; an unreachable API server is asked again for longer.
const ANSWER: Duration = Duration::from_secs(30);

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: DeploymentCommand,
) -> Result<Outcome, Failure> {
    let mut client = context.deployments()?;
    let deployment = match command {
        DeploymentCommand::Start(args) => return start(context, output, *args).await,
        DeploymentCommand::Rollback(args) => return rollback(context, output, args).await,
        DeploymentCommand::List {
            service,
            environment,
            status,
            limit,
        } => {
            let request = ListDeploymentsRequest {
                page_size: limit,
                service: service.unwrap_or_default(),
                environment: environment.unwrap_or_default(),
                status: status.unwrap_or_default().into(),
                ..ListDeploymentsRequest::default()
            };
            return list(context, output, request).await;
        }
        DeploymentCommand::Live { service, environment } => {
            let request = GetLiveStateRequest { service, environment };
            let state = present(client.get_live_state(request).await?.into_inner().state)?;
            match output.format() {
                Some(format) => out::line(format.render("slipway.deploy.v1.LiveState", &state)?),
                None => out::print(draw::live(&state)),
            }
            return Ok(Outcome::Happened);
        }
        DeploymentCommand::Watch { id } => {
            let deployment = get(context, id).await?;
            let deployment = follow(context, output, deployment).await?;
            return finish(output, &deployment);
        }
        DeploymentCommand::Get { id } => get(context, id).await?,
        DeploymentCommand::Cancel { id, reason } => {
            let request = CancelDeploymentRequest { id, reason };
            let deployment = present(client.cancel_deployment(request).await?.into_inner().deployment)?;
            show(output, &deployment)?;
            let cancelled = deployment.status() == Status::Cancelled;
            if !cancelled {
                eprintln!(
                    "not cancelled: the deployment has ended with {}",
                    draw::status(deployment.status())
                );
            }
            return Ok(happened(cancelled));
        }
        DeploymentCommand::Promote { id, full } => {
            let request = PromoteDeploymentRequest { id, full };
            let deployment = present(client.promote_deployment(request).await?.into_inner().deployment)?;
            return answered(context, output, Ask::Promote, deployment).await;
        }
        DeploymentCommand::Abort { id, reason } => {
            let request = AbortDeploymentRequest { id, reason };
            let deployment = present(client.abort_deployment(request).await?.into_inner().deployment)?;
            return answered(context, output, Ask::Abort, deployment).await;
        }
    };
    show(output, &deployment)?;
    Ok(Outcome::Happened)
}

async fn start(context: &Context, output: Output, args: DeployArgs) -> Result<Outcome, Failure> {
    let (repository, digest) = args.image;
    let request = DeployRequest {
        request_id: args.request_id.unwrap_or_else(request_id),
        service: args.service,
        environment: args.environment,
        images: vec![Image {
            repository,
            digest,
            ..Image::default()
        }],
        commit: args.commit,
        ..DeployRequest::default()
    };
    let answer = context.deployments()?.deploy(request).await?.into_inner();
    begun(context, output, present(answer.deployment)?, args.wait).await
}

async fn rollback(context: &Context, output: Output, args: RollbackArgs) -> Result<Outcome, Failure> {
    let request = RollbackRequest {
        request_id: args.request_id.unwrap_or_else(request_id),
        deployment_id: args.id.unwrap_or_default(),
        service: args.service.unwrap_or_default(),
        environment: args.environment.unwrap_or_default(),
        reason: args.reason,
    };
    let answer = context.deployments()?.rollback(request).await?.into_inner();
    begun(context, output, present(answer.deployment)?, args.wait).await
}

/// Reports what was started, or follows it to its end.
async fn begun(
    context: &Context,
    output: Output,
    deployment: Deployment,
    wait: bool,
) -> Result<Outcome, Failure> {
    if wait {
        if output.format().is_none() {
            eprintln!("deployment {}", deployment.id);
        }
        let deployment = follow(context, output, deployment).await?;
        return finish(output, &deployment);
    }
    match output.format() {
        Some(format) => out::line(format.render(DEPLOYMENT, &deployment)?),
        None => {
            out::line(&deployment.id);
            eprintln!("follow it with: slipway deployment watch {}", deployment.id);
        }
    }
    Ok(Outcome::Happened)
}

async fn list(
    context: &Context,
    output: Output,
    request: ListDeploymentsRequest,
) -> Result<Outcome, Failure> {
    let answer = context
        .deployments()?
        .list_deployments(request)
        .await?
        .into_inner();
    if let Some(format) = output.format() {
        out::line(format.render("slipway.deploy.v1.ListDeploymentsResponse", &answer)?);
        return Ok(Outcome::Happened);
    }
    let mut rows = table(&[
        "DEPLOYMENT",
        "SERVICE",
        "ENVIRONMENT",
        "COMMIT",
        "STATUS",
        "STEP",
        "AGE",
        "BY",
    ]);
    let now = Timestamp::now().as_micros();
    for one in answer.deployments {
        let age = now - readable::micros(one.create_time.as_ref()).unwrap_or(now);
        let status = retry::status(draw::status(one.status()), one.retry.as_ref(), now);
        let step = if one.is_final() {
            String::new()
        } else {
            draw::step(&one)
        };
        rows.add_row([
            one.id,
            one.service,
            one.environment,
            readable::short(&one.commit).to_owned(),
            status,
            step,
            readable::seconds(age),
            convert::effective(one.requested_by.as_ref()).to_owned(),
        ]);
    }
    out::line(rows);
    Ok(Outcome::Happened)
}

async fn get(context: &Context, id: String) -> Result<Deployment, Failure> {
    let answer = context
        .deployments()?
        .get_deployment(GetDeploymentRequest { id })
        .await?
        .into_inner();
    present(answer.deployment)
}

impl Followed for Deployment {
    const NOUN: (&'static str, &'static str) = ("deployment", "slipway deployment watch");

    fn id(&self) -> &str {
        &self.id
    }

    fn is_final(&self) -> bool {
        !matches!(
            self.status(),
            Status::Unspecified | Status::Applying | Status::Verifying
        )
    }
}

/// Watches until the end, and shows each step.
async fn follow(context: &Context, output: Output, deployment: Deployment) -> Result<Deployment, Failure> {
    let mut progress = Progress::new(output);
    let mut moment = Moment::default();
    let watch = async |id| {
        let request = WatchDeploymentRequest {
            id,
            etag: String::new(),
        };
        let answer = context.deployments()?.watch_deployment(request).await?;
        Ok(follow::stream(answer, |next| next.deployment))
    };
    let deployment = follow::follow(deployment, watch, |one: &Deployment| {
        advance(&mut moment, one, Timestamp::now().as_micros());
        progress.show(&moment);
    })
    .await?;
    progress.finish();
    Ok(deployment)
}

/// Adds what it does `now` (microseconds since 1970). A deployment shows only the step that it is at, so a step has ended
/// when another one is shown, or when the deployment has ended.
fn advance(moment: &mut Moment, one: &Deployment, now: i64) {
    moment.waits = now_at(one);
    let end = |well, status: &str, words: String| progress::End {
        at: readable::micros(one.end_time.as_ref()).unwrap_or(now),
        well,
        status: status.to_owned(),
        words,
    };
    let name = draw::step(one);
    let mut open = moment.steps.last_mut().filter(|step| step.end.is_none());
    if one.is_final() {
        let reason = one.reason.as_ref();
        let words = reason.map(|reason| format!("{}: {}", reason.code, reason.message));
        let status = draw::status(one.status()).to_lowercase();
        if let Some(step) = &mut open {
            let well = one.status() == Status::Succeeded;
            step.end = Some(end(well, &status, words.unwrap_or_default()));
        }
        return;
    }
    if let Some(step) = open.as_ref()
        && step.name == name
    {
        return;
    }
    if let Some(step) = open {
        step.end = Some(end(true, "ended", String::new()));
    }
    if !name.is_empty() {
        moment.steps.push(progress::Step {
            name,
            began: now,
            end: None,
        });
    }
}

/// A deployment of which something was requested: followed until that is done or declined.
struct WithAsk(Deployment);

impl Followed for WithAsk {
    const NOUN: (&'static str, &'static str) = Deployment::NOUN;

    fn id(&self) -> &str {
        &self.0.id
    }

    fn is_final(&self) -> bool {
        self.0.asked() == Ask::Unspecified
    }
}

/// Waits until the rollout was told what was requested, and reports whether it accepted.
async fn answered(
    context: &Context,
    output: Output,
    asked: Ask,
    deployment: Deployment,
) -> Result<Outcome, Failure> {
    let verb = draw::ask(asked);
    let (id, before) = (deployment.id.clone(), deployment.asked());
    let bar = spinner(output);
    let watch = async |id| {
        let request = WatchDeploymentRequest {
            id,
            etag: String::new(),
        };
        let answer = context.deployments()?.watch_deployment(request).await?;
        Ok(follow::stream(answer, |next| next.deployment.map(WithAsk)))
    };
    let followed = follow::follow(WithAsk(deployment), watch, |one: &WithAsk| {
        bar.set_message(format!("{}: {}", draw::ask(one.0.asked()), now_at(&one.0)));
    });
    let followed = tokio::time::timeout(ANSWER, followed).await;
    bar.finish_and_clear();
    let Ok(followed) = followed else {
        eprintln!(
            "{verb} is still pending after {} s, and is carried out when the cluster can be reached; see: slipway deployment get {id}",
            ANSWER.as_secs()
        );
        return Ok(Outcome::DidNot);
    };
    let WithAsk(deployment) = followed?;
    show(output, &deployment)?;
    if before != Ask::Unspecified && before != asked {
        let before = draw::ask(before);
        eprintln!("{verb} is not carried out: {before} was requested before it and stays in force");
        return Ok(Outcome::DidNot);
    }
    if !deployment.declined.is_empty() {
        eprintln!("{verb} is not carried out: {}", deployment.declined);
    }
    Ok(happened(deployment.declined.is_empty()))
}

/// What it is waiting for, or retrying.
fn now_at(deployment: &Deployment) -> String {
    match &deployment.retry {
        Some(retry) => retry::line(retry, Timestamp::now().as_micros()),
        None => deployment.progress.clone(),
    }
}

fn show(output: Output, deployment: &Deployment) -> Result<(), Failure> {
    match output.format() {
        Some(format) => out::line(format.render(DEPLOYMENT, deployment)?),
        None => out::print(draw::deployment(deployment, Timestamp::now().as_micros())),
    }
    Ok(())
}

/// Shows a deployment that was waited for; anything but success is a failure.
fn finish(output: Output, deployment: &Deployment) -> Result<Outcome, Failure> {
    show(output, deployment)?;
    Ok(happened(deployment.status() == Status::Succeeded))
}

const fn happened(did: bool) -> Outcome {
    if did { Outcome::Happened } else { Outcome::DidNot }
}

#[cfg(test)]
mod tests {
    use slipway_proto::{common::v1::Reason, deploy::v1::deployment::Step};

    use super::*;

    #[test]
    fn a_log_follows_a_deployment_step_by_step() {
        let mut log = progress::Log::default();
        let mut moment = Moment::default();
        let mut said = |one: &Deployment, now: i64| {
            let now = now * 1_000_000;
            advance(&mut moment, one, now);
            log.lines(&moment, now)
        };
        let mut one = Deployment {
            status: Status::Verifying.into(),
            step: Step::Apply.into(),
            ..Deployment::default()
        };
        assert_eq!(said(&one, 0), ["00:00:00Z  apply             begins"]);
        assert_eq!(said(&one, 1), [""; 0]);
        one.step = Step::Rollout.into();
        one.progress = "1 of 2 pods".to_owned();
        assert_eq!(
            said(&one, 2),
            [
                "00:00:02Z  apply             ended after 2.0s",
                "00:00:02Z  rollout           begins",
            ]
        );
        assert_eq!(
            said(&one, 7),
            ["00:00:07Z  rollout           waits since 5.0s: 1 of 2 pods"]
        );
        one.status = Status::Failed.into();
        one.reason = Some(Reason {
            code: "CRASH_LOOP".to_owned(),
            message: "pod shop-1".to_owned(),
        });
        assert_eq!(
            said(&one, 9),
            ["00:00:09Z  rollout           failed after 7.0s: CRASH_LOOP: pod shop-1"]
        );
        assert_eq!(said(&one, 100), [""; 0]);
    }
}
