//! The objects, their versions and their changes: the equivalent of a real API server's etcd and watch cache.
//!
//! One lock guards everything; changes are numbered by one counter, the resourceVersion. A change becomes visible to
//! watchers only when it is on disk, so no one ever sees something that a crash could undo. Writers are batched: one
//! flush carries every change made while the last flush was running.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::custom;
use crate::journal::{Journal, JournalError, Record};
use crate::object::{self, Key};
use crate::owners::Owners;
use crate::quota;
use crate::registry::Registry;
use crate::resources::{self, DEFINITIONS, Resource};
use crate::status::{ApiError, ApiResult};

/// How far back a watch can start, in changes; older ones are answered with 410 Gone.
const HISTORY: usize = 16_384;
/// The journal is rewritten when it is larger than this and several times its compacted size.
const COMPACT_AT: u64 = 8 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) rv: u64,
    pub(crate) resource: &'static Resource,
    pub(crate) kind: ChangeKind,
    /// The object after the change; for a deletion the last state, with the version of the deletion.
    pub(crate) object: Arc<Value>,
    /// The previous object, so that a selector can tell what left its set.
    pub(crate) previous: Option<Arc<Value>>,
}

#[derive(Debug)]
struct Inner {
    registry: Arc<Registry>,
    objects: BTreeMap<Key, Arc<Value>>,
    owners: Owners,
    rv: u64,
    history: VecDeque<Change>,
    /// Changes up to and with this version are forgotten.
    floor: u64,
    queue: Option<mpsc::Sender<Record>>,
}

/// How far the disk has got.
#[derive(Debug, Clone, Default)]
struct Durable {
    rv: u64,
    failed: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Store {
    registry: Arc<Registry>,
    inner: Mutex<Inner>,
    durable: watch::Receiver<Durable>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens the journal and starts the writer.
    ///
    /// # Errors
    /// When the journal cannot be used; see [`JournalError`].
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, JournalError> {
        let (journal, records) = Journal::open(path)?;
        let registry = Arc::new(Registry::default());
        let mut inner = Inner {
            registry: Arc::clone(&registry),
            objects: BTreeMap::new(),
            owners: Owners::default(),
            rv: 1,
            history: VecDeque::new(),
            floor: 1,
            queue: None,
        };
        for record in records {
            inner.replay(record);
        }
        let (queue, receiver) = mpsc::channel();
        inner.queue = Some(queue);
        let (progress, durable) = watch::channel(Durable {
            rv: inner.rv,
            failed: None,
        });
        let store = Arc::new(Self {
            registry,
            inner: Mutex::new(inner),
            durable,
            writer: Mutex::new(None),
        });
        let weak = Arc::downgrade(&store);
        let snapshot = move || weak.upgrade().map(|store| store.snapshot());
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_loop(journal, &receiver, &progress, &snapshot))
            .map_err(|source| JournalError::Io {
                path: path.to_owned(),
                source,
            })?;
        *store.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok(store)
    }

    /// Writes what is waiting and stops the writer; later changes fail.
    pub(crate) fn close(&self) {
        self.lock().queue = None;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> (u64, Vec<Arc<Value>>) {
        let inner = self.lock();
        // Definitions first, so that what they define is known when the journal is read again.
        let (definitions, others): (Vec<_>, Vec<_>) = inner
            .objects
            .iter()
            .partition(|((storage, ..), _)| *storage == DEFINITIONS.storage());
        let all = definitions.into_iter().chain(others);
        (inner.rv, all.map(|(_, object)| Arc::clone(object)).collect())
    }

    /// Waits until everything up to `rv` is on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) async fn durable(&self, rv: u64) -> ApiResult<()> {
        let mut durable = self.durable.clone();
        let state = durable
            .wait_for(|d| d.rv >= rv || d.failed.is_some())
            .await
            .map_err(|_| ApiError::unavailable("the cluster is shutting down"))?;
        match &state.failed {
            Some(why) if state.rv < rv => Err(ApiError::internal(format!(
                "the journal cannot be written: {why}"
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock()
            .objects
            .get(&(resource.storage(), namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The objects of one kind, by namespace and name, and the version they are of.
    pub(crate) fn list(&self, resource: &Resource, namespace: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let inner = self.lock();
        let start = (
            resource.storage(),
            namespace.unwrap_or("").to_owned(),
            String::new(),
        );
        let objects = inner
            .objects
            .range(start..)
            .take_while(|((plural, ns, _), _)| {
                *plural == resource.storage() && namespace.is_none_or(|wanted| ns == wanted)
            })
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (objects, inner.rv)
    }

    /// Every object that `wanted` accepts, of any kind.
    pub(crate) fn find(&self, wanted: impl Fn(&Value) -> bool) -> Vec<(&'static Resource, Arc<Value>)> {
        let inner = self.lock();
        let found = inner.objects.iter().filter(|(_, object)| wanted(object));
        found
            .filter_map(|((plural, ..), object)| {
                let resource = self.registry.by_storage(plural)?;
                Some((resource, Arc::clone(object)))
            })
            .collect()
    }

    /// The object with that uid.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<(&'static Resource, Arc<Value>)> {
        let inner = self.lock();
        let key = inner.owners.key(uid)?;
        let object = Arc::clone(inner.objects.get(key)?);
        Some((self.registry.by_storage(key.0)?, object))
    }

    /// The objects that name the one with that uid as an owner, by kind, namespace and name.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<(&'static Resource, Arc<Value>)> {
        let inner = self.lock();
        let found = inner.owners.dependents(uid);
        found
            .filter_map(|key| {
                let object = Arc::clone(inner.objects.get(key)?);
                Some((self.registry.by_storage(key.0)?, object))
            })
            .collect()
    }

    /// Stores a new object; the caller has filled in its metadata.
    ///
    /// # Errors
    /// 409 when the name is taken; 404 or 403 when the namespace is missing or ending.
    pub(crate) fn create(&self, resource: &'static Resource, object: Value) -> ApiResult<Arc<Value>> {
        let mut inner = self.lock();
        let (namespace, name) = (
            object::namespace(&object).to_owned(),
            object::name(&object).to_owned(),
        );
        if resource.namespaced {
            let key = (resources::NAMESPACES.plural, String::new(), namespace.clone());
            let Some(parent) = inner.objects.get(&key) else {
                return Err(ApiError::not_found(&resources::NAMESPACES, &namespace));
            };
            if object::is_deleting(parent) && resource.plural != resources::EVENTS.plural {
                return Err(ApiError::namespace_ends(resource, &name, &namespace));
            }
        }
        if let Some(custom) = resource.custom {
            let key = (DEFINITIONS.storage(), String::new(), custom.name.to_owned());
            if inner
                .objects
                .get(&key)
                .is_none_or(|definition| object::is_deleting(definition))
            {
                return Err(ApiError::method_not_allowed(
                    "create not allowed while custom resource definition is terminating",
                ));
            }
        }
        let key = (resource.storage(), namespace, name);
        if inner.objects.contains_key(&key) {
            return Err(ApiError::already_exists(resource, &key.2));
        }
        if resource.namespaced {
            quota::admit(resource, &object, |resource| inner.in_namespace(resource, &key.1))?;
        }
        inner.put(resource, key, object, None)
    }

    /// Changes an object under the lock. `change` gets the stored object and returns the new one; when they are equal
    /// nothing happens. An object that is being deleted and does not wait for anything any more is removed.
    ///
    /// # Errors
    /// 404 when there is no such object, and what `change` returns.
    pub(crate) fn update(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Value) -> ApiResult<Value>,
    ) -> ApiResult<Arc<Value>> {
        let mut inner = self.lock();
        let key = (resource.storage(), namespace.to_owned(), name.to_owned());
        let Some(old) = inner.objects.get(&key).cloned() else {
            return Err(ApiError::not_found(resource, name));
        };
        let mut new = change(&old)?;
        let version = object::at(&old, &["metadata", "resourceVersion"]).clone();
        object::metadata(&mut new).insert("resourceVersion".to_owned(), version);
        if new == *old {
            return Ok(old);
        }
        let grace = object::number(&new, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        let finalizers = object::list(&new, &["metadata", "finalizers"]);
        let namespace_content = object::list(&new, &["spec", "finalizers"]);
        if object::is_deleting(&new) && grace == 0 && finalizers.is_empty() && namespace_content.is_empty() {
            return inner.remove(resource, &key, new);
        }
        inner.put(resource, key, new, Some(old))
    }

    /// Removes an object at once, regardless of what it waits for.
    ///
    /// # Errors
    /// 404 when there is no such object, and what `check` returns.
    pub(crate) fn remove(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        check: impl FnOnce(&Value) -> ApiResult<()>,
    ) -> ApiResult<Arc<Value>> {
        let mut inner = self.lock();
        let key = (resource.storage(), namespace.to_owned(), name.to_owned());
        let Some(old) = inner.objects.get(&key).cloned() else {
            return Err(ApiError::not_found(resource, name));
        };
        check(&old)?;
        inner.remove(resource, &key, Value::clone(&old))
    }

    /// The kinds that are served.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn version(&self) -> u64 {
        self.lock().rv
    }

    /// A feed of the changes after `since`.
    pub(crate) fn watch(self: &Arc<Self>, since: u64) -> Feed {
        Feed {
            store: Arc::clone(self),
            cursor: since,
            durable: self.durable.clone(),
        }
    }

    fn changes(&self, after: u64, until: u64) -> ApiResult<Vec<Change>> {
        let inner = self.lock();
        if after < inner.floor {
            return Err(ApiError::gone(after, inner.floor));
        }
        let start = inner.history.partition_point(|c| c.rv <= after);
        Ok(inner
            .history
            .range(start..)
            .take_while(|c| c.rv <= until)
            .cloned()
            .collect())
    }
}

/// Follows the store from a version on.
#[derive(Debug)]
pub(crate) struct Feed {
    store: Arc<Store>,
    cursor: u64,
    durable: watch::Receiver<Durable>,
}

impl Feed {
    /// Waits for the next changes; they come in order, and none is skipped.
    ///
    /// # Errors
    /// 410 when the feed is further behind than the store remembers; 503 when the store is closed.
    pub(crate) async fn next(&mut self) -> ApiResult<Vec<Change>> {
        loop {
            let until = self.durable.borrow_and_update().rv;
            if until > self.cursor {
                let changes = self.store.changes(self.cursor, until)?;
                self.cursor = until;
                if !changes.is_empty() {
                    return Ok(changes);
                }
            }
            self.durable
                .changed()
                .await
                .map_err(|_| ApiError::unavailable("the cluster is shutting down"))?;
        }
    }

    /// The version up to which everything was delivered.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the feed can start where it was asked to.
    ///
    /// # Errors
    /// 410 when it cannot.
    pub(crate) fn check(&self) -> ApiResult<()> {
        self.store.changes(self.cursor, self.cursor).map(|_| ())
    }
}

impl Inner {
    /// The objects of one kind in one namespace.
    fn in_namespace<'a>(&'a self, resource: &Resource, namespace: &'a str) -> Vec<&'a Value> {
        let storage = resource.storage();
        let start = (storage, namespace.to_owned(), String::new());
        self.objects
            .range(start..)
            .take_while(|((kept, ns, _), _)| *kept == storage && ns == namespace)
            .map(|(_, object)| object.as_ref())
            .collect()
    }

    fn put(
        &mut self,
        resource: &'static Resource,
        key: Key,
        mut object: Value,
        previous: Option<Arc<Value>>,
    ) -> ApiResult<Arc<Value>> {
        if resource == &DEFINITIONS {
            let others = self
                .objects
                .iter()
                .filter(|((storage, ..), _)| *storage == DEFINITIONS.storage());
            let others: Vec<&Value> = others.map(|(_, other)| other.as_ref()).collect();
            custom::settle(&mut object, &others, Timestamp::now());
            if previous.as_deref().is_some_and(|previous| *previous == object) {
                return Ok(previous.unwrap_or_default());
            }
        }
        let rv = self.rv + 1;
        object::metadata(&mut object).insert("resourceVersion".to_owned(), Value::from(rv.to_string()));
        self.enqueue(Record::Put {
            rv,
            object: object.clone(),
        })?;
        self.rv = rv;
        let object = Arc::new(object);
        self.owners.put(&key, previous.as_deref(), &object);
        self.objects.insert(key, Arc::clone(&object));
        self.note(resource, &object, true);
        let kind = if previous.is_some() {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        self.remember(Change {
            rv,
            resource,
            kind,
            object: Arc::clone(&object),
            previous,
        });
        Ok(object)
    }

    fn remove(&mut self, resource: &'static Resource, key: &Key, mut last: Value) -> ApiResult<Arc<Value>> {
        let rv = self.rv + 1;
        object::metadata(&mut last).insert("resourceVersion".to_owned(), Value::from(rv.to_string()));
        self.enqueue(Record::Delete {
            rv,
            object: last.clone(),
        })?;
        self.rv = rv;
        let previous = self.objects.remove(key);
        self.owners.remove(key, previous.as_deref());
        let object = Arc::new(last);
        self.note(resource, &object, false);
        let kind = ChangeKind::Deleted;
        self.remember(Change {
            rv,
            resource,
            kind,
            object: Arc::clone(&object),
            previous,
        });
        Ok(object)
    }

    /// Notifies the registry of a definition that was stored or removed.
    fn note(&self, resource: &Resource, object: &Value, stored: bool) {
        match (resource == &DEFINITIONS, stored) {
            (true, true) => self.registry.define(object),
            (true, false) => self.registry.undefine(object::name(object)),
            _ => {}
        }
    }

    fn enqueue(&self, record: Record) -> ApiResult<()> {
        let closed = || ApiError::unavailable("the cluster is shutting down");
        self.queue
            .as_ref()
            .ok_or_else(closed)?
            .send(record)
            .map_err(|_| closed())
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.floor = oldest.rv;
        }
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Base { rv, .. } => {
                self.rv = self.rv.max(rv);
                self.floor = self.rv;
            }
            Record::Put { rv, object } => {
                let Some((resource, key)) = identify(&self.registry, &object) else {
                    return;
                };
                let object = Arc::new(object);
                self.note(resource, &object, true);
                let previous = self.objects.insert(key.clone(), Arc::clone(&object));
                self.owners.put(&key, previous.as_deref(), &object);
                if rv > self.floor {
                    let kind = if previous.is_some() {
                        ChangeKind::Modified
                    } else {
                        ChangeKind::Added
                    };
                    self.remember(Change {
                        rv,
                        resource,
                        kind,
                        object,
                        previous,
                    });
                }
                self.rv = self.rv.max(rv);
            }
            Record::Delete { rv, object } => {
                let Some((resource, key)) = identify(&self.registry, &object) else {
                    return;
                };
                let previous = self.objects.remove(&key);
                self.owners.remove(&key, previous.as_deref());
                self.note(resource, &object, false);
                let kind = ChangeKind::Deleted;
                self.remember(Change {
                    rv,
                    resource,
                    kind,
                    object: Arc::new(object),
                    previous,
                });
                self.rv = self.rv.max(rv);
            }
        }
    }
}

fn identify(registry: &Registry, object: &Value) -> Option<(&'static Resource, Key)> {
    let resource = registry.by_kind(
        object::text(object, &["apiVersion"]),
        object::text(object, &["kind"]),
    )?;
    let key = (
        resource.storage(),
        object::namespace(object).to_owned(),
        object::name(object).to_owned(),
    );
    Some((resource, key))
}

/// Takes everything that is waiting, writes it with one flush, and reports how far it got.
fn write_loop(
    mut journal: Journal,
    queue: &mpsc::Receiver<Record>,
    progress: &watch::Sender<Durable>,
    snapshot: &dyn Fn() -> Option<(u64, Vec<Arc<Value>>)>,
) {
    let (mut base_size, mut base_rv) = (journal.size, 0);
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter());
        batch.retain(|record| version(record) > base_rv);
        let Some(last) = batch.last().map(version) else {
            continue;
        };
        if let Err(error) = journal.append(&batch) {
            tracing::error!(path = %journal.path().display(), %error, "the journal cannot be written");
            progress.send_modify(|d| d.failed = Some(error.to_string()));
            return;
        }
        progress.send_modify(|d| d.rv = last);
        if journal.size > COMPACT_AT.max(base_size * 4)
            && let Some((rv, objects)) = snapshot()
        {
            match Journal::rewrite(journal.path(), rv, &objects) {
                Ok(rewritten) => {
                    journal = rewritten;
                    (base_size, base_rv) = (journal.size, rv);
                    progress.send_modify(|d| d.rv = rv);
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal could not be compacted, it goes on growing");
                    base_size = journal.size;
                }
            }
        }
    }
}

fn version(record: &Record) -> u64 {
    match record {
        Record::Base { rv, .. } | Record::Put { rv, .. } | Record::Delete { rv, .. } => *rv,
    }
}

#[cfg(test)]
mod tests;
