//! What is collected about pods if the API server cannot ask their kubelet.
#![allow(clippy::unwrap_used)]

mod world;

use pretty_assertions::assert_eq;
use slipway_kubernetes::{evidence, watch::Scope};
use slipway_model::Timestamp;
use slipway_verdict::WorkloadKind;
use world::{A, run, seen, spec, target};

#[tokio::test]
async fn without_a_kubelet_all_but_the_logs_is_collected() {
    run(false, async |world| {
        let cluster = world.through(Scope::Namespace, |request| {
            let path = request.uri().path();
            path.ends_with("/log").then(|| {
                world::refusal(
                    500,
                    "InternalError",
                    "dial tcp 10.0.0.1:10250: connection refused",
                )
            })
        });
        let target = target(WorkloadKind::StatefulSet, &world.namespace().await, "shop");
        world.create(&target, spec(target.kind, 1, A)).await;
        let mut subscription = cluster.follow(&target);
        seen(&mut subscription, |view| !view.observed.pods.is_empty()).await;
        let found = loop {
            let found = evidence::collect(&cluster, &target, Timestamp::from_micros(0))
                .await
                .unwrap();
            if found.iter().any(|one| one.container == "shop") {
                break found;
            }
            subscription.changed().await;
        };
        for one in found.iter().filter(|one| !one.container.is_empty()) {
            assert_eq!(one.pod, "shop-0", "{found:?}");
            assert!(!one.state.is_empty(), "{one:?}");
            assert!(
                one.log_tail.is_empty() && one.previous_log_tail.is_empty(),
                "{one:?}"
            );
            // Which of the two depends on how far the pod has come.
            let said = [
                "dial tcp 10.0.0.1:10250: connection refused",
                "the container has not started",
            ];
            assert!(
                said.iter().any(|words| one.log_missing.contains(words)),
                "{one:?}"
            );
        }
    })
    .await;
}
