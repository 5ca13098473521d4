//! Makes an OCI image layout of the test application (image-spec 1.1).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use slipway_model::Digest;

/// Compiles the application into `folder` and tells where it is.
pub(crate) fn compile(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/app.rs");
    let binary = folder.join("app");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "opt-level=1",
            "-o",
        ])
        .arg(&binary)
        .arg(&source)
        .output()
        .expect("rustc runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    binary
}

/// Puts an image of the binary into `root/name`; `label` makes it another digest.
pub(crate) fn write(root: &Path, name: &str, binary: &Path, label: &str) -> Digest {
    let layout = root.join(name);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let hex = hex::encode(Sha256::digest(bytes));
        fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        json!({"digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(binary, "app").unwrap();
    let layer = archive.into_inner().unwrap();
    let mut layer = blob(&layer);
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/app"], "Labels": {"test": label}},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let mut config = blob(config.to_string().as_bytes());
    layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = blob(manifest.to_string().as_bytes());
    manifest["mediaType"] = json!(kind);
    let digest = manifest["digest"].as_str().unwrap().parse().unwrap();

    let path = layout.join("index.json");
    let mut index: Value = fs::read(&path)
        .map(|bytes| serde_json::from_slice(&bytes).unwrap())
        .unwrap_or_else(|_| json!({"schemaVersion": 2, "manifests": []}));
    index["manifests"].as_array_mut().unwrap().push(manifest);
    fs::write(path, index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    digest
}

/// Points a tag of `root/name` to one of its images; no longer to another one.
pub(crate) fn tag(root: &Path, name: &str, tag: &str, digest: &Digest) {
    const NAME: &str = "org.opencontainers.image.ref.name";
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let path = root.join(name).join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let all = index["manifests"].as_array_mut().unwrap();
    all.retain(|one| one["annotations"][NAME] != tag);
    let mut tagged = all
        .iter()
        .find(|one| one["digest"] == digest.as_str())
        .unwrap()
        .clone();
    tagged["annotations"] = json!({NAME: tag});
    all.push(tagged);
    let new = path.with_extension(format!("{tag}.new"));
    fs::write(&new, index.to_string()).unwrap();
    fs::rename(new, path).unwrap();
}
