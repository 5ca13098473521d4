//! What Helm reads to render a chart with one file of values: everything in the chart's folder, and the charts
//! elsewhere in the repository that it depends on.

use std::collections::BTreeMap;

use super::{At, Chart, Counts, Inputs, Listing, NotHere, add, below, fields, images, items};
use crate::{
    Read,
    bases::join,
    path::Folder,
    yaml::{self, Node},
};

/// What makes a folder a chart.
const CHART: &str = "Chart.yaml";
/// The values that a chart has always.
const VALUES: &str = "values.yaml";
/// Where charts of the older format name what they depend on.
const REQUIREMENTS: &str = "requirements.yaml";
/// Where a chart keeps what it depends on.
const VENDORED: &str = "charts";

/// What is read to render the chart that a file of values belongs to: the nearest one, of the file's own folder and
/// those above it.
///
/// # Errors
/// The outer error: the source failed. The inner one: the chart does not exist, or needs something outside the repository.
pub(super) fn inputs<L: Listing>(file: &str, listing: &L) -> Result<Result<Inputs, NotHere>, L::Error> {
    let mut folder = file;
    while !folder.is_empty() {
        folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = below(folder, CHART);
        match listing.at(&path)? {
            At::File(_) => return of(folder, file, listing),
            At::Elsewhere(why) => return Ok(Err(NotHere(format!("{path} {why}")))),
            At::Folder | At::Absent => {}
        }
    }
    Ok(Err(NotHere(format!(
        "{file}: there is no chart in its folder or above it, and others are not rendered here"
    ))))
}

fn of<L: Listing>(folder: &str, file: &str, listing: &L) -> Result<Result<Inputs, NotHere>, L::Error> {
    let shown = match folder {
        "" => "the root folder",
        folder => folder,
    };
    let not_here = |why: &str| Ok(Err(NotHere(format!("{shown} cannot be rendered here: {why}"))));
    let Ok(place) = folder.parse::<Folder>() else {
        return not_here("its path is not a plain one");
    };
    let own = below(folder, VALUES);
    let mut reading = Reading {
        listing,
        files: BTreeMap::new(),
        dependencies: Vec::new(),
    };
    if let Err(NotHere(why)) = reading.folder(folder, &[own.as_str(), file])? {
        return not_here(&why);
    }
    for name in [CHART, REQUIREMENTS] {
        let Some(text) = text(&below(folder, name), listing)? else {
            continue;
        };
        // Helm itself says what is wrong with one that cannot be read.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let Ok(stream) = yaml::parse(text) else { continue };
        for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
            if name == CHART && said(root, "type") == Some("library") {
                return not_here("a library chart is rendered only as a part of what uses it");
            }
            for dependency in fields(root, "dependencies").flat_map(items) {
                if let Err(NotHere(why)) = reading.dependency(folder, dependency)? {
                    return not_here(&why);
                }
            }
        }
    }
    let is_chart = [own, below(folder, CHART), below(folder, REQUIREMENTS)]
        .iter()
        .any(|own| own == file);
    Ok(Ok(Inputs {
        folder: place,
        chart: Some(Chart {
            values: (!is_chart).then(|| file.to_owned()),
            dependencies: reading.dependencies,
        }),
        files: reading.files,
    }))
}

struct Reading<'a, L> {
    listing: &'a L,
    files: BTreeMap<String, Counts>,
    dependencies: Vec<(String, String)>,
}

impl<L: Listing> Reading<'_, L> {
    /// Everything in a folder. The images in `values` do not count.
    fn folder(&mut self, folder: &str, values: &[&str]) -> Result<Result<(), NotHere>, L::Error> {
        let mut pending = vec![folder.to_owned()];
        while let Some(folder) = pending.pop() {
            for (name, at) in self.listing.within(&folder)? {
                let path = below(&folder, &name);
                match at {
                    At::File(id) => {
                        let text = match values.contains(&path.as_str()) {
                            true => text(&path, self.listing)?,
                            false => None,
                        };
                        let without_images = text.as_deref().and_then(images::without_images_of_values);
                        if let Err(why) = add(&mut self.files, &path, Counts { id, without_images }) {
                            return Ok(Err(why));
                        }
                    }
                    At::Folder => pending.push(path),
                    At::Elsewhere(why) => return Ok(Err(NotHere(format!("{path} {why}")))),
                    At::Absent => {}
                }
            }
        }
        Ok(Ok(()))
    }

    /// Everything in the folder of a chart elsewhere in the repository. One that is where Helm looks for it has been
    /// read, and of others Helm says that they are missing.
    fn dependency(&mut self, chart: &str, dependency: &Node) -> Result<Result<(), NotHere>, L::Error> {
        let (name, repository) = (said(dependency, "name"), said(dependency, "repository"));
        let (Some(name), Some(path)) = (name, repository.and_then(|url| url.strip_prefix("file://"))) else {
            return Ok(Ok(()));
        };
        let vendored = below(chart, VENDORED);
        let packed = format!("{name}-");
        let is_packed = |file: &str| file.starts_with(&packed) && file.ends_with(".tgz");
        let there = self.listing.within(&vendored)?;
        if there.iter().any(|(file, _)| file == name || is_packed(file)) {
            return Ok(Ok(()));
        }
        let elsewhere = |why: &str| Ok(Err(NotHere(format!("its dependency {name} ({path}) {why}"))));
        // It becomes a folder.
        let is_plain = name
            .parse::<Folder>()
            .is_ok_and(|_| !name.is_empty() && !name.contains('/'));
        let Some(folder) = join(chart, path).filter(|_| is_plain) else {
            return elsewhere("is not in this repository");
        };
        if !matches!(self.listing.at(&below(&folder, CHART))?, At::File(_)) {
            return elsewhere("is not a chart in this repository");
        }
        let found = (folder, below(&vendored, name));
        if !self.dependencies.contains(&found) {
            if let Err(why) = self.folder(&found.0, &[])? {
                return Ok(Err(why));
            }
            self.dependencies.push(found);
        }
        Ok(Ok(()))
    }
}

fn text<L: Listing>(path: &str, listing: &L) -> Result<Option<String>, L::Error> {
    Ok(match listing.read(path)? {
        Read::Text(text) => Some(text),
        _ => None,
    })
}

fn said<'a>(node: &'a Node, key: &'a str) -> Option<&'a str> {
    fields(node, key).next().and_then(Node::scalar)
}
