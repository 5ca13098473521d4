//! `slipway release …`

use slipway_model::Timestamp;
use slipway_proto::{
    common::v1::Image,
    release::v1::{
        CancelReleaseRequest, GetReleaseRequest, ListReleasesRequest, Plan, PlanReleaseRequest, Release,
        StartReleaseRequest, WatchReleaseRequest, planned_environment::Gate, release::Status, step,
    },
};
use slipway_server::convert;

use super::{present, request_id, table, word};
use crate::{
    Outcome,
    args::{Output, PlanArgs, ReleaseCommand, StartArgs},
    context::Context,
    failure::Failure,
    follow::{self, Followed},
    out,
    progress::{self, Moment, Progress},
    readable, retry, waterfall,
};

const RELEASE: &str = "slipway.release.v1.Release";
pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: ReleaseCommand,
) -> Result<Outcome, Failure> {
    match command {
        ReleaseCommand::Plan(args) => plan(context, output, args).await,
        ReleaseCommand::Start(args) => start(context, output, args).await,
        ReleaseCommand::List { service, limit } => list(context, output, service, limit).await,
        ReleaseCommand::Get { id } => {
            let release = get(context, id).await?;
            show(output, &release)?;
            Ok(Outcome::Happened)
        }
        ReleaseCommand::Watch { id } => {
            let release = follow(context, output, get(context, id).await?).await?;
            finish(output, &release)
        }
        ReleaseCommand::Cancel { id, reason, wait } => {
            let answer = context
                .releases()?
                .cancel_release(CancelReleaseRequest { id, reason })
                .await?;
            let mut release = present(answer.into_inner().release)?;
            if wait {
                release = follow(context, output, release).await?;
            }
            show(output, &release)?;
            let stopped = release.cancelling || matches!(release.status(), Status::Cancelled);
            Ok(if stopped {
                Outcome::Happened
            } else {
                Outcome::DidNot
            })
        }
    }
}

async fn plan(context: &Context, output: Output, args: PlanArgs) -> Result<Outcome, Failure> {
    let request = PlanReleaseRequest {
        service: args.service,
        commit: args.commit,
        branch: args.branch,
        git_tag: args.git_tag,
        environments: args.environments,
    };
    let answer = context.releases()?.plan_release(request).await?.into_inner();
    let plan = present(answer.plan)?;
    match output.format() {
        Some(format) => out::line(format.render("slipway.release.v1.Plan", &plan)?),
        None => out::print(planned(&plan)),
    }
    for warning in answer.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(Outcome::Happened)
}

fn planned(plan: &Plan) -> String {
    let mut rows = table(&["ENVIRONMENT", "POLICY", "WRITES", "DEPLOYS"]);
    for environment in &plan.environments {
        let branch = if environment.gitops_branch.is_empty() {
            "default branch"
        } else {
            &environment.gitops_branch
        };
        let target = environment.target.clone().unwrap_or_default();
        let and = |name: &str, word: &str| match word {
            "" => name.to_owned(),
            word => format!("{name} ({word})"),
        };
        let tier = word(environment.tier().as_str_name(), "TIER_");
        let gate = match environment.gate() {
            Gate::BeforeSync => "before the sync",
            Gate::BeforeCommit | Gate::Unspecified => "",
        };
        let writes = if environment.gitops_repository.is_empty() {
            "nothing in git".to_owned()
        } else {
            let with = match environment.written_with.as_str() {
                "" => String::new(),
                leader => format!(", with {leader}"),
            };
            format!(
                "{} ({branch}) {}{with}",
                environment.gitops_repository, environment.gitops_path
            )
        };
        rows.add_row([
            and(&environment.name, &tier),
            and(&environment.policy, gate),
            writes,
            format!(
                "{}/{}/{}/{}{}",
                target.cluster,
                target.namespace,
                target.kind,
                target.name,
                shared(&environment.shares_with)
            ),
        ]);
    }
    let images: Vec<&str> = plan
        .images
        .iter()
        .map(|image| image.repository.as_str())
        .collect();
    format!(
        "{} {} → {}\n{rows}\nplan {}\n",
        plan.service,
        readable::short(&plan.commit),
        images.join(", "),
        plan.hash
    )
}

/// The services that deploy to the same target or folder, if there are any.
fn shared(services: &[String]) -> String {
    if services.is_empty() {
        String::new()
    } else {
        format!(" (in turns with {})", services.join(", "))
    }
}

async fn start(context: &Context, output: Output, args: StartArgs) -> Result<Outcome, Failure> {
    let request = StartReleaseRequest {
        request_id: args.request_id.unwrap_or_else(request_id),
        service: args.plan.service,
        commit: args.plan.commit,
        branch: args.plan.branch,
        git_tag: args.plan.git_tag,
        environments: args.plan.environments,
        plan_hash: args.plan_hash,
        on_behalf_of: String::new(),
        labels: args.labels.into_iter().collect(),
        images: args
            .image
            .map(|(repository, digest)| Image {
                repository,
                digest,
                ..Image::default()
            })
            .into_iter()
            .collect(),
        rebuild: args.rebuild,
    };
    let release = present(
        context
            .releases()?
            .start_release(request)
            .await?
            .into_inner()
            .release,
    )?;
    if args.wait {
        if output.format().is_none() {
            eprintln!("release {}", release.id);
        }
        let release = follow(context, output, release).await?;
        return finish(output, &release);
    }
    match output.format() {
        Some(format) => out::line(format.render(RELEASE, &release)?),
        None => {
            out::line(&release.id);
            eprintln!("follow it with: slipway release watch {}", release.id);
        }
    }
    Ok(Outcome::Happened)
}

async fn list(
    context: &Context,
    output: Output,
    service: Option<String>,
    limit: i32,
) -> Result<Outcome, Failure> {
    let request = ListReleasesRequest {
        page_size: limit,
        service: service.unwrap_or_default(),
        ..ListReleasesRequest::default()
    };
    let answer = context.releases()?.list_releases(request).await?.into_inner();
    if let Some(format) = output.format() {
        out::line(format.render("slipway.release.v1.ListReleasesResponse", &answer)?);
        return Ok(Outcome::Happened);
    }
    let mut rows = table(&["RELEASE", "SERVICE", "COMMIT", "STATUS", "STEP", "AGE", "BY"]);
    let now = Timestamp::now().as_micros();
    for release in answer.releases {
        let plan = release.plan.clone().unwrap_or_default();
        let step = release
            .steps
            .last()
            .map(|step| retry::status(&step.name, step.retry.as_ref(), now))
            .unwrap_or_default();
        let age = now - readable::micros(release.create_time.as_ref()).unwrap_or(now);
        rows.add_row([
            release.id.clone(),
            plan.service,
            readable::short(&plan.commit).to_owned(),
            waterfall::status(release.status()).to_owned(),
            step,
            readable::seconds(age),
            convert::effective(release.requested_by.as_ref()).to_owned(),
        ]);
    }
    out::line(rows);
    Ok(Outcome::Happened)
}

async fn get(context: &Context, id: String) -> Result<Release, Failure> {
    present(
        context
            .releases()?
            .get_release(GetReleaseRequest { id })
            .await?
            .into_inner()
            .release,
    )
}

impl Followed for Release {
    const NOUN: (&'static str, &'static str) = ("release", "slipway release watch");

    fn id(&self) -> &str {
        &self.id
    }

    fn is_final(&self) -> bool {
        !matches!(self.status(), Status::Running | Status::Unspecified)
    }
}

/// Watches until the end, and shows each step.
async fn follow(context: &Context, output: Output, release: Release) -> Result<Release, Failure> {
    let mut progress = Progress::new(output);
    let watch = async |id| {
        let request = WatchReleaseRequest {
            id,
            etag: String::new(),
        };
        let answer = context.releases()?.watch_release(request).await?;
        Ok(follow::stream(answer, |next| next.release))
    };
    let release = follow::follow(release, watch, |one: &Release| {
        progress.show(&moment(one, Timestamp::now().as_micros()));
    })
    .await?;
    progress.finish();
    Ok(release)
}

/// What it does `now` (microseconds since 1970).
fn moment(release: &Release, now: i64) -> Moment {
    let steps = release.steps.iter().map(|step| {
        let began = readable::micros(step.queue_time.as_ref()).unwrap_or(now);
        let end = readable::micros(step.end_time.as_ref()).map(|at| progress::End {
            at,
            well: matches!(step.status(), step::Status::Succeeded | step::Status::Skipped),
            status: word(step.status().as_str_name(), "STATUS_"),
            words: match &step.reason {
                Some(reason) if step.status() != step::Status::Succeeded => {
                    format!("{}: {}", reason.code, reason.message)
                }
                _ => step.result.clone(),
            },
        });
        progress::Step {
            name: step.name.clone(),
            began,
            end,
        }
    });
    let retry = release.steps.last().and_then(|step| step.retry.as_ref());
    let waits = match (retry, &release.waiting_on) {
        (Some(retry), _) => retry::line(retry, now),
        (None, Some(waiting)) => waiting.message.clone(),
        (None, None) => String::new(),
    };
    Moment {
        steps: steps.collect(),
        waits,
    }
}

fn show(output: Output, release: &Release) -> Result<(), Failure> {
    match output.format() {
        Some(format) => out::line(format.render(RELEASE, release)?),
        None => out::print(waterfall::draw(release, Timestamp::now().as_micros())),
    }
    Ok(())
}

/// Shows a release that was waited for; anything but success is a failure.
fn finish(output: Output, release: &Release) -> Result<Outcome, Failure> {
    show(output, release)?;
    Ok(if release.status() == Status::Succeeded {
        Outcome::Happened
    } else {
        Outcome::DidNot
    })
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use slipway_proto::{
        common::v1::{Image, Reason, Retry, WaitingOn},
        deploy::v1::Target,
        release::v1::{
            Plan, PlannedEnvironment, Release, Step,
            planned_environment::{Gate, Tier},
            step::Status,
        },
    };

    /// Seconds since 1970.
    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_log_follows_a_release_step_by_step() {
        let step = |name: &str, status: Status, from: i64, to: Option<i64>| Step {
            name: name.to_owned(),
            status: status.into(),
            queue_time: at(from),
            end_time: to.and_then(at),
            ..Step::default()
        };
        let mut release = Release {
            steps: vec![
                Step {
                    result: "sha256:77c6".to_owned(),
                    ..step("build", Status::Succeeded, 0, Some(2))
                },
                step("staging/gate", Status::Running, 2, None),
            ],
            waiting_on: Some(WaitingOn {
                message: "0 of 1 approvals; 1 more by bob".to_owned(),
                ..WaitingOn::default()
            }),
            ..Release::default()
        };
        let mut log = crate::progress::Log::default();
        let mut said = |release: &Release, now: i64| {
            let now = now * 1_000_000;
            log.lines(&super::moment(release, now), now)
        };
        assert_eq!(
            said(&release, 3),
            [
                "00:00:00Z  build             begins",
                "00:00:02Z  build             succeeded after 2.0s: sha256:77c6",
                "00:00:02Z  staging/gate      begins",
            ]
        );
        let waits = "00:00:08Z  staging/gate      waits since 6.0s: 0 of 1 approvals; 1 more by bob";
        assert_eq!(said(&release, 8), [waits]);
        assert_eq!(said(&release, 67), [""; 0]);
        let waits = "00:01:08Z  staging/gate      waits since 1m06s: 0 of 1 approvals; 1 more by bob";
        assert_eq!(said(&release, 68), [waits], "at least every minute");
        // What is tried again is what it waits for.
        release.steps[1].retry = Some(Retry {
            error: Some(Reason {
                code: "UNAVAILABLE".to_owned(),
                message: "approval-svc: connection refused".to_owned(),
            }),
            attempt: 1,
            next_time: None,
        });
        let retries = "00:01:14Z  staging/gate      waits since 1m12s: retrying: approval-svc: connection refused (tried once)";
        assert_eq!(said(&release, 74), [retries]);
        release.steps[1] = Step {
            reason: Some(Reason {
                code: "REJECTED".to_owned(),
                message: "rejected by token/bob".to_owned(),
            }),
            ..step("staging/gate", Status::Failed, 2, Some(80))
        };
        let rejected = "00:01:20Z  staging/gate      failed after 1m18s: REJECTED: rejected by token/bob";
        assert_eq!(said(&release, 80), [rejected]);
    }

    #[test]
    fn a_plan_shows_what_each_environment_is_for() {
        let target = Target {
            cluster: "main".to_owned(),
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: "shop".to_owned(),
        };
        let plan = Plan {
            service: "shop".to_owned(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
            images: vec![Image {
                name: "shop".to_owned(),
                repository: "registry.example/shop".to_owned(),
                ..Image::default()
            }],
            environments: vec![
                PlannedEnvironment {
                    name: "dev".to_owned(),
                    policy: "none".to_owned(),
                    target: Some(target.clone()),
                    ..PlannedEnvironment::default()
                },
                PlannedEnvironment {
                    name: "prod".to_owned(),
                    tier: Tier::Production.into(),
                    requires: vec!["dev".to_owned()],
                    policy: "two".to_owned(),
                    gate: Gate::BeforeSync.into(),
                    target: Some(target),
                    gitops_repository: "platform".to_owned(),
                    gitops_path: "apps/shop".to_owned(),
                    shares_with: vec!["mail".to_owned(), "cart".to_owned()],
                    ..PlannedEnvironment::default()
                },
            ],
            hash: "sha256:00".to_owned(),
            ..Plan::default()
        };
        let text = super::planned(&plan);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "shop 1a2b3c4 → registry.example/shop",
                "ENVIRONMENT POLICY WRITES DEPLOYS",
                "dev none nothing in git main/shop/Deployment/shop",
                "prod (production) two (before the sync) platform (default branch) apps/shop main/shop/Deployment/shop (in turns with mail, cart)",
                "plan sha256:00",
            ]
        );
    }
}
