//! The manifests in a checkout of a GitOps repository, as far as they can be read without rendering them: a folder's own
//! files, or what its kustomization names, with its bases and patches.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The names that kustomize looks for.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The objects of a folder or file. What is not YAML, such as a chart's templates, is left out.
pub(super) fn objects(path: &Path) -> Vec<Value> {
    let (mut seen, mut objects) = (BTreeSet::new(), Vec::new());
    collect(path, &mut seen, &mut objects);
    objects
}

fn collect(path: &Path, seen: &mut BTreeSet<PathBuf>, objects: &mut Vec<Value>) {
    let Ok(path) = path.canonicalize() else { return };
    if !seen.insert(path.clone()) {
        return;
    }
    if path.is_file() {
        objects.extend(documents(&path));
        return;
    }
    let mut kustomizations = KUSTOMIZATIONS.iter().map(|name| path.join(name));
    match kustomizations.find(|file| file.is_file()) {
        Some(file) => {
            for named in documents(&file).iter().flat_map(named) {
                collect(&path.join(named), seen, objects);
            }
        }
        None => {
            for file in fs::read_dir(&path).into_iter().flatten().flatten() {
                let file = file.path();
                let yaml = file.extension().is_some_and(|end| end == "yaml" || end == "yml");
                if yaml && file.is_file() {
                    collect(&file, seen, objects);
                }
            }
        }
    }
}

fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    serde_saphyr::from_multiple(&text).unwrap_or_default()
}

/// What a kustomization names: resources, bases, components and files with patches.
fn named(kustomization: &Value) -> Vec<String> {
    let list = |key: &str| kustomization.get(key).and_then(Value::as_array).cloned();
    let keys = ["resources", "bases", "components", "patchesStrategicMerge"];
    let paths = keys.into_iter().filter_map(list).flatten();
    let patches = list("patches").into_iter().flatten();
    let patches = patches.filter_map(|patch| patch.get("path").cloned());
    paths
        .chain(patches)
        .filter_map(|path| path.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn a_folder_has_what_its_kustomization_names_or_its_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "base/kustomization.yaml",
            "resources: [rollout.yaml, missing.yaml]\n",
        );
        write("base/rollout.yaml", "kind: Rollout\n---\nkind: Service\n");
        write("base/not-named.yaml", "kind: Secret\n");
        write(
            "prod/kustomization.yml",
            "resources: [../base, https://git.example/remote]\npatches: [{path: steps.yaml}, {target: {kind: Rollout}, patch: '[]'}]\n",
        );
        write("prod/steps.yaml", "kind: Patch\n");
        write("plain/a.yaml", "kind: Canary\n");
        write("plain/chart.yaml", "{{ not yaml }}: [\n");
        let kinds = |folder: &str| {
            let objects = objects(&root.path().join(folder));
            let kinds = objects.iter().filter_map(|object| object["kind"].as_str());
            kinds.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(kinds("prod"), ["Rollout", "Service", "Patch"]);
        assert_eq!(kinds("plain"), ["Canary"]);
        assert_eq!(kinds("absent"), [""; 0]);
    }
}
