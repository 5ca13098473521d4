//! Objects by uid, and by owner: what garbage collection and the controllers would otherwise search for.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::object::{self, Key, list, text};

/// Keys of objects by their uid and by the uids of their owners.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    objects: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    list(object, &["metadata", "ownerReferences"])
        .iter()
        .map(|owner| text(owner, &["uid"]))
        .filter(|uid| !uid.is_empty())
}

impl Owners {
    /// Records an object that was stored under `key`, over `previous`.
    pub(crate) fn put(&mut self, key: &Key, previous: Option<&Value>, object: &Value) {
        if let Some(previous) = previous {
            let same = object::uid(previous) == object::uid(object)
                && previous["metadata"]["ownerReferences"] == object["metadata"]["ownerReferences"];
            if same {
                return;
            }
            self.remove(key, Some(previous));
        }
        self.objects.insert(object::uid(object).to_owned(), key.clone());
        for owner in owners(object) {
            self.dependents
                .entry(owner.to_owned())
                .or_default()
                .insert(key.clone());
        }
    }

    /// Forgets an object that was removed.
    pub(crate) fn remove(&mut self, key: &Key, previous: Option<&Value>) {
        let Some(previous) = previous else { return };
        self.objects.remove(object::uid(previous));
        for owner in owners(previous) {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }

    /// The key of the object with that uid.
    pub(crate) fn key(&self, uid: &str) -> Option<&Key> {
        self.objects.get(uid)
    }

    /// The keys of the objects that have that owner.
    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.dependents.get(uid).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_followed_as_references_come_and_go() {
        let key = |name: &str| -> Key { ("pods", "default".to_owned(), name.to_owned()) };
        let pod = |uid: &str, owners: &[&str]| {
            let owners: Vec<Value> = owners.iter().map(|uid| json!({"uid": uid})).collect();
            json!({"metadata": {"uid": uid, "ownerReferences": owners}})
        };
        let (first, second, third) = (pod("1", &["a"]), pod("1", &["a", "b"]), pod("1", &["b"]));
        let mut index = Owners::default();
        let owned = |index: &Owners, uid: &str| index.dependents(uid).count();
        for (previous, next, expected) in [
            (None, &first, [1, 0]),
            (Some(&first), &second, [1, 1]),
            (Some(&second), &third, [0, 1]),
        ] {
            index.put(&key("web"), previous, next);
            assert_eq!([owned(&index, "a"), owned(&index, "b")], expected);
            assert_eq!(index.key("1"), Some(&key("web")));
        }
        index.remove(&key("web"), Some(&third));
        assert_eq!((index.key("1"), owned(&index, "b")), (None, 0));
    }
}
