//! Where the anchors of a text are, and the aliases that refer to them.

use std::collections::HashMap;

use crate::yaml::{Kind, Node, Stream};

/// Where the anchors and the aliases of a text are.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    pub(crate) anchored: HashMap<usize, Vec<usize>>,
    pub(crate) aliases: HashMap<usize, Vec<Vec<usize>>>,
}

impl Anchors {
    pub(crate) fn of(stream: &Stream) -> Self {
        let mut anchors = Self::default();
        for (number, (_, root)) in stream.documents.iter().enumerate() {
            if let Some(root) = root {
                anchors.collect(root, &mut vec![number]);
            }
        }
        anchors
    }

    fn collect(&mut self, node: &Node, at: &mut Vec<usize>) {
        if node.anchor != 0 {
            self.anchored.insert(node.anchor, at.clone());
        }
        let children: Vec<&Node> = match &node.kind {
            Kind::Alias(to) => {
                self.aliases.entry(*to).or_default().push(at.clone());
                return;
            }
            Kind::Scalar { .. } => return,
            Kind::Sequence { items, .. } => items.iter().collect(),
            Kind::Mapping { entries, .. } => entries.iter().map(|(_, value)| value).collect(),
        };
        for (index, child) in children.into_iter().enumerate() {
            at.push(index);
            self.collect(child, at);
            at.pop();
        }
    }
}
