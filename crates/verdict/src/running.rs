//! What pods really run: the image digests that their runtime reports.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodTemplateSpec};
use slipway_model::{Digest, ImageRef};

use crate::{Expected, Failure, FailureReason, pods, pods::name};

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

/// The template's containers that are to run what is expected.
pub(crate) fn ours<'a>(expected: &Expected, template: Option<&'a PodTemplateSpec>) -> Vec<&'a str> {
    let Some(restored) = &expected.restored else {
        return containers_of(expected, template);
    };
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| container.name.as_str())
        .filter(|name| restored.containers.iter().any(|one| one == name))
        .collect()
}

/// Whether the template is not, or no longer, the expected one.
pub(crate) fn is_not_ours(expected: &Expected, template: &PodTemplateSpec) -> bool {
    let known = expected
        .restored
        .as_ref()
        .is_none_or(|restored| !restored.containers.is_empty());
    known && ours(expected, Some(template)).is_empty()
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

/// How many of these pods are seen to run one of the digests. Terminating pods do not count.
///
/// # Errors
/// One of them runs something else.
pub(crate) fn prove(pods: &[&Pod], containers: &[&str], digests: &[Digest]) -> Result<i32, Failure> {
    let mut proven = 0;
    for pod in pods {
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match pod_runs(pod, containers, digests) {
            Runs::Ours => proven += 1,
            Runs::NotYet => {}
            Runs::Other(id) => {
                return Err(Failure {
                    reason: FailureReason::WrongImage,
                    message: format!(
                        "pod {} runs {id} instead of {}",
                        name(pod),
                        any_of(digests, Digest::as_str)
                    ),
                });
            }
        }
    }
    Ok(proven)
}

/// What must be proven beyond kubectl, any of these: nothing if the catalog does not require it, or there is no digest.
pub(crate) fn digests_to_prove(expected: &Expected) -> Option<&[Digest]> {
    let digests = match &expected.restored {
        Some(restored) => restored.digests.as_slice(),
        None => expected.image.digest.as_slice(),
    };
    Some(digests).filter(|digests| expected.verify.digest && !digests.is_empty())
}

/// What a person reads while the proof is incomplete.
pub(crate) fn unproven(proven: i32, wanted: i32, digests: &[Digest]) -> String {
    format!(
        "{proven} of {wanted} new pods seen to run {}",
        any_of(digests, Digest::short)
    )
}

pub(crate) fn any_of(digests: &[Digest], text: fn(&Digest) -> &str) -> String {
    digests.iter().map(text).collect::<Vec<_>>().join(" or ")
}

/// The digests that a container of these pods runs, that of the most pods first.
pub(crate) fn digests(pods: &[&Pod], container: &str) -> Vec<Digest> {
    let mut counted: Vec<(usize, Digest)> = Vec::new();
    for pod in pods::living(pods) {
        let Some(digest) = runs(pod, container) else {
            continue;
        };
        match counted.iter_mut().find(|(_, known)| *known == digest) {
            Some((count, _)) => *count += 1,
            None => counted.push((1, digest)),
        }
    }
    counted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    counted.into_iter().map(|(_, digest)| digest).collect()
}

/// The digest that a running container of the pod has, as its runtime reports it, or as the pod asks for it.
fn runs(pod: &Pod, container: &str) -> Option<Digest> {
    let (status, _) = status_of(pod, container)?;
    status.state.as_ref()?.running.as_ref()?;
    if let Some((_, digest)) = status.image_id.rsplit_once('@') {
        return digest.parse().ok();
    }
    let spec = pod.spec.as_ref()?;
    let asked = spec.containers.iter().find(|one| one.name == container)?;
    asked.image.as_deref()?.parse::<ImageRef>().ok()?.digest
}

enum Runs {
    Ours,
    NotYet,
    /// What runs instead.
    Other(String),
}

fn pod_runs(pod: &Pod, containers: &[&str], digests: &[Digest]) -> Runs {
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
            Some((_, id)) if digests.iter().any(|digest| digest.as_str() == id) => seen += 1,
            Some((_, id)) => return Runs::Other(id.to_owned()),
            // Runtimes that do not know a repository digest (images loaded into a node) report the configuration's id;
            // then it has to suffice that the pod asks for exactly this digest.
            None if digests.iter().any(|digest| asks_for(pod, name, digest)) => seen += 1,
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
