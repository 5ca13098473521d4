//! What is read to render a folder: which files, and what of their contents decides whether that succeeds.
//!
//! Every text of a kustomization that is the path of something in the repository counts as read, so that nothing that
//! is read is left out. The values of images do not count: kustomize copies them, whatever they are. Of a chart every
//! file counts (`chart`).

mod chart;
mod images;

use std::collections::{BTreeMap, BTreeSet};

use self::images::{copied, without, without_all_images};
use crate::{
    Edit, KUSTOMIZATION_NAMES, Read, Source,
    bases::{is_remote, is_url, join},
    path::Folder,
    yaml::{self, Kind, Node},
};

/// Files read for one folder: far more than any real one needs.
const MAX_FILES: usize = 2_000;

/// The fields of a kustomization that name folders or files to build on.
pub const BUILT_ON: [&str; 8] = [
    "resources",
    "bases",
    "components",
    "crds",
    "configurations",
    "generators",
    "transformers",
    "validators",
];
/// Those of [`BUILT_ON`] that configure generators and transformers, which may be programs.
pub const PLUGINS: [&str; 3] = ["generators", "transformers", "validators"];
/// What kustomize leaves to Helm.
const CHARTS: [&str; 2] = ["helmCharts", "helmChartInflationGenerator"];
/// Fields below which a value is content, not a path.
pub const CONTENT: [&str; 9] = [
    "literals",
    "patch",
    "commonAnnotations",
    "commonLabels",
    "labels",
    "images",
    "metadata",
    "options",
    "buildMetadata",
];
/// Fields that take values from rendered objects, images among them.
const TAKES_VALUES: [&str; 2] = ["replacements", "vars"];
/// The fields of an entry of `images` whose values are copied.
const COPIED: [&str; 3] = ["newName", "newTag", "digest"];

/// A [`Source`] that can say what is at a path without reading it.
pub trait Listing: Source {
    /// What is at a path from the root.
    ///
    /// # Errors
    /// The source itself failed.
    fn at(&self, path: &str) -> Result<At, Self::Error>;

    /// What is in a folder, by name; nothing if there is no such folder.
    ///
    /// # Errors
    /// The source itself failed.
    fn within(&self, folder: &str) -> Result<Vec<(String, At)>, Self::Error>;
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A file, and what its content is known by.
    File(String),
    Folder,
    Absent,
    /// Something whose content is not in the repository's own files; worded to follow the path: `is a submodule`.
    Elsewhere(String),
}

/// Files in memory: their contents are what they are known by.
impl Listing for BTreeMap<String, String> {
    fn at(&self, path: &str) -> Result<At, Self::Error> {
        Ok(match self.read(path)? {
            Read::Text(text) => At::File(text),
            Read::Folder => At::Folder,
            Read::Absent => At::Absent,
            Read::Unfit(why) => At::Elsewhere(why),
        })
    }

    fn within(&self, folder: &str) -> Result<Vec<(String, At)>, Self::Error> {
        let start = below(folder, "");
        let mut found: Vec<(String, At)> = Vec::new();
        for (path, text) in self.range(start.clone()..) {
            let Some(rest) = path.strip_prefix(&start) else {
                break;
            };
            let (name, at) = match rest.split_once('/') {
                Some((name, _)) => (name, At::Folder),
                None => (rest, At::File(text.clone())),
            };
            if found.last().is_none_or(|(last, _)| last != name) {
                found.push((name.to_owned(), at));
            }
        }
        Ok(found)
    }
}

/// What is read to render a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    pub folder: Folder,
    /// `None`: kustomize renders it.
    pub chart: Option<Chart>,
    /// By path; what of each content counts.
    files: BTreeMap<String, Counts>,
}

/// How Helm renders a chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// The file of values besides the chart's own.
    pub values: Option<String>,
    /// Folders of charts elsewhere in the repository that it depends on, and where Helm looks for each of them.
    pub dependencies: Vec<(String, String)>,
}

impl Inputs {
    /// The paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether a file is among them.
    pub fn contains(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether both are the same folder's, rendered in the same way.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let values = |inputs: &Self| inputs.chart.as_ref().map(|chart| chart.values.clone());
        self.folder == other.folder && values(self) == values(other)
    }

    /// The same for all inputs that can be rendered, or cannot, for the same reasons.
    pub fn key(&self) -> Vec<u8> {
        self.keyed(|file| file.without_images.as_ref().unwrap_or(&file.id))
    }

    /// The same only where the images are the same, too.
    pub fn exact_key(&self) -> Vec<u8> {
        self.keyed(|file| &file.id)
    }

    fn keyed<'a>(&'a self, counts: impl Fn(&'a Counts) -> &'a String) -> Vec<u8> {
        let (way, values) = match &self.chart {
            None => ("kustomize", ""),
            Some(chart) => ("helm", chart.values.as_deref().unwrap_or_default()),
        };
        let files = self.files.iter();
        let parts = files.flat_map(|(path, file)| [path.as_str(), counts(file).as_str()]);
        let mut key = Vec::new();
        for part in [way, values, self.folder.as_str()].into_iter().chain(parts) {
            key.extend_from_slice(&part.len().to_be_bytes());
            key.extend_from_slice(part.as_bytes());
        }
        key
    }
}

/// Why a folder cannot be rendered from the repository's files alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotHere(pub String);

/// Everything that is read to render a folder. The images in `edited` manifests do not count.
///
/// # Errors
/// Outer: the source failed. Inner: the folder needs something that is not in the repository, or a program.
fn inputs<L: Listing>(
    folder: &Folder,
    edited: &BTreeSet<String>,
    listing: &L,
) -> Result<Result<Inputs, NotHere>, L::Error> {
    let mut walk = Walk {
        listing,
        edited,
        pending: vec![folder.as_str().to_owned()],
        seen: BTreeSet::new(),
        files: BTreeMap::new(),
        takes_values: false,
    };
    match walk.run() {
        Ok(()) => {}
        Err(Stop::Source(error)) => return Err(error),
        Err(Stop::NotHere(why)) => return Ok(Err(why)),
    }
    if walk.takes_values {
        walk.files
            .values_mut()
            .for_each(|file| file.without_images = None);
    }
    Ok(Ok(Inputs {
        folder: folder.clone(),
        chart: None,
        files: walk.files,
    }))
}

enum Stop<E> {
    Source(E),
    NotHere(NotHere),
}

impl<E> From<NotHere> for Stop<E> {
    fn from(why: NotHere) -> Self {
        Self::NotHere(why)
    }
}

/// What of a file counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    id: String,
    /// The text without the values of images, where it was read.
    without_images: Option<String>,
}

struct Walk<'a, L> {
    listing: &'a L,
    edited: &'a BTreeSet<String>,
    /// Folders whose kustomizations are still to be read.
    pending: Vec<String>,
    seen: BTreeSet<String>,
    files: BTreeMap<String, Counts>,
    takes_values: bool,
}

impl<L: Listing> Walk<'_, L> {
    fn run(&mut self) -> Result<(), Stop<L::Error>> {
        while let Some(folder) = self.pending.pop() {
            if !self.seen.insert(folder.clone()) {
                continue;
            }
            for name in KUSTOMIZATION_NAMES {
                let path = below(&folder, name);
                match self.at(&path)? {
                    At::File(id) => self.kustomization(&folder, &path, id)?,
                    At::Elsewhere(why) => return Err(NotHere(format!("{path} {why}")).into()),
                    At::Folder | At::Absent => {}
                }
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> Result<At, Stop<L::Error>> {
        self.listing.at(path).map_err(Stop::Source)
    }

    fn text(&self, path: &str) -> Result<Option<String>, Stop<L::Error>> {
        match self.listing.read(path).map_err(Stop::Source)? {
            Read::Text(text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    fn add(&mut self, path: &str, counts: Counts) -> Result<(), NotHere> {
        add(&mut self.files, path, counts)
    }

    fn kustomization(&mut self, folder: &str, path: &str, id: String) -> Result<(), Stop<L::Error>> {
        let text = self.text(path)?;
        let text = text
            .as_deref()
            .map(|text| text.strip_prefix('\u{feff}').unwrap_or(text));
        // kustomize itself says what is wrong with one that cannot be read.
        let read = text.and_then(|text| Some((text, yaml::parse(text).ok()?)));
        let Some((text, stream)) = read else {
            let without_images = None;
            return Ok(self.add(path, Counts { id, without_images })?);
        };
        let mut images = Vec::new();
        let roots: Vec<&Node> = stream
            .documents
            .iter()
            .filter_map(|(_, root)| root.as_ref())
            .collect();
        for root in &roots {
            for entry in fields(root, "images").flat_map(items) {
                for key in COPIED {
                    images.extend(fields(entry, key).filter_map(copied));
                }
            }
        }
        let without_images = Some(without(text, images));
        self.add(path, Counts { id, without_images })?;
        // The first folder is the one that is rendered.
        let is_first = self.seen.len() == 1;
        for root in roots {
            if is_first && fields(root, "kind").any(|kind| kind.scalar() == Some("Component")) {
                let why = format!("{path}: a Component is rendered only as a part of what includes it");
                return Err(NotHere(why).into());
            }
            if let Some(key) = CHARTS.into_iter().find(|key| fields(root, key).next().is_some()) {
                return Err(NotHere(format!("{path}: `{key}` needs helm, which is not run here")).into());
            }
            self.takes_values |= TAKES_VALUES.iter().any(|key| fields(root, key).next().is_some());
            let Kind::Mapping { entries, .. } = &root.kind else {
                continue;
            };
            for (key, value) in entries {
                let key = key.scalar().unwrap_or_default();
                if !CONTENT.contains(&key) {
                    self.value(folder, path, key, value)?;
                }
            }
        }
        Ok(())
    }

    /// A value below a field of a kustomization, or of the configuration of a generator or transformer.
    fn value(&mut self, folder: &str, path: &str, key: &str, value: &Node) -> Result<(), Stop<L::Error>> {
        match &value.kind {
            Kind::Scalar { value, .. } if value.contains('\n') => self.plugin(folder, path, key, value),
            Kind::Scalar { value, .. } => {
                self.named(folder, path, key, value)?;
                match value.split_once('=') {
                    Some((_, file)) => self.named(folder, path, "", file),
                    None => Ok(()),
                }
            }
            Kind::Sequence { items, .. } => items
                .iter()
                .try_for_each(|item| self.value(folder, path, key, item)),
            Kind::Mapping { entries, .. } => entries
                .iter()
                .filter(|(name, _)| !name.scalar().is_some_and(|name| CONTENT.contains(&name)))
                .try_for_each(|(_, value)| self.value(folder, path, "", value)),
            Kind::Alias(_) => Ok(()),
        }
    }

    /// What a text of a kustomization names, if that is something in the repository.
    fn named(&mut self, folder: &str, path: &str, key: &str, text: &str) -> Result<(), Stop<L::Error>> {
        let built_on = BUILT_ON.contains(&key);
        let elsewhere = || NotHere(format!("{path}: {text} is not in this repository"));
        if is_url(text) || text.starts_with("git::") {
            return Err(elsewhere().into());
        }
        let Some(at) = join(folder, text) else {
            return if built_on { Err(elsewhere().into()) } else { Ok(()) };
        };
        let found = if at.is_empty() { At::Folder } else { self.at(&at)? };
        match found {
            At::File(id) => self.file(folder, key, &at, id),
            At::Folder if built_on => {
                self.pending.push(at);
                Ok(())
            }
            At::Elsewhere(why) => Err(NotHere(format!("{path}: {at} {why}")).into()),
            At::Absent if built_on && is_remote(text) => Err(elsewhere().into()),
            // Not a path; or kustomize says that it is missing.
            At::Folder | At::Absent => Ok(()),
        }
    }

    fn file(&mut self, folder: &str, key: &str, at: &str, id: String) -> Result<(), Stop<L::Error>> {
        if self.files.contains_key(at) {
            return Ok(());
        }
        let plugin = PLUGINS.contains(&key);
        let text = if plugin || self.edited.contains(at) {
            self.text(at)?
        } else {
            None
        };
        let without_images = text
            .as_deref()
            .filter(|_| self.edited.contains(at))
            .and_then(without_all_images);
        self.add(at, Counts { id, without_images })?;
        match text {
            Some(text) if plugin => self.plugin(folder, at, key, &text),
            _ => Ok(()),
        }
    }

    /// The configuration of generators and transformers: kustomize's own ones, which may read files, or programs.
    fn plugin(&mut self, folder: &str, path: &str, key: &str, text: &str) -> Result<(), Stop<L::Error>> {
        let Ok(stream) = yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) else {
            return Ok(());
        };
        for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
            let api = fields(root, "apiVersion").next().and_then(Node::scalar);
            if PLUGINS.contains(&key) && api.is_some_and(|api| api != "builtin") {
                let kind = fields(root, "kind")
                    .next()
                    .and_then(Node::scalar)
                    .unwrap_or("plugin");
                return Err(NotHere(format!("{path}: {kind} is a program, which is not run here")).into());
            }
            self.value(folder, path, "", root)?;
        }
        Ok(())
    }
}

fn add(files: &mut BTreeMap<String, Counts>, path: &str, counts: Counts) -> Result<(), NotHere> {
    if files.len() >= MAX_FILES {
        return Err(NotHere(format!(
            "more than {MAX_FILES} files are read to render it"
        )));
    }
    files.insert(path.to_owned(), counts);
    Ok(())
}

fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn fields<'a>(node: &'a Node, key: &'a str) -> impl Iterator<Item = &'a Node> {
    node.fields(key).map(|(_, value)| value)
}

fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::Sequence { items, .. } => items,
        _ => &[],
    }
}

/// What is read to render the folders that edits change, each of them once.
///
/// # Errors
/// The source failed.
pub fn rendered<L: Listing>(edits: &[Edit], listing: &L) -> Result<Vec<Result<Inputs, NotHere>>, L::Error> {
    let edited: BTreeSet<String> = edits.iter().filter_map(edited_file).map(str::to_owned).collect();
    let mut found: Vec<Result<Inputs, NotHere>> = Vec::new();
    for edit in edits {
        let next = match (edit, edited_file(edit)) {
            (Edit::KustomizeImage(edit), _) => Some(inputs(&edit.path, &edited, listing)?),
            (Edit::RestoreImage(edit), _) => Some(inputs(&edit.path, &edited, listing)?),
            (_, Some(file)) => match renders(file, &edited, listing)? {
                Ok(Some(inputs)) => Some(Ok(inputs)),
                Ok(None) if is_values(edit, file, listing)? => Some(chart::inputs(file, listing)?),
                Ok(None) => None,
                Err(why) => Some(Err(why)),
            },
            (_, None) => None,
        };
        found.extend(next.filter(|next| !found.contains(next)));
    }
    Ok(found)
}

/// The file that an edit changes, other than a kustomization.
fn edited_file(edit: &Edit) -> Option<&str> {
    match edit {
        Edit::HelmImage(edit) => Some(edit.file.as_str()),
        Edit::ManifestImage(edit) => Some(edit.file.as_str()),
        Edit::RestoreValues(edit) => Some(edit.file.as_str()),
        Edit::KustomizeImage(_) | Edit::RestoreImage(_) | Edit::Marker => None,
    }
}

/// Whether a file holds values of Helm, rather than objects. Charts have values called `kind`.
fn is_values<L: Listing>(edit: &Edit, file: &str, listing: &L) -> Result<bool, L::Error> {
    let Read::Text(text) = listing.read(file)? else {
        return Ok(false);
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(yaml::parse(text).is_ok_and(|stream| {
        let mut roots = stream.documents.iter().filter_map(|(_, root)| root.as_ref());
        let has = |root: &Node, key| fields(root, key).next().is_some();
        let of_manifest = matches!(edit, Edit::ManifestImage(_));
        let is_object = |root| has(root, "kind") && (of_manifest || has(root, "apiVersion"));
        roots.all(|root| !is_object(root) && !matches!(root.kind, Kind::Sequence { .. }))
    }))
}

/// The folder whose rendering shows what an edit of a file did: the nearest one, of the file's own and those above it,
/// whose kustomization reads it. `None`: no kustomization does.
///
/// # Errors
/// Those of [`inputs`], for the file's own folder.
fn renders<L: Listing>(
    file: &str,
    edited: &BTreeSet<String>,
    listing: &L,
) -> Result<Result<Option<Inputs>, NotHere>, L::Error> {
    let mut folder = file;
    let mut own = true;
    while !folder.is_empty() {
        folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut there = false;
        for name in KUSTOMIZATION_NAMES {
            there |= matches!(listing.at(&below(folder, name))?, At::File(_));
        }
        if let Some(folder) = folder.parse::<Folder>().ok().filter(|_| there) {
            match inputs(&folder, edited, listing)? {
                Ok(inputs) if inputs.contains(file) => return Ok(Ok(Some(inputs))),
                Err(why) if own => return Ok(Err(why)),
                Ok(_) | Err(_) => {}
            }
        }
        own = false;
    }
    Ok(Ok(None))
}

#[cfg(test)]
mod tests;
