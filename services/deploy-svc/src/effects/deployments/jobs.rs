//! Runs the Jobs before and after a rollout, one effect each, and stops the one that a deployment left behind.

use std::time::Duration;

use deploy_domain::{
    catalog::Job,
    deployment::{DeploymentCommand, DeploymentRequest},
    result::JobResult,
};
use slipway_kubernetes::{
    Kubernetes,
    jobs::{self, Order},
};
use slipway_model::{Fault, Name, Reason, Timestamp};
use slipway_verdict::{Verdict, created, evidence::PodEvidence, job};

use super::{Run, home, of_step, progress::Progress};

/// If a watch shows nothing, there may be nothing to show, or it may be dead: after this long the API server is asked.
const QUIET: Duration = Duration::from_secs(30);
/// How long the end waits for the pods of a deleted Job: somewhat more than their usual grace period.
const STOP: Duration = Duration::from_secs(45);
/// Between checks of terminating pods, and between tries to delete.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the Job of this step whose turn it is to its end.
pub(super) async fn run(
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Result<DeploymentCommand, Fault<Reason>> {
    let key = run.key.clone();
    let Some(job) = run.snapshot.state.job() else {
        let reason = Reason::new("INTERNAL", "there is no Job to run; this is a defect");
        return Err(Fault::Permanent(reason));
    };
    let result = follow(cluster, run, request, job)
        .await
        .map_err(|fault| of_step(cluster, "JOB_REFUSED", fault))?;
    Ok(DeploymentCommand::JobEnded { key, result })
}

async fn follow(
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
    job: &Job,
) -> Result<JobResult, Fault<Reason>> {
    let namespace = &namespace(cluster, job, request).await;
    let order = Order {
        deployment: &run.id,
        target: &request.target,
        epoch: request.epoch,
        name: &job.name,
        namespace,
        pod: &job.pod,
        image: &request.image_ref(),
        retries: job.retries,
        timeout: job.timeout,
    };
    let made = jobs::create(cluster, &order).await?;
    let name = jobs::name(&run.id, &job.name);
    let end = created(&made.metadata).unwrap_or_else(Timestamp::now) + job.timeout;
    let mut subscription = cluster.follow_job(namespace.as_str(), &name);
    let mut progress = Progress::new(run);
    // It existed before the watch began, so if a watch does not show it, the watch lags, or the Job is gone.
    let verdict = loop {
        let view = subscription.view();
        let verdict = match view.job.as_ref().filter(|_| view.synced) {
            Some(live) => job::judge(live),
            None if view.synced => match jobs::read(cluster, namespace, &name).await {
                Ok(None) => job::deleted(),
                Ok(Some(live)) => job::judge(&live),
                Err(fault) => waiting(&fault),
            },
            None => job::judge(&made),
        };
        let Verdict::Progressing { message, .. } = verdict else {
            break verdict;
        };
        match &view.fault {
            Some(fault) => {
                let message = format!("cluster {} cannot be watched: {}", cluster.name(), fault.words);
                progress.away(message).await;
            }
            None => progress.say(format!("job {}: {message}", job.name)).await,
        }
        tokio::select! {
            () = subscription.changed() => {}
            () = tokio::time::sleep(end.since(Timestamp::now())) => {
                // The watch may be behind: the API server is asked once more before the Job is stopped.
                break match jobs::read(cluster, namespace, &name).await {
                    Ok(Some(live)) => job::judge(&live),
                    Ok(None) => job::deleted(),
                    Err(_) => verdict_of_time(),
                };
            }
            () = tokio::time::sleep(QUIET) => {
                if let Ok(Some(live)) = jobs::read(cluster, namespace, &name).await
                    && !matches!(job::judge(&live), Verdict::Progressing { .. })
                {
                    break job::judge(&live);
                }
            }
            () = progress.due() => progress.flush().await,
        }
    };
    // Before anything is deleted: logs disappear with their pods.
    let last = jobs::last_pod(cluster, namespace, &name).await;
    let failure = match verdict {
        Verdict::Complete => None,
        Verdict::Failed(failure) => Some(failure.message),
        Verdict::Progressing { message, .. } => {
            jobs::delete(cluster, namespace, &name).await?;
            let seconds = job.timeout.as_secs();
            Some(format!(
                "it did not end within {seconds} s and was stopped ({message})"
            ))
        }
    };
    let message = match (&failure, last.words.is_empty()) {
        (None, _) => String::new(),
        (Some(message), true) => message.clone(),
        (Some(message), false) => format!("{message}; {}", last.words),
    };
    Ok(JobResult {
        name: job.name.clone(),
        job: name,
        succeeded: failure.is_none(),
        message,
        log_tail: last.log_tail,
    })
}

fn waiting(fault: &Fault<Reason>) -> Verdict {
    Verdict::Progressing {
        message: fault.to_string(),
        look_again: None,
    }
}

fn verdict_of_time() -> Verdict {
    Verdict::Progressing {
        message: "the API server could not be asked for its state".to_owned(),
        look_again: None,
    }
}

/// Deletes the Job that is not waited for any more, and waits a while for its pods to terminate. A cluster that cannot
/// be asked does not delay the end: the Job's own deadline stops it then.
pub(super) async fn stop(cluster: &Kubernetes, run: &Run, request: &DeploymentRequest, stray: &Name) {
    let mut all = request.jobs.before.iter().chain(&request.jobs.after);
    let Some(job) = all.find(|job| job.name == *stray) else {
        return;
    };
    let namespace = &namespace(cluster, job, request).await;
    let name = jobs::name(&run.id, &job.name);
    let stopped = async {
        loop {
            let gone = match jobs::delete(cluster, namespace, &name).await {
                Ok(()) => jobs::running(cluster, namespace, &name).await,
                Err(fault) => Err(fault),
            };
            match gone {
                Ok(0) => return,
                Ok(_) => {}
                Err(Fault::Permanent(error)) => {
                    tracing::error!(deployment = %run.id, job = %name, %error, "the Job may run on until its own deadline");
                    return;
                }
                Err(Fault::Transient { error, .. }) => {
                    tracing::debug!(job = %name, code = error.code, %error, "not stopped yet");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(STOP, stopped).await.is_err() {
        tracing::error!(deployment = %run.id, job = %name, "the Job's pods did not terminate in time");
    }
}

/// What a person needs to see about a failed Job.
pub(super) async fn evidence(
    cluster: &Kubernetes,
    request: &DeploymentRequest,
    failed: &JobResult,
    since: Timestamp,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let mut all = request.jobs.before.iter().chain(&request.jobs.after);
    let Some(job) = all.find(|job| job.name == failed.name) else {
        return Ok(Vec::new());
    };
    let namespace = namespace(cluster, job, request).await;
    slipway_kubernetes::evidence::collect_job(cluster, namespace.as_str(), &failed.job, since).await
}

async fn namespace(cluster: &Kubernetes, job: &Job, request: &DeploymentRequest) -> Name {
    match &job.namespace {
        Some(namespace) => namespace.clone(),
        None => home(cluster, request).await,
    }
}
