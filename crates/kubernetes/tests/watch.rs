//! The shared watches: every kind, scopes, and faults, which may cost time but never correctness.
#![allow(clippy::unwrap_used)]

mod world;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use pretty_assertions::assert_eq;
use serde_json::json;
use slipway_kubernetes::{ClusterConfigs, Clusters, Kubernetes, restart::restart, watch::Scope};
use slipway_verdict::{Target, Workload, WorkloadKind};
use world::{A, World, has_label, id, label, refusal, run, seen, silence, spec, target, write};

async fn deployment(world: &World, namespace: &str, name: &str) -> Target {
    let target = target(WorkloadKind::Deployment, namespace, name);
    world.create(&target, spec(target.kind, 0, A)).await;
    target
}

#[tokio::test]
async fn all_followers_of_a_cluster_share_one_watch_of_each_kind() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        assert_eq!(cluster.watches(), 0, "nothing is watched until someone follows");
        let (one, other) = (world.namespace().await, world.namespace().await);
        let mut subscriptions = Vec::new();
        for namespace in [&one, &other] {
            for kind in [
                WorkloadKind::Deployment,
                WorkloadKind::StatefulSet,
                WorkloadKind::DaemonSet,
            ] {
                let target = target(kind, namespace, "shop");
                world.create(&target, spec(kind, 2, A)).await;
                subscriptions.push((kind, cluster.follow(&target)));
            }
        }
        for (kind, subscription) in &mut subscriptions {
            let wanted = if *kind == WorkloadKind::DaemonSet { 0 } else { 2 };
            let view = seen(subscription, |view| {
                view.synced && view.observed.workload.is_some() && view.observed.pods.len() >= wanted
            })
            .await;
            assert_eq!(view.observed.workload.as_ref().map(Workload::kind), Some(*kind));
            let sets = usize::from(*kind == WorkloadKind::Deployment);
            assert_eq!(view.observed.replica_sets.len(), sets, "{kind}");
            let template = view.observed.workload.as_ref().unwrap().template().unwrap();
            assert!(
                template.spec.as_ref().unwrap().containers[0].env.is_none(),
                "it is stored slim"
            );
        }
        // Deployments, StatefulSets, DaemonSets, ReplicaSets, Pods.
        assert_eq!(cluster.watches(), 5);
    })
    .await;
}

#[tokio::test]
async fn the_replica_set_of_the_present_template_is_found_among_others() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| view.observed.replica_sets.len() == 1).await;
        // Only something that is not stored differs.
        let containers =
            json!([{"name": "shop", "image": world::image(A), "env": [{"name": "LEVEL", "value": "debug"}]}]);
        world
            .merge(
                &target,
                json!({"spec": {"template": {"spec": {"containers": containers}}}}),
            )
            .await;
        let view = seen(&mut subscription, |view| view.observed.replica_sets.len() == 2).await;
        let Some(Workload::Deployment(live)) = &view.observed.workload else {
            panic!("a Deployment")
        };
        let current = slipway_verdict::deployment::current_pods(live, &view.observed)
            .replica_set
            .unwrap();
        let newest = view.observed.replica_sets.iter().max_by_key(|set| {
            let revision = set
                .metadata
                .annotations
                .as_ref()?
                .get("deployment.kubernetes.io/revision")?;
            revision.parse::<u64>().ok()
        });
        assert_eq!(current.metadata.name, newest.unwrap().metadata.name);
    })
    .await;
}

#[tokio::test]
async fn namespaces_are_watched_one_by_one_where_that_is_asked_for() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Namespace);
        let (one, other) = (world.namespace().await, world.namespace().await);
        let mut followed = Vec::new();
        for namespace in [&one, &other] {
            for name in ["shop", "till"] {
                let target = deployment(world, namespace, name).await;
                followed.push((target.clone(), cluster.follow(&target)));
            }
        }
        for (target, subscription) in &mut followed {
            let view = seen(subscription, |view| {
                view.synced && view.observed.workload.is_some()
            })
            .await;
            let live = view.observed.workload.unwrap();
            assert_eq!(
                live.metadata().namespace.as_deref(),
                Some(target.namespace.as_str())
            );
        }
        assert_eq!(cluster.watches(), 2 * 3);
    })
    .await;
}

#[tokio::test]
async fn custom_resources_are_followed_and_a_canary_with_its_primary() {
    run(false, async |world| {
        for file in [
            "argo-rollouts-rollout.yaml",
            "argocd-application.yaml",
            "flagger.yaml",
        ] {
            world.define(file).await;
        }
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let rollout = target(WorkloadKind::Rollout, &namespace, "shop");
        let canary = target(WorkloadKind::Canary, &namespace, "shop");
        let application = target(WorkloadKind::Application, &namespace, "shop");
        let mut subscriptions = [&rollout, &canary, &application].map(|target| cluster.follow(target));
        let source = json!({"repoURL": "https://git.example/shop", "path": "."});
        let destination = json!({"server": "https://kubernetes.default.svc", "namespace": namespace});
        let analysis = json!({"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 10});
        let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"});
        for (target, spec) in [
            (&rollout, spec(WorkloadKind::Deployment, 0, A)),
            (
                &canary,
                json!({"targetRef": reference, "service": {"port": 80}, "analysis": analysis}),
            ),
            (
                &application,
                json!({"project": "default", "source": source, "destination": destination}),
            ),
        ] {
            // The API server serves a kind a moment after its definition.
            let object = json!({
                "apiVersion": target.kind.api_version(), "kind": target.kind.as_str(),
                "metadata": {"name": target.name}, "spec": spec,
            });
            let object = serde_json::from_value(object).unwrap();
            while let Err(error) = world.api(target).create(&PostParams::default(), &object).await {
                assert!(
                    matches!(&error, kube::Error::Api(status) if status.code == 404),
                    "{error}"
                );
            }
        }
        for subscription in &mut subscriptions {
            seen(subscription, |view| {
                view.synced && view.observed.workload.is_some()
            })
            .await;
        }
        // The one that people change first: what follows a change of it is Flagger's own.
        deployment(world, &namespace, "shop").await;
        deployment(world, &namespace, "shop-primary").await;
        let view = seen(&mut subscriptions[1], |view| view.observed.primary.is_some()).await;
        let [primary, tried] = [view.observed.primary, view.observed.tried].map(Option::unwrap);
        assert_eq!(primary.metadata.name.as_deref(), Some("shop-primary"));
        assert_eq!(tried.metadata.name.as_deref(), Some("shop"));
    })
    .await;
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let mut subscription = cluster.follow_job(&namespace, "migrate");
        let container = json!({"name": "migrate", "image": world::image(A)});
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "migrate"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }))
        .unwrap();
        let api: Api<Job> = Api::namespaced(world.client.clone(), &namespace);
        api.create(&PostParams::default(), &job).await.unwrap();
        while subscription.view().job.is_none() {
            subscription.changed().await;
        }
        assert!(subscription.view().synced);
        assert_eq!(cluster.watches(), 1);
        api.delete("migrate", &DeleteParams::background()).await.unwrap();
        while subscription.view().job.is_some() {
            subscription.changed().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_deleted_is_gone_from_the_view() {
    run(false, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| view.observed.workload.is_some()).await;
        world
            .api(&target)
            .delete("shop", &DeleteParams::background())
            .await
            .unwrap();
        seen(&mut subscription, |view| {
            view.synced && view.observed.workload.is_none()
        })
        .await;
        assert!(cluster.read(&target).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn dropped_connections_and_expired_versions_lose_nothing() {
    run(true, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let doomed = deployment(world, &namespace, "doomed").await;
        let mut subscriptions = [cluster.follow(&target), cluster.follow(&doomed)];
        for subscription in &mut subscriptions {
            seen(subscription, |view| {
                view.synced && view.observed.workload.is_some()
            })
            .await;
        }
        let faults = world.faults();
        for round in 0..3 {
            for (name, fault) in [
                (
                    "dropped",
                    local_cluster::Faults::drop_watches as fn(&local_cluster::Faults),
                ),
                ("expired", local_cluster::Faults::expire_watches),
            ] {
                let note = format!("{name}-{round}");
                fault(&faults);
                world.merge(&target, label(&note)).await;
                seen(&mut subscriptions[0], |view| has_label(view, &note)).await;
            }
        }
        // Deleted while nothing listens: only the new list shows it.
        faults.unavailable(Duration::from_millis(1));
        faults.expire_watches();
        world
            .api(&doomed)
            .delete("doomed", &DeleteParams::background())
            .await
            .unwrap();
        seen(&mut subscriptions[1], |view| view.observed.workload.is_none()).await;
        assert_eq!(cluster.watches(), 3);
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_restarts_costs_time_only() {
    run(true, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| {
            view.synced && view.observed.workload.is_some()
        })
        .await;
        world.restart().await;
        world.merge(&target, label("after")).await;
        seen(&mut subscription, |view| has_label(view, "after")).await;
        seen(&mut subscription, |view| view.fault.is_none()).await;
    })
    .await;
}

#[tokio::test]
async fn a_fault_is_told_and_heals_by_itself() {
    run(true, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| {
            view.synced && view.observed.workload.is_some()
        })
        .await;
        let faults = world.faults();
        faults.unavailable(Duration::from_secs(600));
        faults.drop_watches();
        let view = seen(&mut subscription, |view| view.fault.is_some()).await;
        let words = view.fault.unwrap().words;
        assert!(words.contains("503"), "{words}");
        assert!(view.observed.workload.is_some(), "what was known stays");
        faults.unavailable(Duration::ZERO);
        // Nothing changes in the cluster: that the watch runs again is found out without that.
        seen(&mut subscription, |view| view.fault.is_none()).await;
    })
    .await;
}

#[tokio::test]
async fn throttling_is_waited_out() {
    run(true, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        world.faults().throttle(4);
        let mut subscription = cluster.follow(&target);
        let throttled = seen(&mut subscription, |view| view.fault.is_some()).await;
        assert!(throttled.fault.unwrap().words.contains("429"));
        let view = seen(&mut subscription, |view| view.synced && view.fault.is_none()).await;
        assert!(view.observed.workload.is_some());
    })
    .await;
}

#[tokio::test]
async fn where_the_cluster_may_not_be_watched_its_namespaces_are() {
    run(false, async |world| {
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refused);
        let cluster = world.through(Scope::Cluster, move |request| {
            let path = request.uri().path();
            let wide = !path.contains("/namespaces/") && path.ends_with("s");
            wide.then(|| {
                counted.fetch_add(1, Ordering::Relaxed);
                refusal(403, "Forbidden", "cannot list resource at the cluster scope")
            })
        });
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        let view = seen(&mut subscription, |view| view.synced).await;
        assert!(view.observed.workload.is_some());
        assert!(view.fault.is_none());
        let before = refused.load(Ordering::Relaxed);
        assert!(
            (1..=3).contains(&before),
            "one try of each kind at most: {before}"
        );
        let other = world.namespace().await;
        let till = deployment(world, &other, "till").await;
        let mut second = cluster.follow(&till);
        seen(&mut second, |view| {
            view.synced && view.observed.workload.is_some()
        })
        .await;
        assert_eq!(refused.load(Ordering::Relaxed), before, "it is not tried again");
        assert_eq!(cluster.watches(), 2 * 3);
        world.merge(&target, label("seen")).await;
        seen(&mut subscription, |view| has_label(view, "seen")).await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_dies_without_a_sound_is_found_out() {
    run(false, async |world| {
        let dead = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&dead);
        let cluster = world.through(Scope::Cluster, move |request| {
            let watch = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch=true"));
            (watch && flag.load(Ordering::Relaxed)).then(silence)
        });
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| {
            view.synced && view.observed.workload.is_some()
        })
        .await;
        world.merge(&target, label("unheard")).await;
        dead.store(false, Ordering::Relaxed);
        // Who verifies asks the API server when it has been quiet for long.
        let live = cluster.read(&target).await.unwrap().unwrap();
        assert_eq!(live.metadata().labels.as_ref().unwrap()["note"], "unheard");
        seen(&mut subscription, |view| has_label(view, "unheard")).await;
    })
    .await;
}

#[tokio::test]
async fn a_version_that_the_server_refuses_is_given_up() {
    run(false, async |world| {
        let refuse = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&refuse);
        let cluster = world.through(Scope::Cluster, move |request| {
            let watch = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch=true"));
            // Not as an event within a watch, but in place of one.
            let once = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            (watch && once().is_ok()).then(|| refusal(410, "Expired", "too old resource version"))
        });
        refuse.store(3, Ordering::Relaxed);
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| {
            view.synced && view.observed.workload.is_some()
        })
        .await;
        world.merge(&target, label("after")).await;
        seen(&mut subscription, |view| has_label(view, "after")).await;
        assert_eq!(refuse.load(Ordering::Relaxed), 0);
    })
    .await;
}

#[tokio::test]
async fn a_kind_that_the_cluster_lacks_is_a_clear_fault_until_it_is_installed() {
    run(true, async |world| {
        let cluster = world.cluster(Scope::Cluster);
        let namespace = world.namespace().await;
        let target = target(WorkloadKind::Rollout, &namespace, "shop");
        let mut subscription = cluster.follow(&target);
        let view = seen(&mut subscription, |view| view.fault.is_some()).await;
        let fault = view.fault.unwrap();
        assert_eq!(
            fault.words,
            "the cluster has no kind Rollout in argoproj.io/v1alpha1; is Argo Rollouts installed?"
        );
        assert!(fault.absent && !view.synced);
        world.define("argo-rollouts-rollout.yaml").await;
        seen(&mut subscription, |view| view.synced && view.fault.is_none()).await;
    })
    .await;
}

/// Takes connections and says nothing.
async fn black_hole() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    (address, task)
}

async fn refused_port() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}

async fn clusters(world: &World, dead: &[(&str, std::net::SocketAddr)]) -> Clusters {
    let folder = tempfile::tempdir().unwrap();
    let mut configs = json!({"living": {"kubeconfig": world.kubeconfig}});
    for (name, address) in dead {
        let path = folder.path().join(name);
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}")}}],
            "users": [{"name": "c", "user": {"token": "none"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        configs[*name] = json!({"kubeconfig": path, "context": "c"});
    }
    let configs: ClusterConfigs = serde_json::from_value(configs).unwrap();
    Clusters::open(&configs).await.unwrap()
}

fn real(clusters: &Clusters, name: &str) -> Kubernetes {
    clusters.get(&name.parse().unwrap()).unwrap().clone()
}

#[tokio::test]
async fn a_dead_cluster_does_not_slow_the_living() {
    run(false, async |world| {
        let (silent, hole) = black_hole().await;
        let closed = refused_port().await;
        let clusters = clusters(world, &[("silent", silent), ("closed", closed)]).await;
        let mut following = Vec::new();
        let mut writing = Vec::new();
        for name in ["silent", "closed"] {
            let cluster = real(&clusters, name);
            for number in 0..200 {
                let target = target(WorkloadKind::Deployment, "default", &format!("shop-{number}"));
                following.push((name, cluster.follow(&target)));
                let cluster = cluster.clone();
                let work = async move { restart(&cluster, &write(&id("d-1"), &target, 1)).await };
                writing.push((name, tokio::spawn(work)));
            }
            assert_eq!(cluster.watches(), 3);
        }
        let living = real(&clusters, "living");
        let namespace = world.namespace().await;
        let target = deployment(world, &namespace, "shop").await;
        let mut subscription = living.follow(&target);
        restart(&living, &write(&id("d-1"), &target, 1)).await.unwrap();
        seen(&mut subscription, |view| {
            let live = view.observed.workload.as_ref();
            live.is_some_and(|live| slipway_verdict::epoch_of(live.metadata()) == 1)
        })
        .await;
        let silent = writing.iter().filter(|(name, _)| *name == "silent");
        assert!(
            silent.clone().all(|(_, work)| !work.is_finished()),
            "the living cluster was done before the silent one had answered anybody"
        );
        for (name, work) in writing {
            if name == "closed" {
                let error = work.await.unwrap().unwrap_err();
                assert!(error.is_transient(), "{error}");
            } else {
                work.abort();
            }
        }
        for (name, subscription) in &mut following {
            let view = seen(subscription, |view| view.fault.is_some()).await;
            assert!(!view.synced, "{name}");
        }
        hole.abort();
    })
    .await;
}
