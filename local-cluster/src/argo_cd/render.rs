//! From the files of a commit to the objects they describe: kustomize if there is a kustomization, otherwise plain YAML
//! and JSON.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::argo_cd::git::run;
use crate::object::{self, text};

const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// The maximum size of one manifest file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The objects of the folder `path` below `root`.
///
/// # Errors
/// When the folder is missing or leads outside, and when something in it cannot be read.
pub(crate) async fn render(root: &Path, path: &str) -> Result<Vec<Value>, String> {
    let relative = Path::new(path);
    let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(inside) {
        return Err(format!("{path}: app path points outside the repository"));
    }
    let folder = root.join(relative);
    if !folder.is_dir() {
        return Err(format!("{path}: app path does not exist"));
    }
    let text = if KUSTOMIZATIONS.iter().any(|name| folder.join(name).is_file()) {
        kustomize(&folder).await?
    } else {
        return plain(&folder);
    };
    documents(&text).map_err(|error| format!("failed to unmarshal manifest: {error}"))
}

/// Whether the folder is built by kustomize.
pub(crate) fn is_kustomization(root: &Path, path: &str) -> bool {
    KUSTOMIZATIONS
        .iter()
        .any(|name| root.join(path).join(name).is_file())
}

/// kustomize itself if installed, otherwise the one in kubectl.
async fn kustomize(folder: &Path) -> Result<String, String> {
    let own = run(Command::new("kustomize").arg("build").arg(folder)).await;
    let output = match own {
        Err(error) if error.contains("cannot be run") => {
            run(Command::new("kubectl").arg("kustomize").arg(folder)).await?
        }
        other => other?,
    };
    String::from_utf8(output).map_err(|error| error.to_string())
}

fn plain(folder: &Path) -> Result<Vec<Value>, String> {
    let listed = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut files: Vec<PathBuf> = listed.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.is_file()
            && matches!(
                file.extension().and_then(|e| e.to_str()),
                Some("yaml" | "yml" | "json")
            )
    });
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let unreadable = |error: String| format!("Failed to unmarshal \"{name}\": {error}");
        let size = file
            .metadata()
            .map_err(|error| unreadable(error.to_string()))?
            .len();
        if size > MAX_FILE_BYTES {
            return Err(unreadable(format!("larger than {MAX_FILE_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(&file).map_err(|error| unreadable(error.to_string()))?;
        objects.extend(documents(&text).map_err(unreadable)?);
    }
    Ok(objects)
}

/// The objects of a YAML stream; lists are split into their items.
fn documents(stream: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    let values: Vec<Value> = serde_saphyr::from_multiple(stream).map_err(|error| error.to_string())?;
    for value in values.into_iter().filter(|value| !value.is_null()) {
        match value["items"].as_array() {
            Some(items) if text_of(&value, "kind").ends_with("List") => objects.extend(items.iter().cloned()),
            _ => objects.push(value),
        }
    }
    for object in &objects {
        if text_of(object, "kind").is_empty() || text_of(object, "apiVersion").is_empty() {
            return Err("Object 'Kind' is missing".to_owned());
        }
        if object::name(object).is_empty() && text(object, &["metadata", "generateName"]).is_empty() {
            return Err(format!("{} without a name", text_of(object, "kind")));
        }
    }
    Ok(objects)
}

fn text_of<'a>(object: &'a Value, field: &str) -> &'a str {
    text(object, &[field])
}
