//! Garbage collection and the end of namespaces: what is deleted because something else was.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::delete::{self, Options};
use crate::api::prepare;
use crate::controllers::Controllers;
use crate::custom;
use crate::object::{self, list, text};
use crate::resources::{DEFINITIONS, NAMESPACES, Resource, SERVICE_ACCOUNTS};

const FOREGROUND: &str = "foregroundDeletion";

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    list(object, &["metadata", "ownerReferences"])
        .iter()
        .map(|owner| text(owner, &["uid"]))
}

impl Controllers {
    /// Collects objects whose owners were deleted while the controllers were not running.
    pub(super) fn collect_orphans(&self) {
        let uids: BTreeSet<String> = self
            .store
            .find(|_| true)
            .iter()
            .map(|(_, object)| object::uid(object).to_owned())
            .collect();
        let orphans = self
            .store
            .find(|object| owners(object).next().is_some() && owners(object).all(|uid| !uids.contains(uid)));
        for (resource, object) in orphans {
            self.delete(resource, &object, &Options::default());
        }
    }

    /// The consequences of an object being gone.
    pub(super) fn after_deletion(&self, object: &Value) {
        for (resource, dependent) in self.store.owned_by(object::uid(object)) {
            if !owners(&dependent).any(|uid| self.store.by_uid(uid).is_some()) {
                self.delete(resource, &dependent, &Options::default());
            }
        }
        self.release_owners(object);
    }

    pub(super) fn release_owners(&self, object: &Value) {
        for owner in owners(object) {
            self.release(owner);
        }
    }

    pub(super) fn delete(&self, resource: &'static Resource, object: &Value, options: &Options) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        if let Err(error) = delete::delete_object(&self.store, resource, namespace, name, options) {
            tracing::debug!(%error, name, "not deleted");
        }
    }

    /// Foreground deletion: deletes the dependents of an object that is being deleted, and then the object itself.
    pub(super) fn release(&self, uid: &str) {
        let Some((resource, object)) = self.store.by_uid(uid) else {
            return;
        };
        let waits = list(&object, &["metadata", "finalizers"])
            .iter()
            .any(|finalizer| finalizer == FOREGROUND);
        if !waits || !object::is_deleting(&object) {
            return;
        }
        let dependents = self.store.owned_by(uid);
        for (resource, dependent) in &dependents {
            if !object::is_deleting(dependent) {
                let options = Options {
                    policy: delete::Policy::Foreground,
                    ..Options::default()
                };
                self.delete(resource, dependent, &options);
            }
        }
        if dependents.is_empty() {
            self.drop_finalizer(resource, &object, FOREGROUND);
        }
    }

    pub(super) fn drop_finalizer(&self, resource: &'static Resource, object: &Value, finalizer: &str) {
        self.change(resource, object, |new| {
            let metadata = object::metadata(new);
            if let Some(Value::Array(finalizers)) = metadata.get_mut("finalizers") {
                finalizers.retain(|known| known != finalizer);
                if finalizers.is_empty() {
                    metadata.remove("finalizers");
                }
            }
        });
    }

    /// Deletes the objects of a definition that is being deleted, and the definition itself when there are none.
    pub(super) fn definition(&self, name: &str) {
        let Some(definition) = self.store.get(&DEFINITIONS, "", name) else {
            return;
        };
        if !object::is_deleting(&definition) {
            if object::condition(&definition, "NamesAccepted").is_some_and(|c| c["status"] != "True") {
                // The names it wanted may be free by now.
                let (all, _) = self.store.list(&DEFINITIONS, None);
                let others: Vec<&Value> = all.iter().map(AsRef::as_ref).collect();
                self.change(&DEFINITIONS, &definition, |new| {
                    custom::settle(new, &others, Timestamp::now());
                });
            }
            return;
        }
        if let Some(resource) = self.store.registry().by_storage(name) {
            for object in self.store.list(resource, None).0 {
                if !object::is_deleting(&object) {
                    self.delete(resource, &object, &Options::default());
                }
            }
            if !self.store.list(resource, None).0.is_empty() {
                return;
            }
        }
        self.drop_finalizer(&DEFINITIONS, &definition, custom::CLEANUP);
    }

    /// Gives a namespace its service account; empties one that is being deleted, and removes it when it is empty.
    pub(super) fn namespace(&self, name: &str) {
        let Some(namespace) = self.store.get(&NAMESPACES, "", name) else {
            return;
        };
        if !object::is_deleting(&namespace) {
            if self.store.get(&SERVICE_ACCOUNTS, name, "default").is_none() {
                let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                                         "metadata": {"name": "default", "namespace": name}});
                let created = prepare::prepare_new(&SERVICE_ACCOUNTS, &mut account, Timestamp::now())
                    .and_then(|()| self.store.create(&SERVICE_ACCOUNTS, account));
                if let Err(error) = created {
                    tracing::debug!(%error, name, "the default service account is missing");
                }
            }
            return;
        }
        let mut content = self.store.find(|object| object::namespace(object) == name);
        for (resource, object) in &content {
            if !object::is_deleting(object) {
                self.delete(resource, object, &Options::default());
            }
        }
        content.retain(|(resource, object)| self.store.get(resource, name, object::name(object)).is_some());
        if content.is_empty() {
            self.change(&NAMESPACES, &namespace, |new| {
                new["spec"]["finalizers"] = json!([]);
            });
        }
    }
}
