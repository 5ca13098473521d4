//! The objects of a file: its documents, and the items of Kubernetes lists among them.

use std::collections::HashMap;

use crate::{
    Refusal,
    layout::list,
    steps::{Step, Steps},
    yaml::{Kind, Node, Stream},
};

/// A document, or an item of a Kubernetes list, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    /// `Kind/name` if only one object of the file has it, so that it is found wherever it is moved to. Otherwise the
    /// document's number, from 1.
    pub(crate) label: String,
    /// `Kind/name`, whether or not others have the same one.
    pub(crate) name: Option<String>,
    /// The node's path in the stream.
    pub(crate) at: Vec<usize>,
    /// Steps from the node that the label refers to.
    prefix: Steps,
    pub(crate) node: &'a Node,
    /// Its items are objects of their own.
    pub(crate) is_list: bool,
}

/// The objects of a stream: each document, and after a list each of its items.
pub(crate) fn objects(stream: &Stream) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    for (number, (_, root)) in stream.documents.iter().enumerate() {
        let Some(root) = root else { continue };
        let label = (number + 1).to_string();
        let object = |node, at, prefix, is_list| Object {
            label: label.clone(),
            name: object_name(node),
            at,
            prefix: Steps(prefix),
            node,
            is_list,
        };
        let listed = text_at(root, "kind").is_some_and(|kind| kind.ends_with("List"));
        let items = root
            .fields("items")
            .next()
            .filter(|_| listed)
            .and_then(|(_, items)| match &items.kind {
                Kind::Sequence { items, .. } => Some(items),
                _ => None,
            });
        objects.push(object(root, vec![number], Vec::new(), items.is_some()));
        let place = position(root, "items").unwrap_or_default();
        for (index, item) in items.into_iter().flatten().enumerate() {
            let prefix = vec![Step::Key("items".to_owned()), Step::Index(index)];
            objects.push(object(item, vec![number, place, index], prefix, false));
        }
    }
    let mut count: HashMap<String, usize> = HashMap::new();
    for name in objects.iter().filter_map(|object| object.name.as_ref()) {
        *count.entry(name.clone()).or_default() += 1;
    }
    for object in &mut objects {
        if let Some(name) = object.name.as_ref().filter(|name| count[*name] == 1) {
            object.label.clone_from(name);
            object.prefix = Steps(Vec::new());
        }
    }
    objects
}

fn object_name(node: &Node) -> Option<String> {
    let (_, metadata) = node.fields("metadata").next()?;
    Some(format!(
        "{}/{}",
        text_at(node, "kind")?,
        text_at(metadata, "name")?
    ))
}

pub(crate) fn text_at<'a>(node: &'a Node, key: &'a str) -> Option<&'a str> {
    node.fields(key).next().and_then(|(_, value)| value.scalar())
}

/// The index of a key in a mapping.
pub(crate) fn position(node: &Node, key: &str) -> Option<usize> {
    match &node.kind {
        Kind::Mapping { entries, .. } => entries.iter().position(|(name, _)| name.scalar() == Some(key)),
        _ => None,
    }
}

impl Object<'_> {
    /// The steps to a node below this object, from what the label refers to. Items are given by name where the name is
    /// unique.
    pub(crate) fn steps_to(&self, below: &[usize]) -> Steps {
        let mut steps = self.prefix.0.clone();
        let mut node = self.node;
        for index in below {
            match &node.kind {
                Kind::Mapping { entries, .. } => {
                    let key = entries.get(*index).and_then(|(key, _)| key.scalar());
                    steps.push(Step::Key(key.unwrap_or_default().to_owned()));
                }
                Kind::Sequence { items, .. } => {
                    let name = items.get(*index).and_then(|item| text_at(item, "name"));
                    let alone = |name: &&str| {
                        items
                            .iter()
                            .filter(|item| text_at(item, "name") == Some(name))
                            .count()
                            == 1
                    };
                    steps.push(match name.filter(alone) {
                        Some(name) => Step::Item {
                            key: "name".to_owned(),
                            value: name.to_owned(),
                        },
                        None => Step::Index(*index),
                    });
                }
                _ => {}
            }
            match node.child(*index) {
                Some(child) => node = child,
                None => break,
            }
        }
        Steps(steps)
    }

    /// The same steps from what the label refers to.
    pub(crate) fn full(&self, steps: &Steps) -> Steps {
        Steps(self.prefix.0.iter().chain(&steps.0).cloned().collect())
    }
}

/// The document and the path by which a node is recorded.
pub(crate) fn address(stream: &Stream, at: &[usize]) -> (String, Steps) {
    let objects = objects(stream);
    let within = objects.iter().filter(|object| at.starts_with(&object.at));
    match within.max_by_key(|object| object.at.len()) {
        Some(object) => (object.label.clone(), object.steps_to(&at[object.at.len()..])),
        None => (String::new(), Steps(Vec::new())),
    }
}

/// The objects that `document` names: a number from 1, or `Kind/name`; all documents when it is empty.
///
/// # Errors
/// There is none.
pub(crate) fn named<'a>(objects: &[Object<'a>], document: &str) -> Result<Vec<Object<'a>>, Refusal> {
    let fits = |object: &&Object<'_>| {
        if document.is_empty() {
            return object.at.len() == 1;
        }
        match document.parse::<usize>() {
            Ok(number) => object.at.len() == 1 && object.at[0] + 1 == number,
            Err(_) => object.name.as_deref() == Some(document),
        }
    };
    let found: Vec<Object<'a>> = objects.iter().filter(fits).cloned().collect();
    if found.is_empty() {
        let there: Vec<&str> = objects
            .iter()
            .map(|object| object.name.as_ref().unwrap_or(&object.label).as_str())
            .collect();
        return Err(Refusal::ImageNotFound(match there.is_empty() {
            true => "the file is empty".to_owned(),
            false => format!("no document {document:?}; there are: {}", list(&there)),
        }));
    }
    Ok(found)
}
