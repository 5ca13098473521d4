//! What pods really run: the image digests that their runtime reports.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodTemplateSpec};
use slipway_model::{Digest, ImageRef};

use crate::{Expected, Failure, FailureReason, pods::name};

/// The names of the template's containers that run exactly this image: by digest whatever the tag, without a digest by
/// tag. Init containers count if no other container has it.
pub fn containers_with<'a>(template: Option<&'a PodTemplateSpec>, image: &ImageRef) -> Vec<&'a str> {
    let Some(spec) = template.and_then(|template| template.spec.as_ref()) else {
        return Vec::new();
    };
    let is_ours = |text: &str| {
        text.parse::<ImageRef>().is_ok_and(|one| {
            let same = one.digest == image.digest && (image.digest.is_some() || one.tag == image.tag);
            one.name == image.name && same
        })
    };
    let ours = |containers: &'a [k8s_openapi::api::core::v1::Container]| -> Vec<&'a str> {
        containers
            .iter()
            .filter(|container| container.image.as_deref().is_some_and(is_ours))
            .map(|container| container.name.as_str())
            .collect()
    };
    let main = ours(&spec.containers);
    if main.is_empty() {
        ours(spec.init_containers.as_deref().unwrap_or_default())
    } else {
        main
    }
}

/// The names of the template's containers that must run the image. If the template names it by a moving tag, they are
/// those that name it by any tag: what the tag pointed to is proven by the pods alone.
pub(crate) fn containers_of<'a>(expected: &Expected, template: Option<&'a PodTemplateSpec>) -> Vec<&'a str> {
    let exact = containers_with(template, &expected.image);
    if !exact.is_empty() || !expected.moving_tag {
        return exact;
    }
    let by_tag = |container: &'a k8s_openapi::api::core::v1::Container| {
        let image = container.image.as_deref()?.parse::<ImageRef>().ok()?;
        let ours = image.name == expected.image.name && image.digest.is_none();
        ours.then_some(container.name.as_str())
    };
    let spec = template.and_then(|template| template.spec.as_ref());
    let main: Vec<&str> = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .filter_map(by_tag)
        .collect();
    if !main.is_empty() {
        return main;
    }
    let init = spec.and_then(|spec| spec.init_containers.as_ref());
    init.into_iter().flatten().filter_map(by_tag).collect()
}

/// The images of the template's containers.
pub(crate) fn images_of(template: &PodTemplateSpec) -> Vec<&str> {
    template
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter_map(|container| container.image.as_deref())
        .collect()
}

/// How many of these pods are seen to run the deployed digest. Terminating pods do not count.
///
/// # Errors
/// One of them runs something else.
pub(crate) fn prove(pods: &[&Pod], containers: &[&str], digest: &Digest) -> Result<i32, Failure> {
    let mut proven = 0;
    for pod in pods {
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match pod_runs(pod, containers, digest) {
            Runs::Ours => proven += 1,
            Runs::NotYet => {}
            Runs::Other(id) => {
                return Err(Failure {
                    reason: FailureReason::WrongImage,
                    message: format!("pod {} runs {id} instead of {digest}", name(pod)),
                });
            }
        }
    }
    Ok(proven)
}

/// What must be proven beyond kubectl: nothing if the catalog does not require it, or there is no digest.
pub(crate) fn digest_to_prove(expected: &Expected) -> Option<&Digest> {
    expected.image.digest.as_ref().filter(|_| expected.verify.digest)
}

/// What a person reads while the proof is incomplete.
pub(crate) fn unproven(proven: i32, wanted: i32, digest: &Digest) -> String {
    format!("{proven} of {wanted} new pods seen to run {}", digest.short())
}

enum Runs {
    Ours,
    NotYet,
    /// What runs instead.
    Other(String),
}

fn pod_runs(pod: &Pod, containers: &[&str], digest: &Digest) -> Runs {
    let mut seen = 0;
    for name in containers {
        let Some((status, init)) = status_of(pod, name) else {
            return Runs::NotYet;
        };
        let state = status.state.as_ref();
        let runs = state.is_some_and(|state| state.running.is_some());
        let has_run = init
            && state.is_some_and(|state| {
                state
                    .terminated
                    .as_ref()
                    .is_some_and(|ended| ended.exit_code == 0)
            });
        if !runs && !has_run {
            return Runs::NotYet;
        }
        match status.image_id.rsplit_once('@') {
            Some((_, id)) if id == digest.as_str() => seen += 1,
            Some((_, id)) => return Runs::Other(id.to_owned()),
            // Runtimes that do not know a repository digest (images loaded into a node) report the configuration's id;
            // then it has to suffice that the pod asks for exactly this digest.
            None if asks_for(pod, name, digest) => seen += 1,
            None if status.image_id.is_empty() => return Runs::NotYet,
            None => return Runs::Other(status.image_id.clone()),
        }
    }
    if seen > 0 { Runs::Ours } else { Runs::NotYet }
}

/// The container's status, and whether it is an init container's.
fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<(&'a ContainerStatus, bool)> {
    let status = pod.status.as_ref()?;
    let find = |statuses: &'a Option<Vec<ContainerStatus>>| {
        statuses.iter().flatten().find(|status| status.name == container)
    };
    find(&status.container_statuses)
        .map(|found| (found, false))
        .or_else(|| find(&status.init_container_statuses).map(|found| (found, true)))
}

fn asks_for(pod: &Pod, container: &str, digest: &Digest) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let wanted = format!("@{digest}");
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter(|one| one.name == container)
        .any(|one| one.image.as_deref().is_some_and(|image| image.ends_with(&wanted)))
}
