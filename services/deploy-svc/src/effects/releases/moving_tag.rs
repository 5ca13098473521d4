//! What a restart relies on: the tag that the workload names points to the released image. Checked when people are
//! asked, so that what they approve is what a restart would run, and again before the restart.

use std::collections::BTreeSet;

use deploy_domain::{catalog::Action, release::StepKind};
use slipway_kubernetes::Clusters;
use slipway_model::{Digest, Fault, Image, ImageRef, Reason, Tag};
use slipway_verdict::{Target, Workload};

use crate::backends::steps::{Order, Tags};

/// Rejects the step if a restart would not run the released image.
pub(super) async fn check(
    clusters: &Clusters,
    tags: &dyn Tags,
    order: Order<'_>,
) -> Result<(), Fault<Reason>> {
    let Some((_, planned)) = order.environment else {
        return Ok(());
    };
    let restarts = matches!(order.step.kind, StepKind::Gate | StepKind::Deploy);
    if planned.action != Action::Restart || !planned.verify.digest || !restarts {
        return Ok(());
    }
    let (target, image) = (&planned.target, order.image()?);
    let cluster = match clusters.get(&target.cluster) {
        Ok(cluster) => cluster,
        Err(unknown) => return Err(Fault::refused("UNKNOWN_CLUSTER", unknown.to_string())),
    };
    let live = match cluster.read(target).await {
        Ok(Some(live)) => live,
        Ok(None) => {
            let words = format!("there is no {target}, so it cannot be restarted: create it first");
            return Err(Fault::refused("APPLY_REFUSED", words));
        }
        Err(Fault::Permanent(reason)) => return Err(Fault::refused("APPLY_REFUSED", reason.message)),
        Err(Fault::Transient { error, .. }) => {
            let words = format!("cluster {}: {error}", target.cluster);
            return Err(Fault::unavailable("CLUSTER", words));
        }
    };
    for tag in named(target, &live, image)? {
        let points_to = tags.resolve(order, &tag).await?;
        if points_to != image.digest {
            return Err(moved(image, &tag, &points_to));
        }
    }
    Ok(())
}

/// The tags by which the workload's template names the image.
fn named(target: &Target, live: &Workload, image: &Image) -> Result<BTreeSet<Tag>, Fault<Reason>> {
    let spec = live.template().and_then(|template| template.spec.as_ref());
    let containers = spec.into_iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    let ours: Vec<ImageRef> = containers
        .filter_map(|container| container.image.as_deref()?.parse::<ImageRef>().ok())
        .filter(|named| named.name == image.repository)
        .collect();
    if ours.is_empty() {
        let words = format!(
            "no container of {target} runs {}, so a restart does not bring the released image: correct its manifest, or `image` in the catalog",
            image.repository
        );
        return Err(Fault::refused("IMAGE_NOT_USED", words));
    }
    let mut tags = BTreeSet::new();
    for named in ours {
        match (&named.digest, named.tag) {
            (Some(digest), _) if *digest == image.digest => {}
            (Some(_), _) => {
                let words = format!(
                    "{target} names {}@{}, and a restart runs that again instead of {}: have its manifest name a tag, or use a strategy that writes the digest",
                    image.repository,
                    named.digest.as_ref().map(Digest::as_str).unwrap_or_default(),
                    image.digest
                );
                return Err(Fault::refused("IMAGE_PINNED", words));
            }
            (None, Some(tag)) => {
                tags.insert(tag);
            }
            // As the runtime reads it.
            (None, None) => tags.extend("latest".parse::<Tag>()),
        }
    }
    Ok(tags)
}

fn moved(image: &Image, tag: &Tag, points_to: &Digest) -> Fault<Reason> {
    let repository = &image.repository;
    Fault::refused(
        "TAG_MOVED",
        format!(
            "{repository}:{tag} is {points_to}, and this release is about {}: a restart would run another image than the one that is approved. Have the build move the tag (build.latest, or the branch's own tag), or release the commit that the tag points to",
            image.digest
        ),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use pretty_assertions::assert_eq;
    use serde_json::json;
    use slipway_verdict::WorkloadKind;

    use super::*;

    fn digest(fill: &str) -> String {
        format!("sha256:{}", fill.repeat(32))
    }

    #[test]
    fn the_template_says_which_tags_a_restart_pulls() {
        let image = Image {
            name: "docs".parse().unwrap(),
            repository: "registry.example/docs".parse().unwrap(),
            digest: digest("ab").parse().unwrap(),
            tags: Vec::new(),
        };
        let target = Target {
            cluster: "main".parse().unwrap(),
            namespace: "docs".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: "docs".to_owned(),
        };
        let of = |images: &[String], init: &[String]| {
            let containers = |images: &[String]| {
                let named = images.iter().enumerate();
                named
                    .map(|(index, image)| json!({"name": format!("c{index}"), "image": image}))
                    .collect::<Vec<_>>()
            };
            let live: Deployment = serde_json::from_value(json!({
                "spec": {
                    "selector": {},
                    "template": {"spec": {"containers": containers(images), "initContainers": containers(init)}}
                }
            }))
            .unwrap();
            named(&target, &Workload::Deployment(live.into()), &image)
                .map(|tags| tags.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|fault| fault.into_error().code)
        };
        let ours = |rest: &str| format!("registry.example/docs{rest}");
        let proxy = || "registry.example/proxy:1".to_owned();
        assert_eq!(
            of(&[proxy(), ours(":latest")], &[]),
            Ok(vec!["latest".to_owned()])
        );
        assert_eq!(of(&[ours("")], &[]), Ok(vec!["latest".to_owned()]));
        assert_eq!(
            of(&[ours(":main")], &[ours(":latest")]),
            Ok(vec!["latest".to_owned(), "main".to_owned()])
        );
        assert_eq!(of(&[ours(&format!("@{}", digest("ab")))], &[]), Ok(Vec::new()));
        assert_eq!(
            of(&[ours(&format!(":latest@{}", digest("cd")))], &[]),
            Err("IMAGE_PINNED".to_owned())
        );
        assert_eq!(of(&[proxy()], &[]), Err("IMAGE_NOT_USED".to_owned()));
    }
}
