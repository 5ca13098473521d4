//! `kill -9` at every moment that matters: after each append of a full release, and before and after each call that
//! changes a remote system. After the restart the release ends as if nothing had happened.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use slipway_proto::release::v1::{Release, StartReleaseRequest, release::Status};
use slipway_server::ErrorView;
use slipway_tests::{
    Clients, Version,
    clients::told,
    embedded::{Embedded, Template},
    process::{nothing_runs_in, was_killed},
    scene::{Service, trailer},
    within,
};
use tonic::Code;

/// Concurrent runs: each waits more than it computes.
const AT_ONCE: usize = 3;
/// Every fault that kills counts what this process did since its start.
const AFTER_APPEND: &str = "SLIPWAY_FAULT_KILL_AFTER_APPEND";
const AT_POINT: &str = "SLIPWAY_FAULT_KILL_AT";
/// Runs without a death before the end of the release is considered reached: the number of appends differs by a few
/// between runs, since what a step waits for is only recorded when it is observed.
const SURVIVALS: u64 = 2;

async fn template() -> Template {
    let service = Service::new("shop", &[("dev", "none"), ("prod", "one")]);
    Template::new(service, |application| {
        application.commit(Version::Good("A"));
    })
    .await
}

/// Starts the release and approves it, whatever happens to the service meanwhile.
async fn release(alice: Clients, bob: Clients, commit: String) -> Release {
    let request = StartReleaseRequest {
        request_id: "the-one".to_owned(),
        service: "shop".to_owned(),
        commit,
        branch: "main".to_owned(),
        ..StartReleaseRequest::default()
    };
    let started = within("the start of the release", async {
        loop {
            match alice.try_start(request.clone()).await {
                Ok(release) => return release,
                Err(error) => pause(&error).await,
            }
        }
    })
    .await;
    let approve = async {
        let approval = bob.approval_for(&started.id, "prod").await;
        while let Err(error) = bob.approve(&approval).await {
            // The answer to the first try may have been lost with the process.
            if ["ALREADY_DECIDED", "FINAL"].contains(&ErrorView::of(&error).reason.as_str()) {
                break;
            }
            pause(&error).await;
        }
    };
    let (release, ()) = tokio::join!(alice.finished(&started.id), approve);
    release
}

async fn pause(error: &tonic::Status) {
    let passing = [
        Code::Unavailable,
        Code::Unknown,
        Code::Cancelled,
        Code::Internal,
        Code::DeadlineExceeded,
    ];
    assert!(passing.contains(&error.code()), "{error}");
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The result of one run of the matrix.
struct Outcome {
    died: bool,
    before: Duration,
    after: Duration,
}

/// One release with one fault; checks everything that must hold in the end.
async fn run(template: &Template, fault: (&str, String)) -> Outcome {
    let name = format!("{}={}", fault.0, fault.1);
    let mut dev = template.copy();
    let began = Instant::now();
    dev.start(Some(fault)).await;
    let mut release = Box::pin(release(dev.client("alice"), dev.client("bob"), dev.head("main")));
    let (mut died, mut before) = (false, Duration::ZERO);
    let ended = loop {
        let ended = tokio::select! {
            // A death is checked first: the release may end with it.
            biased;
            status = dev.process().end() => {
                let words = dev.process().last_output();
                assert!(was_killed(status) && !died, "{name}: slipway dev ended with {status}:\n{words}");
                None
            }
            ended = &mut release => Some(ended),
        };
        match ended {
            Some(ended) => break ended,
            None => {
                (died, before) = (true, began.elapsed());
                dev.start(None).await;
            }
        }
    };
    let after = began.elapsed() - before;
    check(&mut dev, &ended, &name);
    // A fault that is still armed may strike now; it is too late to matter.
    dev.process().terminate().await;
    nothing_runs_in(dev.folder(), Duration::from_secs(20)).await;
    Outcome { died, before, after }
}

fn check(dev: &mut Embedded, release: &Release, name: &str) {
    let all = format!("{name}: {}", told(Some(release)));
    assert_eq!(release.status(), Status::Succeeded, "{all}");
    let digest = release.images[0].digest.clone();
    let environments = dev.service.environments;

    // One commit for each environment, in order, each by a different change, all from this release.
    let commits = dev.gitops.repository.log("main").unwrap();
    assert_eq!(commits.len(), 1 + environments.len(), "{all}: {commits:?}");
    let commits = dev.gitops.commits_of("shop");
    let of = |key: &str| {
        commits
            .iter()
            .map(|commit| trailer(commit, key).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("Environment"), ["dev", "prod"], "{all}");
    assert_eq!(
        of("Slipway-Change").into_iter().collect::<BTreeSet<_>>().len(),
        commits.len(),
        "{all}"
    );
    assert!(of("Slipway-Release").iter().all(|id| *id == release.id), "{all}");

    // One set of tags, all of which point to the same image.
    let tags = dev.tags();
    let commit = &release.plan.as_ref().unwrap().commit;
    let names: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
    let times = names
        .iter()
        .filter(|tag| tag.len() == 14 && tag.bytes().all(|b| b.is_ascii_digit()))
        .count();
    assert_eq!((names.len(), times), (4, 1), "{all}: {names:?}");
    for wanted in [commit.as_str(), &commit[..7], "main"] {
        assert!(names.contains(&wanted), "{all}: {names:?}");
    }
    assert!(tags.iter().all(|(_, named)| *named == digest), "{all}: {tags:?}");

    // That image is wanted and running everywhere.
    let cluster = dev.cluster();
    for (environment, _) in environments {
        let namespace = dev.service.namespace(environment);
        assert_eq!(
            dev.gitops.wanted_digest("shop", environment).as_ref(),
            Some(&digest),
            "{all}"
        );
        assert!(cluster.image(&namespace, "shop").ends_with(&digest), "{all}");
        let running: BTreeSet<String> = cluster.running_digests(&namespace).into_iter().collect();
        assert_eq!(running, BTreeSet::from([digest.clone()]), "{all}: {namespace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_every_append() {
    let template = Arc::new(template().await);
    let began = Instant::now();
    let (next, survived) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let workers = (0..AT_ONCE).map(|_| {
        let (template, next, survived) = (template.clone(), next.clone(), survived.clone());
        tokio::spawn(async move {
            let mut deaths = Vec::new();
            while survived.load(Ordering::SeqCst) < SURVIVALS {
                let n = next.fetch_add(1, Ordering::SeqCst);
                let outcome = Box::pin(run(&template, (AFTER_APPEND, n.to_string()))).await;
                let (before, after) = (outcome.before.as_secs_f64(), outcome.after.as_secs_f64());
                println!(
                    "append {n}: died {}, {before:.1} s before and {after:.1} s after",
                    outcome.died
                );
                if outcome.died {
                    deaths.push(n);
                } else {
                    survived.fetch_add(1, Ordering::SeqCst);
                }
            }
            deaths
        })
    });
    let mut deaths = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        deaths.extend(worker.await.unwrap());
    }
    deaths.sort_unstable();
    println!(
        "killed after {} appends in {:.0} s",
        deaths.len(),
        began.elapsed().as_secs_f64()
    );
    // A release to two environments cannot take fewer facts: the steps alone are more.
    assert!(deaths.len() > 20, "{deaths:?}");
    assert_eq!(deaths[..20], (1..=20).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_every_call_to_a_remote_system() {
    let template = Arc::new(template().await);
    let mut points = Vec::new();
    // A push and a set of tags; a commit for each environment; namespace, service and deployment in each.
    for (point, times) in [
        ("build.push", 1),
        ("build.tag", 4),
        ("gitops.push", 2),
        ("deploy.apply", 6),
    ] {
        for side in ["before", "after"] {
            points.extend((1..=times).map(|time| format!("{point}.{side}:{time}")));
        }
    }
    let points = Arc::new(std::sync::Mutex::new(points));
    let workers = (0..AT_ONCE).map(|_| {
        let (template, points) = (template.clone(), points.clone());
        tokio::spawn(async move {
            loop {
                let Some(point) = points.lock().unwrap().pop() else {
                    return;
                };
                let outcome = Box::pin(run(&template, (AT_POINT, point.clone()))).await;
                let (before, after) = (outcome.before.as_secs_f64(), outcome.after.as_secs_f64());
                println!("{point}: {before:.1} s before and {after:.1} s after");
                assert!(outcome.died, "{point} was never passed");
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

/// The process dies while an older release writes to the cluster; a newer one exists when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_release_never_lands_on_a_newer_one() {
    let service = Service::new("shop", &[("dev", "none")]);
    let template = Template::new(service, |application| {
        application.commit(Version::Good("old"));
        application.commit(Version::Good("new"));
    })
    .await;
    for point in ["deploy.apply.before:3", "deploy.apply.after:3"] {
        let mut dev = template.copy();
        dev.start(Some((AT_POINT, point.to_owned()))).await;
        let alice = dev.client("alice");
        let start = async |commit: String| {
            let request = StartReleaseRequest {
                request_id: commit.clone(),
                service: "shop".to_owned(),
                commit,
                ..StartReleaseRequest::default()
            };
            loop {
                match alice.try_start(request.clone()).await {
                    Ok(release) => return release,
                    Err(error) => pause(&error).await,
                }
            }
        };
        let old = within("the start of the old release", start(dev.head("main~1"))).await;
        let status = within("the death", dev.process().end()).await;
        assert!(was_killed(status), "{status}");
        dev.start(None).await;
        let new = within("the start of the new release", start(dev.head("main"))).await;
        let (old, new) = tokio::join!(alice.finished(&old.id), alice.finished(&new.id));
        assert_eq!(new.status(), Status::Succeeded, "{}", told(Some(&new)));
        // It had changed git, so it keeps its place and is not superseded.
        assert_eq!(old.status(), Status::Succeeded, "{}", told(Some(&old)));
        let digest = new.images[0].digest.clone();
        assert_ne!(digest, old.images[0].digest);
        let cluster = dev.cluster();
        assert_eq!(cluster.get("shop-dev", "shop", "version").unwrap(), "new");
        assert_eq!(cluster.running_digests("shop-dev"), std::slice::from_ref(&digest));
        assert_eq!(dev.gitops.wanted_digest("shop", "dev"), Some(digest));
        let commits = dev.gitops.commits_of("shop");
        let releases: Vec<&str> = commits
            .iter()
            .map(|commit| trailer(commit, "Slipway-Release").unwrap())
            .collect();
        assert_eq!(releases, [&old.id, &new.id]);
        dev.process().terminate().await;
        nothing_runs_in(dev.folder(), Duration::from_secs(20)).await;
    }
}
