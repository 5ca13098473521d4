//! The same requests to local-cluster and to a real Kubernetes, the answers compared field by field.
//!
//! `answers/` has what Kubernetes 1.20.2 answered, recorded with `SLIPWAY_TEST_KUBECONFIG` and `SLIPWAY_BLESS=1`.
//! local-cluster must answer the same but for what `differences.rs` lists with its reason. Against a real cluster this
//! test proves that what is recorded is still what that one says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod ask;
mod compare;
mod differences;
mod requests;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ask::Ask;
use local_cluster::{Cluster, Config};
use serde_json::Value;
use slipway_testbed::{Images, static_binary};

/// What runs in the pods: the program of the other tests.
const PROGRAM: &str = include_str!("../common/server.rs");

/// The cluster that is asked.
struct World {
    folder: tempfile::TempDir,
    local: Option<Cluster>,
    kubeconfig: PathBuf,
    image: String,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let given = std::env::var_os("SLIPWAY_TEST_KUBECONFIG").map(PathBuf::from);
        let image = match &given {
            None => "registry.example/answers".to_owned(),
            Some(_) => {
                let prefix = std::env::var("SLIPWAY_TEST_IMAGE_PREFIX").unwrap();
                format!("{}/answers", prefix.trim_end_matches('/'))
            }
        };
        let layout = folder.path().join("images/answers");
        let images = Images::new(layout, given.as_ref().map(|_| image.clone()));
        let program = static_binary(PROGRAM, &[]).unwrap();
        let digest = images
            .add(&program, &[("VERSION", "one"), ("PORT", "8080")])
            .unwrap();
        // A kubelet that has pulled a tag once does not ask for it again.
        let tag = format!("{:08x}", fastrand::u32(..));
        images.tag(&tag, &digest).await.unwrap();
        let (local, kubeconfig) = match given {
            Some(path) => (None, path),
            None => {
                let mut config = Config::new(folder.path().join("data"));
                config.image_layouts.push(folder.path().join("images"));
                config.shim = Some(env!("CARGO_BIN_EXE_local-cluster").into());
                config.back_off = Duration::from_secs(2);
                let local = Cluster::start(config).await.unwrap();
                let path = local.kubeconfig_path().to_owned();
                (Some(local), path)
            }
        };
        Self {
            folder,
            local,
            kubeconfig,
            image: format!("{image}:{tag}"),
        }
    }

    async fn end(self) {
        if let Some(local) = self.local {
            local.shutdown().await;
        }
        drop(self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_cluster_answers_as_kubernetes_does() {
    let world = World::start().await;
    let real = world.local.is_none();
    let recording = real && std::env::var_os("SLIPWAY_BLESS").is_some();
    let answers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/same_answers/answers");
    let mut found = Vec::new();
    for (topic, requests) in requests::TOPICS {
        let mut ask = Ask::new(&world.kubeconfig, &world.image, topic).await;
        requests(&mut ask).await;
        let given = ask.end().await;
        let file = answers.join(format!("{topic}.json"));
        if recording {
            fs::create_dir_all(&answers).unwrap();
            fs::write(&file, serde_json::to_string_pretty(&given).unwrap() + "\n").unwrap();
            continue;
        }
        let recorded =
            fs::read(&file).unwrap_or_else(|_| panic!("{topic}: nothing is recorded; see the module"));
        let recorded: Value = serde_json::from_slice(&recorded).unwrap();
        found.extend(compare::differences(topic, &recorded, &given));
    }
    world.end().await;
    let unexpected = match real {
        true => found.iter().map(ToString::to_string).collect(),
        false => differences::unexpected(&found),
    };
    let text = unexpected.join("\n");
    assert!(unexpected.is_empty(), "{} differences:\n{text}", unexpected.len());
}
