//! What the workloads of an Application say: those that carry our image, each judged by the rules of its own kind.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use slipway_model::Timestamp;

use super::{Application, ResourceStatus};
use crate::{
    Applied, Expected, Failure, FailureReason, Managed, ManagedWorkload, Next, Verdict, Verify, Workload,
    WorkloadKind, judge, next, rollout, running,
};

/// The workloads that Argo CD lists for an application: kind, namespace and name. What left git is not among them.
pub fn workloads(live: &Application) -> Vec<(WorkloadKind, String, String)> {
    let listed = live.status.resources.iter().filter(|one| !one.requires_pruning);
    let mut found: Vec<_> = listed
        .filter_map(|one| {
            let namespace = match one.namespace.as_str() {
                "" => &live.spec.destination.namespace,
                given => given,
            };
            Some((kind_of(one)?, namespace.to_owned(), one.name.clone()))
        })
        .collect();
    found.dedup();
    found
}

fn kind_of(one: &ResourceStatus) -> Option<WorkloadKind> {
    [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
        WorkloadKind::Rollout,
        WorkloadKind::Canary,
    ]
    .into_iter()
    .find(|kind| {
        let group = kind.api_version().split_once('/').map_or("", |(group, _)| group);
        kind.as_str() == one.kind && (one.group == group || one.group.is_empty())
    })
}

/// What is expected of one workload: Argo CD wrote it, so nothing is known of the object itself.
pub fn expected_of_one(expected: &Expected) -> Expected {
    Expected {
        epoch: u64::MAX,
        applied: Applied::default(),
        sync: None,
        ..expected.clone()
    }
}

/// The workloads that carry our image.
pub fn ours<'a>(expected: &Expected, managed: &'a Managed) -> Vec<&'a ManagedWorkload> {
    let all = seen(managed);
    all.iter()
        .filter(|one| !is_led(one, all) && carries(expected, one, all))
        .collect()
}

/// What to do next with each of our workloads that has steps.
pub fn steps<'a>(expected: &Expected, managed: &'a Managed) -> Vec<(&'a ManagedWorkload, Next)> {
    let own = expected_of_one(expected);
    let with_steps = ours(expected, managed).into_iter();
    with_steps
        .filter_map(|one| {
            let live = one.observed.workload.as_ref()?;
            Some((one, next(&own, live)))
        })
        .collect()
}

/// Workloads with steps that can be promoted or aborted: ours, or all of them where none carries our image.
pub fn with_steps<'a>(expected: &Expected, managed: &'a Managed) -> Vec<&'a ManagedWorkload> {
    let progressive = |one: &&ManagedWorkload| one.kind.has_steps();
    let ours: Vec<_> = ours(expected, managed).into_iter().filter(progressive).collect();
    if ours.is_empty() {
        return seen(managed).iter().filter(progressive).collect();
    }
    ours
}

/// The result for all workloads that carry our image.
#[derive(Debug, Default)]
pub(super) struct Review {
    /// The first failure that is certain.
    pub(super) failure: Option<Failure>,
    /// What is missing, object by object.
    pub(super) missing: Vec<String>,
    pub(super) look_again: Option<Timestamp>,
    /// How many are complete.
    pub(super) complete: usize,
    /// Those that are scaled to zero beside others that run.
    pub(super) idle: Vec<String>,
}

impl Review {
    /// Every workload of ours runs our image and is well; there is at least one.
    pub(super) fn is_complete(&self) -> bool {
        self.complete > 0 && self.missing.is_empty() && self.failure.is_none()
    }

    pub(super) fn missing(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| self.missing.join("; "))
    }
}

/// Judges the workloads that carry our image; `None` if none is seen to.
pub(super) fn review(
    expected: &Expected,
    managed: &Managed,
    now: Timestamp,
    counts: impl Fn(&ManagedWorkload) -> bool,
) -> Option<Review> {
    let own = expected_of_one(expected);
    let mut review = Review::default();
    let mut scaled_to_zero = None;
    let ours: Vec<_> = ours(expected, managed)
        .into_iter()
        .filter(|one| counts(one))
        .collect();
    for one in &ours {
        match judge(&own, &one.observed, now) {
            Verdict::Complete => review.complete += 1,
            Verdict::Progressing { message, look_again } => {
                review.missing.push(format!("{one}: {message}"));
                review.look_again = [review.look_again, look_again].into_iter().flatten().min();
            }
            Verdict::Failed(failure) => {
                let named = Failure {
                    reason: failure.reason,
                    message: format!("{one}: {}", failure.message),
                };
                if failure.reason == FailureReason::ScaledToZero {
                    review.idle.push(one.to_string());
                    scaled_to_zero.get_or_insert(named);
                } else {
                    review.failure.get_or_insert(named);
                }
            }
        }
    }
    // Something that is asked for on demand may rest while the others run.
    if review.complete == 0 && review.missing.is_empty() && review.failure.is_none() {
        review.failure = scaled_to_zero;
    }
    (!ours.is_empty()).then_some(review)
}

/// Workloads without our image that are not well, and why.
pub(super) fn ailing_neighbours(expected: &Expected, managed: &Managed, now: Timestamp) -> Vec<String> {
    let all = seen(managed);
    let own = Expected {
        verify: Verify {
            digest: false,
            ..expected.verify
        },
        ..expected_of_one(expected)
    };
    let others = all
        .iter()
        .filter(|one| !is_led(one, all) && !carries(expected, one, all));
    others
        .filter_map(|one| match judge(&own, &one.observed, now) {
            Verdict::Complete => None,
            Verdict::Progressing { message, .. } => Some(format!("{one}: {message}")),
            Verdict::Failed(failure) => Some(format!("{one}: {}", failure.message)),
        })
        .collect()
}

fn seen(managed: &Managed) -> &[ManagedWorkload] {
    match managed {
        Managed::Seen(all) => all,
        Managed::Unknown | Managed::Unreadable(_) => &[],
    }
}

/// Whether another workload of the application rolls it out: Flagger scales a Canary's target, and Argo Rollouts the
/// workload of a `workloadRef`, to zero.
fn is_led(one: &ManagedWorkload, all: &[ManagedWorkload]) -> bool {
    all.iter().any(|other| {
        other.namespace == one.namespace
            && led_by(other).is_some_and(|(kind, name)| kind == one.kind.as_str() && name == one.name)
    })
}

/// Kind and name of the workload that this one rolls out.
fn led_by(one: &ManagedWorkload) -> Option<(&str, &str)> {
    match one.observed.workload.as_ref()? {
        Workload::Canary(live) => {
            let target = &live.spec.target_ref;
            let kind = if target.kind.is_empty() {
                "Deployment"
            } else {
                &target.kind
            };
            Some((kind, &target.name))
        }
        Workload::Rollout(live) => {
            let workload = live.spec.workload_ref.as_ref()?;
            Some((&workload.kind, &workload.name))
        }
        _ => None,
    }
}

fn carries(expected: &Expected, one: &ManagedWorkload, all: &[ManagedWorkload]) -> bool {
    let has = |template: Option<&PodTemplateSpec>| !running::ours(expected, template).is_empty();
    let Some(live) = &one.observed.workload else {
        return false;
    };
    if has(live.template()) {
        return true;
    }
    let led = led_by(one).and_then(|(kind, name)| {
        all.iter().find(|other| {
            other.namespace == one.namespace && other.kind.as_str() == kind && other.name == name
        })
    });
    if let Some(led) = led {
        return has(led.observed.workload.as_ref().and_then(Workload::template));
    }
    match live {
        Workload::Canary(_) => {
            let primary = one.observed.primary.as_ref();
            has(primary
                .and_then(|primary| primary.spec.as_ref())
                .map(|spec| &spec.template))
        }
        Workload::Rollout(live) => {
            let current = rollout::current_pods(live, &one.observed);
            has(current
                .replica_set
                .and_then(|set| set.spec.as_ref()?.template.as_ref()))
        }
        _ => false,
    }
}
