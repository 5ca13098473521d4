//! Files in memory, like those of a commit's tree or a working copy.

use std::{collections::BTreeMap, convert::Infallible, path::Path};

use slipway_edit::{Read, Source};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, String>);

impl Tree {
    pub(crate) fn of(path: &str, text: &str) -> Self {
        Self(BTreeMap::from([(path.to_owned(), text.to_owned())]))
    }

    /// Every file of the corpus, all of it one repository.
    pub(crate) fn corpus() -> Self {
        fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
            let entries =
                std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        let root = slipway_testbed::data("corpus");
        let mut files = BTreeMap::new();
        walk(&root, &root, &mut files);
        Self(files)
    }

    pub(crate) fn with(&self, files: &BTreeMap<String, String>) -> Self {
        let mut tree = self.clone();
        tree.0.extend(files.clone());
        tree
    }

    /// Writes all of it below a folder.
    pub(crate) fn write(&self, root: &Path) {
        for (path, text) in &self.0 {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
}

impl Source for Tree {
    type Error = Infallible;

    fn read(&self, path: &str) -> Result<Read, Infallible> {
        let below = format!("{path}/");
        Ok(match self.0.get(path) {
            Some(text) => Read::Text(text.clone()),
            None if self
                .0
                .range(below.clone()..)
                .next()
                .is_some_and(|(next, _)| next.starts_with(&below)) =>
            {
                Read::Folder
            }
            None => Read::Absent,
        })
    }
}
