//! What is read to render a folder.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inputs, NotHere, inputs, rendered, renders};
use crate::{Edit, HelmImage, KustomizeImage, ManifestImage, NewImage};

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

fn of(folder: &str, files: &BTreeMap<String, String>) -> Result<Inputs, NotHere> {
    let Ok(found) = inputs(&folder.parse().unwrap(), &BTreeSet::new(), files);
    found
}

fn shop(overlay: &str) -> BTreeMap<String, String> {
    files(&[
        ("apps/shop/dev/kustomization.yaml", overlay),
        ("apps/shop/dev/patch.yaml", "kind: Deployment\n"),
        ("apps/shop/dev/app.env", "A=1\n"),
        ("apps/shop/dev/unused.yaml", "kind: Service\n"),
        (
            "apps/shop/dev/prefix.yaml",
            "apiVersion: builtin\nkind: PatchTransformer\npath: patch.yaml\n",
        ),
        (
            "apps/shop/dev/ksops.yaml",
            "apiVersion: viaduct.ai/v1\nkind: ksops\n",
        ),
        (
            "apps/shop/base/kustomization.yaml",
            "resources: [deployment.yaml, ../missing.yaml]\n",
        ),
        (
            "apps/shop/base/deployment.yaml",
            "kind: Deployment\nimage: shop:1\n",
        ),
        ("apps/shop/part/kustomization.yaml", "kind: Component\n"),
    ])
}

#[test]
fn everything_that_is_named_is_read() {
    let overlay = "resources: [../base]\ncomponents: [../part]\npatches: [{path: patch.yaml}]\n\
                   configMapGenerator: [{name: a, envs: [app.env], literals: [a=unused.yaml]}]\n";
    let found = of("apps/shop/dev", &shop(overlay)).unwrap();
    assert_eq!(
        found.paths().collect::<Vec<_>>(),
        [
            "apps/shop/base/deployment.yaml",
            "apps/shop/base/kustomization.yaml",
            "apps/shop/dev/app.env",
            "apps/shop/dev/kustomization.yaml",
            "apps/shop/dev/patch.yaml",
            "apps/shop/part/kustomization.yaml",
        ]
    );
    let overlay = "secretGenerator: [{name: a, files: [key=app.env]}]\ntransformers: [prefix.yaml]\n";
    let found = of("apps/shop/dev", &shop(overlay)).unwrap();
    for file in ["app.env", "prefix.yaml", "patch.yaml"] {
        assert!(found.contains(&format!("apps/shop/dev/{file}")), "{file}");
    }
}

#[test]
fn what_needs_more_than_the_repository_says_what() {
    for (overlay, words) in [
        (
            "resources: ['https://example.com/x.yaml']",
            "is not in this repository",
        ),
        ("resources: [github.com/a/b//deploy?ref=main]", "github.com/a/b"),
        ("resources: ['git@example.com:a/b']", "git@example.com"),
        ("components: [../../../..]", "is not in this repository"),
        (
            "patches: [{path: 'https://example.com/x.yaml'}]",
            "https://example.com",
        ),
        ("helmCharts: [{name: x}]", "needs helm"),
        ("generators: [ksops.yaml]", "ksops is a program"),
        (
            "generators: ['{apiVersion: a/v1, kind: Exec}\n\n']",
            "Exec is a program",
        ),
    ] {
        let text = overlay.replace("\\n", "\n");
        let why = of("apps/shop/dev", &shop(&text)).unwrap_err();
        assert!(why.0.contains(words), "{overlay}: {why}");
        assert!(why.0.starts_with("apps/shop/dev/"), "{overlay}: {why}");
    }
    // kustomize says itself what is missing, and content is not an address.
    for overlay in [
        "resources: [missing.yaml]",
        "resources: [../nowhere]",
        "commonAnnotations: {docs: 'https://example.com'}",
        "configMapGenerator: [{name: a, literals: ['URL=https://example.com']}]",
        "patches: [{patch: 'x: https://example.com'}]",
    ] {
        assert!(of("apps/shop/dev", &shop(overlay)).is_ok(), "{overlay}");
    }
}

#[test]
fn the_values_of_images_do_not_count() {
    let key = |overlay: &str| of("apps/shop/dev", &shop(overlay)).unwrap().key();
    let images = "resources: [../base]\nimages:\n- name: shop # ours\n";
    let one = key(&format!("{images}  newTag: v1\n"));
    for same in ["v2", "'1.10'", "\"1.10\""] {
        assert_eq!(key(&format!("{images}  newTag: {same}\n")), one, "{same}");
    }
    // A number, which kustomize refuses; another field; another image.
    for other in [
        "newTag: 1.10",
        "newTag: yes",
        "digest: v1",
        "newTag: v1\n- name: b\n  newTag: v1",
    ] {
        assert_ne!(key(&format!("{images}  {other}\n")), one, "{other}");
    }
    // A replacement may look at the tag.
    let takes = format!("replacements: []\n{images}");
    assert_ne!(
        key(&format!("{takes}  newTag: v1\n")),
        key(&format!("{takes}  newTag: v2\n"))
    );
}

#[test]
fn a_file_belongs_to_the_nearest_kustomization_that_reads_it() {
    let find = |file: &str, files: &BTreeMap<String, String>| {
        let edited = BTreeSet::from([file.to_owned()]);
        let Ok(found) = renders(file, &edited, files);
        found
    };
    let shop = shop("resources: [../base]");
    let base = find("apps/shop/base/deployment.yaml", &shop).unwrap().unwrap();
    assert_eq!(base.folder.as_str(), "apps/shop/base");
    assert_eq!(find("apps/shop/dev/unused.yaml", &shop), Ok(None));
    let above = files(&[
        ("kustomization.yaml", "resources: [plain/a.yaml]\n"),
        ("plain/a.yaml", "kind: Pod\nspec: {containers: [{image: a:1}]}\n"),
    ]);
    let root = find("plain/a.yaml", &above).unwrap().unwrap();
    assert_eq!(root.folder.as_str(), "");
    let mut newer = above;
    newer.insert(
        "plain/a.yaml".to_owned(),
        "kind: Pod\nspec: {containers: [{image: a:2}]}\n".to_owned(),
    );
    assert_eq!(find("plain/a.yaml", &newer).unwrap().unwrap().key(), root.key());
    newer.insert(
        "plain/a.yaml".to_owned(),
        "kind: Pod\nspec: {containers: [{name: a}]}\n".to_owned(),
    );
    assert_ne!(find("plain/a.yaml", &newer).unwrap().unwrap().key(), root.key());
    let remote = files(&[
        (
            "a/kustomization.yaml",
            "resources: [d.yaml, 'https://example.com/x.yaml']\n",
        ),
        ("a/d.yaml", "kind: Pod\n"),
    ]);
    assert!(find("a/d.yaml", &remote).is_err());
}

#[test]
fn each_edit_says_what_is_to_be_rendered() {
    let shop = {
        let mut shop = shop("resources: [../base]\nimages: [{name: shop, newTag: v1}]\n");
        for (path, text) in [
            ("charts/shop/Chart.yaml", "name: shop\n"),
            // Charts have values that are called so.
            (
                "charts/shop/dev/values.yaml",
                "kind: Deployment\nimage: {tag: v1}\n",
            ),
            ("values/shop.yaml", "image: {tag: v1}\n"),
        ] {
            shop.insert(path.to_owned(), text.to_owned());
        }
        shop.insert("plain/pod.yaml".to_owned(), "kind: Pod\nimage: a:1\n".to_owned());
        shop
    };
    let to = || NewImage::new("", "v2", "").unwrap();
    let overlay = || Edit::KustomizeImage(KustomizeImage::new("apps/shop/dev", "shop", to()).unwrap());
    let plain = |file: &str| Edit::ManifestImage(ManifestImage::new(file, "", "shop", "", "", to()).unwrap());
    let values = |file: &str| Edit::HelmImage(HelmImage::new(file, "image", "", to()).unwrap());
    let folders = |edits: &[Edit]| {
        let Ok(found) = rendered(edits, &shop);
        let shown = found.into_iter().map(|found| match found {
            Ok(inputs) => inputs.folder.as_str().to_owned(),
            Err(why) => why.to_string(),
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        folders(&[
            overlay(),
            overlay(),
            plain("apps/shop/base/deployment.yaml"),
            values("charts/shop/dev/values.yaml"),
            values("values/shop.yaml"),
        ]),
        [
            "apps/shop/dev",
            "apps/shop/base",
            "charts/shop",
            "values/shop.yaml: there is no chart in its folder or above it, and others are not rendered here"
        ]
    );
    assert!(folders(&[plain("plain/pod.yaml"), Edit::Marker]).is_empty());
}

mod charts;
