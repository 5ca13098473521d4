//! Backends as the configuration describes them, and builders and registries together, all of them real.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use build_domain::build::codes;
use slipway_model::{Digest, Fault, Id, ImageName, Reason, Tag, Timestamp};
use slipway_testbed::{Access, Registry as TestRegistry, TestDir, static_binary, tool};
use tokio_util::sync::CancellationToken;

use super::{
    Backends,
    builders::{Builder, Job, buildah::Buildah},
    image_layout::Image,
    logs::{Log, Logs},
    redact::Redactor,
    registries::{
        Registry,
        oci::{Oci, Transport},
        oci_layout::OciLayout,
    },
    stop::Stop,
    workspace::{Attempt, Workspace},
};
use crate::config::Config;

/// The backends of a configuration with this key in its first registry.
fn configured(key: &str) -> (Config, Backends) {
    let text = format!(
        r#"
database: {{ url: "sqlite:///build.db" }}
data_dir: /data
logs: {{ directory: /logs }}
builders: {{ default: {{ kind: buildah }} }}
registries:
  - {{ prefix: "127.0.0.1:5000", kind: oci, tls: plaintext{key} }}
  - {{ kind: oci_layout, directory: /images }}
"#
    );
    let config: Config = slipway_server::config::parse("test.yaml", &text).unwrap();
    let backends = Backends::open(&config.settings).unwrap();
    (config, backends)
}

#[test]
fn images_go_to_the_configured_registries() {
    let (_, backends) = configured("");
    let registry = |name: &str| backends.registries.of(&name.parse().unwrap());
    assert!(registry("team/app").is_some());
    assert!(registry("127.0.0.1:5000/app").is_some());
    assert!(registry("docker.io/app").is_none());
}

#[test]
fn secrets_are_read_from_files_and_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter22\n").unwrap();
    let (config, backends) = configured(&format!(", username: robot, password_file: {}", file.display()));
    let basic = STANDARD.encode("robot:hunter22");
    assert_eq!(
        backends.redactor.redact(&format!("a hunter22 b {basic}"), false),
        "a *** b ***"
    );
    let printed = format!("{config:?} {backends:?}");
    assert!(
        !printed.contains("hunter22") && !printed.contains(&basic),
        "{printed}"
    );
}

const PROGRAM: &str = r#"fn main() {
    println!("running {}", std::env::args().nth(1).unwrap_or_default());
    match std::env::args().nth(1).as_deref() {
        Some("fail") => { eprintln!("cannot go on"); std::process::exit(3) }
        Some("sleep") => loop { std::thread::sleep(std::time::Duration::from_secs(3600)) },
        _ => {}
    }
}"#;

struct Bed {
    folder: TestDir,
    workspace: Workspace,
    log: Log,
    buildah: Buildah,
}

impl Bed {
    async fn new() -> Self {
        let folder = TestDir::new("backends").unwrap();
        let workspace = Workspace::open(&folder.path().join("work")).unwrap();
        let logs = Logs::in_folder(&folder.path().join("logs"), 1 << 20, Redactor::default()).unwrap();
        let log = logs.open(&"bld-1".parse().unwrap()).await.unwrap();
        let buildah = Buildah {
            program: tool("buildah").unwrap().to_string_lossy().into_owned(),
            isolation: "chroot".into(),
            storage_driver: "vfs".into(),
            search_registries: vec![],
            auth: Default::default(),
            insecure: vec![],
        };
        Self {
            folder,
            workspace,
            log,
            buildah,
        }
    }

    fn context(&self, dockerfile: &str) -> PathBuf {
        let context = self.folder.path().join("context");
        fs::create_dir_all(&context).unwrap();
        fs::copy(static_binary(PROGRAM, &[]).unwrap(), context.join("program")).unwrap();
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context
    }

    async fn build(
        &self,
        dockerfile: &str,
        cancelled: &CancellationToken,
    ) -> Result<(Attempt, PathBuf, Digest), Stop> {
        let context = self.context(dockerfile);
        let id: Id = "bld-1".parse().unwrap();
        let attempt = self.workspace.attempt(&id).unwrap();
        let image = attempt.path().join("image");
        let job = Job {
            context: &context,
            dockerfile: &context.join("Dockerfile"),
            target: "",
            arguments: &BTreeMap::from([("VERSION".into(), "1.2.3".into())]),
            labels: &BTreeMap::from([("dev.slipway.build".into(), "bld-1".into())]),
            created: "2026-01-31T12:00:00Z".parse::<Timestamp>().unwrap(),
            image: &image,
            attempt: &attempt,
            log: &self.log,
            cancelled,
        };
        let digest = self.buildah.build(job).await?;
        Ok((attempt, image, digest))
    }
}

const GOOD: &str = "FROM scratch\nARG VERSION\nLABEL version=$VERSION\nCOPY program /program\nRUN [\"/program\", \"hello\"]\nENTRYPOINT [\"/program\"]\n";

#[tokio::test]
async fn an_image_is_built_twice_alike_pushed_and_named() {
    let bed = Bed::new().await;
    let never = CancellationToken::new();
    let (_first, folder, digest) = bed.build(GOOD, &never).await.unwrap();
    let (_second, _, again) = bed.build(GOOD, &never).await.unwrap();
    assert_eq!(digest, again, "the same build has the same digest");
    assert!(
        bed.log.tail().iter().any(|line| line == "running hello"),
        "{:?}",
        bed.log.tail()
    );
    let image = Image::open(&folder).unwrap();
    let labels = image.labels().unwrap();
    assert_eq!(
        (labels["version"].as_str(), labels["dev.slipway.build"].as_str()),
        ("1.2.3", "bld-1")
    );

    let server = TestRegistry::start().await.unwrap();
    let layout = bed.folder.path().join("images");
    let registries: [(Arc<dyn Registry>, String); 2] = [
        (
            Arc::new(Oci::new(Transport::Http, None, None).unwrap()),
            server.image("team/app"),
        ),
        (Arc::new(OciLayout::new(layout.clone())), "team/app".to_owned()),
    ];
    let (one, other): (Tag, Tag) = ("1a2b3c4".parse().unwrap(), "main".parse().unwrap());
    for (registry, name) in registries {
        let name: ImageName = name.parse().unwrap();
        assert_eq!(registry.inspect(&name, &one).await.unwrap(), None);
        assert!(!registry.has(&name, &digest).await.unwrap());
        assert!(
            registry.tag(&name, &digest, &one).await.is_err(),
            "nothing to name yet"
        );
        for _ in 0..2 {
            registry.push(&name, &image).await.unwrap();
            assert_eq!(
                registry.inspect(&name, &one).await.unwrap(),
                None,
                "pushing names nothing"
            );
        }
        assert!(registry.has(&name, &digest).await.unwrap());
        for tag in [&one, &other, &one] {
            registry.tag(&name, &digest, tag).await.unwrap();
            let found = registry.inspect(&name, tag).await.unwrap().unwrap();
            assert_eq!(
                (found.digest, found.labels["dev.slipway.build"].as_str()),
                (digest.clone(), "bld-1")
            );
        }
    }
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("team/app/index.json")).unwrap()).unwrap();
    let names: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str())
        .collect();
    assert_eq!(names, [None, Some("main"), Some("1a2b3c4")]);
    assert_eq!(
        fs::read_to_string(layout.join("team/app/oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
    let blobs = image.blobs().all(|blob| image.blob_file(blob).unwrap().exists());
    assert!(blobs);
    // Someone who makes room by hand takes the image away, whatever the index says.
    let folder = OciLayout::new(layout.clone());
    let name: ImageName = "team/app".parse().unwrap();
    let hex = image
        .blobs()
        .next()
        .unwrap()
        .digest
        .trim_start_matches("sha256:")
        .to_owned();
    fs::remove_file(layout.join("team/app/blobs/sha256").join(hex)).unwrap();
    assert!(!folder.has(&name, &digest).await.unwrap());
}

#[tokio::test]
async fn a_dockerfile_that_fails_says_why() {
    let bed = Bed::new().await;
    let never = CancellationToken::new();
    let error = bed
        .build("FROM scratch\nCOPY program /p\nRUN [\"/p\", \"fail\"]\n", &never)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some((codes::BUILD_FAILED, false)), "{error:?}");
    assert!(
        bed.log.tail().iter().any(|line| line.contains("cannot go on")),
        "{:?}",
        bed.log.tail()
    );
    let error = bed
        .build("FROM scratch\nCOPY absent /p\n", &never)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Stop::Fault(Fault::Permanent(reason)) if reason.message.contains("absent")),
        "{error:?}"
    );
    let error = bed.build("NONSENSE\n", &never).await.unwrap_err();
    assert_eq!(error.kind(), Some((codes::BUILD_FAILED, false)), "{error:?}");
    // No server listens there: a network fault, not the Dockerfile's.
    let error = bed.build("FROM 127.0.0.1:1/base:1\n", &never).await.unwrap_err();
    assert_eq!(
        error.kind(),
        Some((codes::BASE_IMAGE_UNAVAILABLE, true)),
        "{error:?}"
    );
}

#[tokio::test]
async fn cancelling_kills_what_the_dockerfile_runs() {
    let bed = Bed::new().await;
    let cancelled = CancellationToken::new();
    let log = bed.log.clone();
    let stop = async {
        while !log.tail().iter().any(|line| line == "running sleep") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        cancelled.cancel();
    };
    let build = bed.build(
        "FROM scratch\nCOPY program /p\nRUN [\"/p\", \"sleep\"]\n",
        &cancelled,
    );
    let (outcome, ()) = tokio::join!(build, stop);
    assert!(matches!(outcome, Err(Stop::Cancelled)));
    let root = bed.folder.path().canonicalize().unwrap();
    let left = fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|process| {
            fs::read_link(process.path().join("root")).is_ok_and(|link| link.starts_with(&root))
        });
    assert_eq!(left.count(), 0, "a process of the build is left");
}

#[tokio::test]
async fn registries_that_refuse_are_told_from_those_that_are_away() {
    let bed = Bed::new().await;
    let (_attempt, folder, digest) = bed
        .build("FROM scratch\nCOPY program /p\n", &CancellationToken::new())
        .await
        .unwrap();
    let image = Image::open(&folder).unwrap();
    let server = TestRegistry::start_with(Access::ReadOnly).await.unwrap();
    let name: ImageName = server.image("team/app").parse().unwrap();
    let tag: Tag = "x".parse().unwrap();
    let open = || Oci::new(Transport::Http, None, None).unwrap();
    let with = |password: &str| {
        let credential = (TestRegistry::USER.to_owned(), password.to_owned());
        Oci::new(Transport::Http, None, Some(credential)).unwrap()
    };
    let refused = |result: Result<(), Fault<Reason>>| {
        assert!(
            matches!(&result, Err(Fault::Permanent(reason)) if reason.code == codes::REGISTRY_REFUSED),
            "{result:?}"
        );
    };

    refused(open().push(&name, &image).await);
    server.restart(Access::Password).await.unwrap();
    refused(open().push(&name, &image).await);
    refused(with("wrong-password").push(&name, &image).await);
    refused(open().inspect(&name, &tag).await.map(drop));
    let good = with(TestRegistry::PASSWORD);
    good.push(&name, &image).await.unwrap();
    good.tag(&name, &digest, &tag).await.unwrap();
    assert_eq!(good.inspect(&name, &tag).await.unwrap().unwrap().digest, digest);
    assert!(!format!("{good:?}").contains(TestRegistry::PASSWORD));

    server.stop().await;
    let away = open().push(&name, &image).await;
    assert!(matches!(&away, Err(fault) if fault.is_transient()), "{away:?}");
    // TLS against a plain server cannot work, and says so at once.
    server.restart(Access::Open).await.unwrap();
    let tls = Oci::new(Transport::Https, None, None).unwrap();
    assert!(matches!(
        tls.push(&name, &image).await,
        Err(Fault::Transient { .. })
    ));
}

#[tokio::test]
async fn writers_of_one_layout_do_not_lose_each_others_tags() {
    let bed = Bed::new().await;
    let (_attempt, folder, digest) = bed
        .build("FROM scratch\nCOPY program /p\n", &CancellationToken::new())
        .await
        .unwrap();
    let image = Image::open(&folder).unwrap();
    let registry = OciLayout::new(bed.folder.path().join("images"));
    let name: ImageName = "team/app".parse().unwrap();
    let writers = (0..16).map(|number| {
        let (registry, name, image, digest) = (registry.clone(), name.clone(), image.clone(), digest.clone());
        async move {
            registry.push(&name, &image).await.unwrap();
            registry
                .tag(&name, &digest, &format!("t{number}").parse().unwrap())
                .await
                .unwrap();
        }
    });
    futures::future::join_all(writers).await;
    for number in 0..16 {
        let tag = format!("t{number}").parse().unwrap();
        assert_eq!(
            registry.inspect(&name, &tag).await.unwrap().unwrap().digest,
            digest
        );
    }
    let refused = registry.push(&"team/blobs".parse().unwrap(), &image).await;
    assert!(
        matches!(&refused, Err(Fault::Permanent(reason)) if reason.code == codes::REGISTRY_REFUSED),
        "{refused:?}"
    );
}
