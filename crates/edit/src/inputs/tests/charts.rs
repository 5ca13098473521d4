//! What is read to render a chart.

use std::collections::BTreeMap;

use super::files;
use crate::{
    Chart, Inputs, Listing as _, NotHere,
    inputs::{At, chart},
};

fn of(file: &str, files: &BTreeMap<String, String>) -> Result<Inputs, NotHere> {
    let Ok(found) = chart::inputs(file, files);
    found
}

/// A chart with these lines at the end of its own file.
fn shop(lines: &str) -> BTreeMap<String, String> {
    let mut shop = files(&[
        ("charts/shop/templates/deployment.yaml", "{{ .Values.image }}"),
        (
            "charts/shop/values.yaml",
            "image: {repository: r.example/a, tag: v0}\n",
        ),
        ("charts/shop/values-dev.yaml", "image:\n  tag: v1\n"),
        ("charts/shop/envs/prod/values.yaml", "image:\n  tag: v1\n"),
        ("charts/shop/charts/own/Chart.yaml", "name: own\n"),
        ("charts/shop/charts/own/values.yaml", "image: {tag: v1}\n"),
        ("charts/shop/charts/packed-1.2.3.tgz", ""),
        ("charts/shopping/Chart.yaml", "name: shopping\n"),
        ("charts/common/Chart.yaml", "name: common\ntype: library\n"),
        ("charts/common/templates/_names.tpl", ""),
        ("lib/Chart.yaml", "name: lib\n"),
        ("elsewhere/values.yaml", "image: {tag: v1}\n"),
    ]);
    let text = format!("apiVersion: v2\nname: shop\nversion: 1.0.0\n{lines}");
    shop.insert("charts/shop/Chart.yaml".to_owned(), text);
    shop
}

#[test]
fn values_are_rendered_with_the_nearest_chart() {
    let shop = shop("");
    for (file, folder, values) in [
        ("charts/shop/values.yaml", "charts/shop", None),
        ("charts/shop/Chart.yaml", "charts/shop", None),
        (
            "charts/shop/values-dev.yaml",
            "charts/shop",
            Some("charts/shop/values-dev.yaml"),
        ),
        (
            "charts/shop/envs/prod/values.yaml",
            "charts/shop",
            Some("charts/shop/envs/prod/values.yaml"),
        ),
        (
            "charts/shop/charts/own/values.yaml",
            "charts/shop/charts/own",
            None,
        ),
    ] {
        let found = of(file, &shop).unwrap();
        assert_eq!(found.folder.as_str(), folder, "{file}");
        let chart = Chart {
            values: values.map(str::to_owned),
            dependencies: Vec::new(),
        };
        assert_eq!(found.chart, Some(chart), "{file}");
        let below = format!("{folder}/");
        let all = shop.keys().filter(|path| path.starts_with(&below));
        assert_eq!(
            found.paths().collect::<Vec<_>>(),
            all.collect::<Vec<_>>(),
            "{file}"
        );
    }
    let why = of("elsewhere/values.yaml", &shop).unwrap_err();
    assert!(
        why.0.contains("there is no chart in its folder or above it"),
        "{why}"
    );
    let root = files(&[("Chart.yaml", "name: a\n"), ("dev.yaml", "image: a:1\n")]);
    let found = of("dev.yaml", &root).unwrap();
    assert_eq!((found.folder.as_str(), found.paths().count()), ("", 2));
}

#[test]
fn charts_of_the_repository_are_put_where_helm_looks_for_them() {
    for (dependency, put) in [
        (
            "{name: common, version: 1.x, repository: 'file://../common'}",
            Some("charts/common"),
        ),
        (
            "{name: lib, repository: 'file://../../lib/', alias: other}",
            Some("lib"),
        ),
        // They are there, or Helm says that they are not.
        ("{name: own, repository: 'file://../common'}", None),
        ("{name: packed, repository: 'file://../common'}", None),
        ("{name: redis, repository: 'https://charts.example'}", None),
        ("{name: local, repository: ''}", None),
    ] {
        for file in ["Chart.yaml", "requirements.yaml"] {
            let mut shop = shop("");
            let text = format!("name: shop\ndependencies:\n- {dependency}\n");
            shop.insert(format!("charts/shop/{file}"), text);
            let found = of("charts/shop/values-dev.yaml", &shop).unwrap();
            let name = put.and_then(|put| put.rsplit('/').next()).unwrap_or_default();
            let expected = put.map(|put| (put.to_owned(), format!("charts/shop/charts/{name}")));
            let chart = found.chart.as_ref().unwrap();
            assert_eq!(chart.dependencies, Vec::from_iter(expected), "{dependency}");
            if let Some(put) = put {
                assert!(found.contains(&format!("{put}/Chart.yaml")), "{dependency}");
            }
        }
    }
}

#[test]
fn what_is_not_in_the_repository_is_said() {
    for (lines, words) in [
        (
            "dependencies: [{name: x, repository: 'file://../../../x'}]",
            "its dependency x (../../../x) is not in this repository",
        ),
        (
            "dependencies: [{name: x, repository: 'file:///etc'}]",
            "is not in this repository",
        ),
        (
            "dependencies: [{name: ../../x, repository: 'file://../common'}]",
            "is not in this repository",
        ),
        (
            "dependencies: [{name: .., repository: 'file://../common'}]",
            "is not in this repository",
        ),
        (
            "dependencies: [{name: x, repository: 'file://../nowhere'}]",
            "is not a chart in this repository",
        ),
        (
            "type: library",
            "a library chart is rendered only as a part of what uses it",
        ),
    ] {
        let why = of("charts/shop/values.yaml", &shop(lines)).unwrap_err();
        assert!(
            why.0.starts_with("charts/shop cannot be rendered here: "),
            "{lines}: {why}"
        );
        assert!(why.0.contains(words), "{lines}: {why}");
    }
    let mut large = shop("");
    for number in 0..2_000 {
        large.insert(format!("charts/shop/files/{number}"), String::new());
    }
    let why = of("charts/shop/values.yaml", &large).unwrap_err();
    assert!(why.0.contains("more than 2000 files"), "{why}");
}

#[test]
fn the_values_of_images_do_not_count() {
    let keys = |values: &str| {
        let mut shop = shop("");
        shop.insert("charts/shop/values-dev.yaml".to_owned(), values.to_owned());
        let found = of("charts/shop/values-dev.yaml", &shop).unwrap();
        (found.key(), found.exact_key())
    };
    let given = "image:\n  repository: r.example/a # ours\n  tag: v1\n  digest: ''\nimageTag: 'v1'\nside:\n- image: b:1\n";
    let (key, exact) = keys(given);
    for (from, to) in [
        ("tag: v1", "tag: v2"),
        ("tag: v1", "tag: '1.10'"),
        ("imageTag: 'v1'", "imageTag: \"1.10\""),
        ("image: b:1", "image: c/d:2"),
        ("r.example/a", "r.example/b"),
    ] {
        let (same, other) = keys(&given.replace(from, to));
        assert_eq!(same, key, "{to}");
        assert_ne!(other, exact, "{to}");
    }
    // Another type; a part added or removed; something else; what no image can be.
    for (from, to) in [
        ("tag: v1", "tag: 1.10"),
        ("tag: v1", "tag: yes"),
        ("tag: v1", "tag: ''"),
        ("tag: v1", "tag: v1@sha256:aa"),
        ("digest: ''", "digest: 'sha256:aa'"),
        ("image: b:1", "image: b"),
        ("image: b:1", "image: 'b@sha256:aa'"),
        ("side:", "sides:"),
        ("# ours", "# theirs"),
        ("tag: v1", "tag: 'a: b'"),
        ("tag: v1", "tag: '{{ x }}'"),
    ] {
        assert_ne!(keys(&given.replace(from, to)).0, key, "{to}");
    }
    // Templates may read any file of the chart.
    let mut other = shop("");
    other.insert("charts/shop/values-dev.yaml".to_owned(), given.to_owned());
    other.insert("charts/shop/notes.txt".to_owned(), String::new());
    assert_ne!(of("charts/shop/values-dev.yaml", &other).unwrap().key(), key);
    // And the same chart may be rendered with other values.
    let shop = shop("");
    let alone = of("charts/shop/values.yaml", &shop).unwrap();
    let dev = of("charts/shop/values-dev.yaml", &shop).unwrap();
    let prod = of("charts/shop/envs/prod/values.yaml", &shop).unwrap();
    assert!(alone.key() != dev.key() && dev.key() != prod.key());
    assert!(!alone.is_same_place(&dev) && dev.is_same_place(&dev) && !dev.is_same_place(&prod));
}

#[test]
fn folders_in_memory_are_listed() {
    let shop = shop("");
    let listed = |folder: &str| {
        let Ok(found) = shop.within(folder);
        found
            .into_iter()
            .map(|(name, at)| (name, matches!(at, At::Folder)))
            .collect::<Vec<_>>()
    };
    let named = |names: &[(&str, bool)]| {
        names
            .iter()
            .map(|(name, is)| ((*name).to_owned(), *is))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed(""),
        named(&[("charts", true), ("elsewhere", true), ("lib", true)])
    );
    assert_eq!(listed("lib"), named(&[("Chart.yaml", false)]));
    assert_eq!(listed("nowhere"), named(&[]));
}
