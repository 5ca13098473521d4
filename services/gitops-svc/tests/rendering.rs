//! What is to be committed is rendered first, by the real kustomize: what does not render is not pushed, what cannot be
//! rendered here is pushed and says so, and neither holds up anybody else.
#![allow(clippy::unwrap_used)] // helpers of tests

mod github;
mod world;

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use slipway_proto::gitops::v1::{
    Change, KustomizeImage, ManifestImage, RevertChangeRequest, change::Status, edit,
};
use slipway_testbed::tool;
use world::*;

/// A world whose kustomize writes down what it renders, and takes long where a folder says so.
struct Watched {
    world: World,
    log: PathBuf,
    config: String,
}

impl Watched {
    fn new(name: &str, services: &[&str]) -> Self {
        let world = World::new(name, services);
        let (log, program) = (world.path("rendered"), world.path("kustomize"));
        let real = tool("kustomize").unwrap();
        std::fs::write(
            &program,
            format!(
                "#!/bin/sh\nPATH=/usr/bin:/bin\n\
                 if [ \"$1\" = build ]; then\n  echo \"$2\" >>{log}\n\
                 \x20 if grep -q 'takes long' \"$2/kustomization.yaml\"; then sleep 3; fi\nfi\n\
                 exec {real} \"$@\"\n",
                log = log.display(),
                real = real.display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = world.config(&world.sqlite(), "one", "127.0.0.1:0").replace(
            &format!("kustomize: {{path: {}}}", real.display()),
            &format!("kustomize: {{path: {}}}", program.display()),
        );
        assert!(config.contains(&program.display().to_string()), "{config}");
        Self { world, log, config }
    }

    async fn start(&self) -> Running {
        start_with(&self.config).await.unwrap()
    }

    /// How often a folder of the repository was rendered.
    fn rendered(&self, folder: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines()
            .filter(|line| line.ends_with(&format!("/repository/{folder}")))
            .count()
    }

    fn write(&self, path: &str, text: &str) {
        self.world
            .remote
            .commit("main", "theirs", &[(path, text.as_bytes())])
            .unwrap();
    }

    /// Replaces what a service's overlay builds on.
    fn builds_on(&self, service: &str, resources: &str) {
        let text = overlay(service).replace("- ../../base # shared", resources);
        self.write(&format!("{}/kustomization.yaml", folder(service)), &text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_render_is_not_pushed() {
    let watched = Watched::new("gitops-render-broken", &["a", "b"]);
    let world = &watched.world;
    let running = watched.start().await;
    let mut client = running.client();
    pushed(&applied(&mut client, &set_tag("a", "v1")).await, &[]);

    watched.builds_on("a", "- ../../base\r\n- service.yaml");
    let head = world.remote.head("main").unwrap();
    let change = applied(&mut client, &set_tag("a", "v2")).await;
    failed(
        &change,
        &[
            "apps/a/dev does not render, and did not before this change: repair it; kustomize says: ",
            "apps/a/dev/service.yaml",
            "no such file or directory",
        ],
    );
    assert_eq!(world.remote.head("main").unwrap(), head, "nothing is pushed");
    // A broken folder is its own service's business.
    pushed(&applied(&mut client, &set_tag("b", "v1")).await, &[]);

    // Together in one push as well: the first one waits until the others have come.
    let (go, log) = (world.path("go"), world.path("pushes"));
    world.hook(
        "pre-receive",
        &format!(
            "read old new ref\ngit rev-list --count $old..$new >>{log}\nwhile [ ! -e {go} ]; do sleep 0.01; done",
            log = log.display(),
            go = go.display()
        ),
    );
    let first = apply(&mut client, &set_tag("b", "v2")).await;
    appears(&log).await;
    let mut together = Vec::new();
    for (service, tag) in [("b", "v3"), ("a", "v3"), ("b", "v4")] {
        together.push((service, apply(&mut client, &set_tag(service, tag)).await));
    }
    std::fs::write(&go, "").unwrap();
    pushed(&finished(&mut client, &first.id).await, &[]);
    for (service, change) in together {
        let change = finished(&mut client, &change.id).await;
        match service {
            "a" => failed(&change, &["service.yaml"]),
            _ => pushed(&change, &[]),
        }
    }
    assert_eq!(
        std::fs::read_to_string(&log).unwrap().lines().collect::<Vec<_>>(),
        ["1", "2"]
    );

    // Somebody adds what was missing.
    watched.write(
        "apps/a/dev/service.yaml",
        "kind: Service\napiVersion: v1\nmetadata: {name: a}\n",
    );
    pushed(&applied(&mut client, &set_tag("a", "v5")).await, &[]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_breaks_its_folder_is_refused() {
    let watched = Watched::new("gitops-render-breaks", &["a"]);
    let digest = format!("sha256:{}", "a".repeat(64));
    let text = format!(
        "resources: [../../base]\nimages:\n- name: app\n  newTag: v1\n  digest: {digest}\nreplacements:\n\
         - source: {{kind: Deployment, fieldPath: spec.template.spec.containers.0.image, options: {{delimiter: ':', index: 2}}}}\n\
         \x20 targets: [{{select: {{kind: Deployment}}, fieldPaths: [metadata.name]}}]\n"
    );
    watched.write("apps/a/dev/kustomization.yaml", &text);
    let running = watched.start().await;
    let mut client = running.client();
    let image = |new_tag: &str, digest: &str| {
        edit::Edit::KustomizeImage(KustomizeImage {
            path: folder("a"),
            name: "app".to_owned(),
            new_tag: new_tag.to_owned(),
            digest: digest.to_owned(),
            ..KustomizeImage::default()
        })
    };
    // The replacement takes the digest from behind the second colon.
    pushed(
        &applied(&mut client, &edit("a", "both", image("v2", &digest))).await,
        &[],
    );
    let head = watched.world.remote.head("main").unwrap();
    failed(
        &applied(&mut client, &edit("a", "tag", image("v3", ""))).await,
        &["apps/a/dev would not render with this change", "out of bounds"],
    );
    assert_eq!(watched.world.remote.head("main").unwrap(), head);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rendered_here_is_pushed_and_says_so() {
    let watched = Watched::new("gitops-render-elsewhere", &["a"]);
    let proof = watched.world.path("ran");
    let script = watched.world.path("generate");
    std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", proof.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let generator = format!(
        "apiVersion: example.com/v1\nkind: Generate\nmetadata:\n  name: x\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {{path: {}}}\n",
        script.display()
    );
    watched.write("apps/a/dev/generate.yaml", &generator);
    watched.write(
        "apps/common.yaml",
        "kind: Service\napiVersion: v1\nmetadata: {name: x}\n",
    );
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:1a2b\nsize 12\n";
    watched.write("apps/a/dev/large.yaml", lfs);
    let running = watched.start().await;
    let mut client = running.client();
    for (number, (resources, words)) in [
        (
            "- https://example.com/base?ref=main",
            "https://example.com/base?ref=main is not in this repository",
        ),
        (
            "- github.com/acme/base//shop",
            "github.com/acme/base//shop is not in this repository",
        ),
        (
            "- ../../base\r\ngenerators: [generate.yaml]",
            "Generate is a program",
        ),
        (
            "- ../../base\r\nhelmCharts: [{name: x, repo: 'https://example.com'}]",
            "needs helm",
        ),
        ("- ../../../../elsewhere", "is not in this repository"),
        ("- ../../base\r\n- ../../common.yaml", "outside of its folder"),
        ("- ../../base\r\n- large.yaml", "kept by Git LFS"),
    ]
    .into_iter()
    .enumerate()
    {
        watched.builds_on("a", resources);
        let change = applied(&mut client, &set_tag("a", &format!("v{number}"))).await;
        pushed(&change, &[words, "apps/a/dev"]);
    }
    assert!(!proof.exists(), "a generator was run");

    // It is the same after the event was read again.
    let id = applied(&mut client, &set_tag("a", "again")).await.id;
    assert!(get(&mut client, &id).await.not_rendered.contains("Git LFS"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_rendered_once_for_all_images() {
    let watched = Watched::new("gitops-render-once", &["a", "b"]);
    watched.write("plain/kustomization.yaml", "resources: [pod.yaml]\n");
    watched.write(
        "plain/pod.yaml",
        "kind: Pod\napiVersion: v1\nmetadata: {name: x}\nspec: {containers: [{name: x, image: 'x:1'}]}\n",
    );
    let running = watched.start().await;
    let mut client = running.client();
    let pod = |tag: &str| {
        let image = ManifestImage {
            file: "plain/pod.yaml".to_owned(),
            container: "x".to_owned(),
            new_tag: tag.to_owned(),
            ..ManifestImage::default()
        };
        edit("b", &format!("pod-{tag}"), edit::Edit::ManifestImage(image))
    };
    for tag in ["v1", "v2", "1.10", "v3"] {
        pushed(&applied(&mut client, &set_tag("a", tag)).await, &[]);
        pushed(&applied(&mut client, &pod(tag)).await, &[]);
        assert_eq!(
            (watched.rendered("apps/a/dev"), watched.rendered("plain")),
            (1, 1),
            "{tag}"
        );
    }
    pushed(&applied(&mut client, &set_tag("b", "v1")).await, &[]);
    assert_eq!(watched.rendered("apps/a/dev"), 1);

    // What it builds on is another.
    watched.write(
        "apps/base/deployment.yaml",
        &DEPLOYMENT.replace("app: app", "app: app, x: y"),
    );
    pushed(&applied(&mut client, &set_tag("a", "v4")).await, &[]);
    assert_eq!(watched.rendered("apps/a/dev"), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_takes_long_holds_up_nobody_else() {
    let watched = Watched::new("gitops-render-slow", &["a", "b"]);
    watched.builds_on("a", "- ../../base # takes long");
    let running = watched.start().await;
    let mut client = running.client();
    // The mirror is there.
    pushed(&applied(&mut client, &set_tag("b", "v1")).await, &[]);
    let began = std::time::Instant::now();
    let slow = apply(&mut client, &set_tag("a", "v1")).await;
    let mut last = Duration::ZERO;
    for number in 0..3 {
        pushed(
            &applied(&mut client, &set_tag("b", &format!("v2-{number}"))).await,
            &[],
        );
        last = began.elapsed();
    }
    let slow_is_done = get(&mut client, &slow.id).await.status() != Status::Pending;
    assert!(last < Duration::from_secs(3) || slow_is_done, "{last:?}");
    pushed(&finished(&mut client, &slow.id).await, &[]);
    assert_eq!(watched.rendered("apps/a/dev"), 1);
    running.stop().await;

    // Longer than kustomize may take, it cannot be said.
    let config = watched
        .config
        .replace("kustomize: {path:", "kustomize: {timeout: 1s, path:");
    let config = config
        .replace("data-one", "data-two")
        .replace("ledger.db", "ledger-two.db");
    let running = start_with(&config).await.unwrap();
    let change = applied(&mut running.client(), &set_tag("a", "v9")).await;
    pushed(&change, &["apps/a/dev cannot be rendered here", "took longer"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_is_not_kept_back_by_what_others_broke() {
    let watched = Watched::new("gitops-render-revert", &["a"]);
    let running = watched.start().await;
    let mut client = running.client();
    let change = applied(&mut client, &set_tag("a", "v1")).await;
    pushed(&change, &[]);
    let now = watched
        .world
        .file("a")
        .replace("- ../../base # shared", "- ../nowhere");
    watched.write("apps/a/dev/kustomization.yaml", &now);
    failed(
        &applied(&mut client, &set_tag("a", "v2")).await,
        &["apps/a/nowhere"],
    );
    let request = RevertChangeRequest {
        request_id: "back".to_owned(),
        id: change.id,
        ..RevertChangeRequest::default()
    };
    let revert = client
        .revert_change(request)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    let revert = finished(&mut client, &revert.id).await;
    pushed(&revert, &["apps/a/dev does not render, and did not before"]);
    assert!(watched.world.file("a").contains("'old'"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_switched_off_for_a_repository() {
    let watched = Watched::new("gitops-render-off", &["a"]);
    watched.builds_on("a", "- service.yaml");
    let url = format!("{{url: {}}}", watched.world.remote.path().display());
    let off = format!(
        "{{url: {}, render_before_commit: false}}",
        watched.world.remote.path().display()
    );
    let running = start_with(&watched.config.replace(&url, &off)).await.unwrap();
    let change = applied(&mut running.client(), &set_tag("a", "v1")).await;
    pushed(&change, &[]);
    assert_eq!(watched.rendered("apps/a/dev"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_no_kustomization_reads_are_applied_as_they_are() {
    let watched = Watched::new("gitops-render-plain", &["a"]);
    watched.write(
        "plain/pod.yaml",
        "kind: Pod\napiVersion: v1\nmetadata: {name: x}\nspec: {containers: [{name: x, image: 'x:1'}]}\n",
    );
    let running = watched.start().await;
    let pod = edit::Edit::ManifestImage(ManifestImage {
        file: "plain/pod.yaml".to_owned(),
        container: "x".to_owned(),
        new_tag: "v1".to_owned(),
        ..ManifestImage::default()
    });
    pushed(&applied(&mut running.client(), &edit("a", "pod", pod)).await, &[]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_requests_are_rendered_too() {
    let forge = github::Forge::new("render-pull").await;
    let service = forge.start("labels: [deploy]").await;
    let mut client = service.client();
    let path = format!("{}/kustomization.yaml", folder("identity"));
    let write = |resources: &str| {
        let text = overlay("identity").replace("- ../../base # shared", resources);
        forge
            .world
            .remote
            .commit("main", "theirs", &[(&path, text.as_bytes())])
            .unwrap();
    };
    write("- missing.yaml");
    let change = applied(&mut client, &set_tag("identity", "v1")).await;
    failed(&change, &["missing.yaml"]);
    assert_eq!(forge.branch(&change), None, "nothing is pushed");

    write("- https://example.com/base");
    let change = apply(&mut client, &set_tag("identity", "v2")).await;
    let number = forge.github.opened().await;
    forge
        .github
        .asked(&format!("GET /repos/acme/shop/pulls/{number}"), 1)
        .await;
    pushed_later(&get(&mut client, &change.id).await);
    forge.github.merge(number, "squash", "alice");
    let change = finished(&mut client, &change.id).await;
    pushed(&change, &["https://example.com/base is not in this repository"]);
    service.stop().await;
}

fn pushed_later(change: &Change) {
    assert_status(change, Status::Pending);
    assert!(
        change.not_rendered.contains("https://example.com/base"),
        "{change:?}"
    );
}
