//! Files of a commit in a folder of their own, and that nothing leads out of it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;
use slipway_edit::{BUILT_ON, CONTENT, KUSTOMIZATION_NAMES, MAX_FILE_BYTES, PLUGINS};

use crate::backends::repository::Leaf;

/// Writes one file or link. The path comes from a git tree, whose names do not contain a slash; still, only plain names
/// are followed, and nothing is written through a link.
pub(super) fn write_leaf(
    root: &Path,
    path: &str,
    leaf: Leaf,
    links: &std::sync::Mutex<Vec<PathBuf>>,
) -> std::io::Result<()> {
    let relative = Path::new(path);
    if !relative
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
    {
        return Ok(());
    }
    let file = root.join(relative);
    match leaf {
        Leaf::File(data) => {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&file, data)
        }
        Leaf::Link(target) => {
            use std::os::unix::ffi::OsStringExt as _;
            // Created when all files exist, so that no file is written through one.
            let mut links = links.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            links.push(file);
            links.push(PathBuf::from(std::ffi::OsString::from_vec(target)));
            Ok(())
        }
    }
}

/// Creates the links, pairs of place and target, and omits those that lead out of the folder or nowhere.
pub(super) fn drop_outside_links(root: &Path, links: &[PathBuf]) {
    let mut made = Vec::new();
    for pair in links.chunks_exact(2) {
        let [place, target] = pair else { continue };
        if target.is_absolute()
            || place
                .parent()
                .is_none_or(|folder| std::fs::create_dir_all(folder).is_err())
        {
            continue;
        }
        if std::os::unix::fs::symlink(target, place).is_ok() {
            made.push(place);
        }
    }
    for place in made {
        if !place.canonicalize().is_ok_and(|real| real.starts_with(root)) {
            let _ = std::fs::remove_file(place);
        }
    }
}

/// What is done about a file or folder that a kustomization names and that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It may be an address.
    Refused,
    /// Everything was looked at before, so that it is not an address: kustomize itself says what is missing.
    LeftToKustomize,
}

/// Follows a kustomization to everything that it uses.
pub(super) fn confine(root: &Path, folder: &Path, absent: Absent) -> Result<(), String> {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mut pending = vec![folder.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(place) = pending.pop() {
        let real = place
            .canonicalize()
            .map_err(|_| format!("{} is not there", shown(&place)))?;
        if !real.starts_with(root) {
            return Err(format!("{} points outside the repository", shown(&place)));
        }
        if !seen.insert(real.clone()) {
            continue;
        }
        let files: Vec<PathBuf> = if real.is_dir() {
            KUSTOMIZATION_NAMES
                .iter()
                .map(|name| real.join(name))
                .filter(|file| file.exists())
                .collect()
        } else {
            continue;
        };
        for file in files {
            if !file.canonicalize().is_ok_and(|file| file.starts_with(root)) {
                return Err(format!("{} points outside the repository", shown(&file)));
            }
            let value = read_yaml(&file).map_err(|error| format!("{}: {error}", shown(&file)))?;
            for key in BUILT_ON {
                for text in value
                    .get(key)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    // An inline transformer or generator.
                    if text.contains('\n') {
                        no_network(&Value::from(text), &shown(&file))?;
                        continue;
                    }
                    let target = real.join(text);
                    if absent == Absent::LeftToKustomize && !Path::new(text).is_absolute() && !target.exists()
                    {
                        continue;
                    }
                    if Path::new(text).is_absolute() || !target.exists() {
                        return Err(format!(
                            "{}: {key}: {text} is not in the repository at this commit; remote bases and files are not fetched",
                            shown(&file)
                        ));
                    }
                    let target = target
                        .canonicalize()
                        .map_err(|error| format!("{}: {error}", shown(&target)))?;
                    if target.is_file() && PLUGINS.contains(&key) {
                        let text = std::fs::read_to_string(&target).unwrap_or_default();
                        no_network(&Value::from(text), &shown(&target))?;
                    }
                    pending.push(target);
                }
            }
            no_network(&value, &shown(&file))?;
        }
    }
    Ok(())
}

/// Refuses every text that could be interpreted as the address of a file or folder to fetch.
fn no_network(value: &Value, file: &str) -> Result<(), String> {
    match value {
        Value::String(text) => {
            // A whole inline configuration is scanned line by line.
            let address = text.lines().any(|line| {
                let line = line.to_ascii_lowercase();
                ["http://", "https://", "git::", "ssh://", "file://", "git@"]
                    .iter()
                    .any(|scheme| line.contains(scheme))
            });
            if address {
                let shown: String = text
                    .lines()
                    .find(|line| line.contains(':'))
                    .unwrap_or_default()
                    .chars()
                    .take(120)
                    .collect();
                return Err(format!("{file}: {shown}: remote bases and files are not fetched"));
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| no_network(item, file)),
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !CONTENT.contains(&key.as_str()))
            .try_for_each(|(_, value)| no_network(value, file)),
        _ => Ok(()),
    }
}

fn read_yaml(file: &Path) -> Result<Value, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES as u64 {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| error.without_snippet().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Absent, confine, drop_outside_links};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    fn check(kustomization: &str) -> Result<(), String> {
        let folder = folder(&[
            ("app/kustomization.yaml", kustomization),
            ("app/d.yaml", "kind: Deployment\n"),
            ("base/kustomization.yaml", "resources: [x.yaml]\n"),
            ("base/x.yaml", ""),
            ("bad/kustomization.yaml", "resources: [github.com/a/b?ref=main]\n"),
        ]);
        let root = folder.path().canonicalize().unwrap();
        confine(&root, &root.join("app"), Absent::Refused)
    }

    #[test]
    fn only_what_is_in_the_repository_is_used() {
        for good in [
            "resources: [d.yaml, ../base]",
            "commonAnnotations: {docs: 'https://example.com'}",
            "configMapGenerator: [{name: a, literals: ['URL=https://example.com']}]",
            "patches: [{patch: 'x: https://example.com'}]",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "resources: [github.com/a/b?ref=main]",
            "resources: ['https://example.com/x.yaml']",
            "resources: ['git@example.com:a/b']",
            "resources: [/etc]",
            "resources: [../../..]",
            "components: [../bad]",
            "patches: [{path: 'https://example.com/x.yaml'}]",
            "configMapGenerator: [{name: a, files: ['k=https://example.com/x']}]",
            "openapi: {path: 'http://example.com/x'}",
            "transformers: ['kind: PatchTransformer\n\npath: http://example.com/x\n\n']",
        ] {
            assert!(check(&bad.replace("\\n", "\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_that_lead_out_are_left_out() {
        let folder = folder(&[("a/b/file", "x"), ("d1/d2/file", "y")]);
        let root = folder.path().canonicalize().unwrap();
        let pair = |place: &str, target: &str| [root.join(place), Path::new(target).to_owned()];
        let links = [
            pair("in", "a/b/file"),
            pair("out", "../outside"),
            pair("abs", "/etc/passwd"),
            pair("dangling", "nothing"),
            // Lexically inside, but outside once the first link is followed.
            pair("a/up", "../d1"),
            pair("sly", "a/up/../.."),
        ]
        .concat();
        drop_outside_links(&root, &links);
        assert!(root.join("in").exists());
        for gone in ["out", "abs", "dangling", "sly"] {
            assert!(root.join(gone).symlink_metadata().is_err(), "{gone}");
        }
    }
}
