//! An Application controller that behaves like Argo CD's: git is rendered and applied, syncs have operations, phases
//! and hooks, health is assessed at each comparison.
//!
//! One task is woken by changes and timers; every Application is worked on by one task at a time. Decisions are in
//! `application.rs`, `sync.rs`, `health.rs` and `target.rs`, without clock or I/O; sync windows are read and judged by
//! slipway-verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::prepare;
use crate::argo_cd::application::HOME;
use crate::argo_cd::desired::Rendered;
use crate::object;
use crate::resources::{DEFINITIONS, NAMESPACES, Resource};
use crate::status::{ApiError, ApiResult};
use crate::store::{Change, Store};

mod application;
mod course;
mod desired;
mod git;
mod health;
mod operation;
mod reconcile;
mod render;
mod sync;
mod target;

/// How the Application controller works. The defaults are Argo CD's.
#[derive(Debug, Clone)]
pub struct ArgoCd {
    /// How often an Application is compared with git without a request (`timeout.reconciliation`); 120 s.
    pub poll: Duration,
    /// How long after a sync drift is reverted (`--self-heal-timeout-seconds`); 5 s.
    pub self_heal: Duration,
    /// Whether `status.resources` has the health of each (`controller.resource.health.persist`); Argo CD 3 does not.
    pub resource_health: bool,
}

impl Default for ArgoCd {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(120),
            self_heal: Duration::from_secs(5),
            resource_health: false,
        }
    }
}

/// How long after a resource's change its Application is compared: changes come in bunches.
const SETTLE: Duration = Duration::from_millis(200);
/// Who applies, in `managedFields`.
const MANAGER: &str = "argocd-controller";
/// Below the cache, where the repositories are.
const REPOSITORIES: &str = "repositories";
const GROUP: &str = "argoproj.io";
const VERSION: &str = "v1alpha1";

/// Namespace and name of an Application.
type Key = (String, String);

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    config: ArgoCd,
    /// Where repositories and checked-out commits are kept.
    cache: PathBuf,
    rendered: Mutex<BTreeMap<(String, String, String), Arc<Rendered>>>,
    /// Applications with a resource that changed since the last comparison, and when to compare them.
    touched: Mutex<BTreeMap<Key, Instant>>,
}

impl Shared {
    fn applications(&self) -> ApiResult<&'static Resource> {
        self.resource("applications")
    }

    fn resource(&self, plural: &str) -> ApiResult<&'static Resource> {
        let found = self.store.registry().by_path(GROUP, VERSION, plural);
        found.ok_or_else(|| ApiError::unknown_path(format!("{plural}.{GROUP} are not defined")))
    }

    fn application(&self, key: &Key) -> Option<Arc<Value>> {
        self.store.get(self.applications().ok()?, &key.0, &key.1)
    }

    fn project(&self, application: &Value) -> Option<Arc<Value>> {
        let name = match object::text(application, &["spec", "project"]) {
            "" => "default",
            name => name,
        };
        self.store.get(self.resource("appprojects").ok()?, HOME, name)
    }

    /// Changes an Application if it is still the same one; changes of its spec increase the generation.
    fn change(&self, application: &Value, change: impl FnOnce(&mut Value)) -> ApiResult<Arc<Value>> {
        let resource = self.applications()?;
        let (namespace, name) = (object::namespace(application), object::name(application));
        self.store.update(resource, namespace, name, |old| {
            if object::uid(old) != object::uid(application) {
                return Err(ApiError::modified(resource, name));
            }
            let mut new = old.clone();
            change(&mut new);
            prepare::bump_generation(resource, old, &mut new);
            Ok(new)
        })
    }

    /// Combines the stored state with this task's: an operation that is being terminated stays so.
    fn save(&self, application: &Value, state: &Value) {
        let saved = self.change(application, |new| {
            let terminating = application::phase(new) == "Terminating";
            new["status"]["operationState"] = state.clone();
            if terminating {
                new["status"]["operationState"]["phase"] = json!("Terminating");
                new["status"]["operationState"]["message"] = json!("operation is terminating");
            }
        });
        if let Err(error) = saved {
            tracing::debug!(%error, "operation state not written");
        }
    }

    /// The live objects of an Application: those that are marked as its own and those that git names. Also the keys
    /// of those that are no longer in git.
    fn live(
        &self,
        application: &Value,
        targets: &[Value],
    ) -> (BTreeMap<target::Key, Arc<Value>>, Vec<target::Key>) {
        let instance = application::instance(application);
        let mut live: BTreeMap<target::Key, Arc<Value>> = BTreeMap::new();
        for (_, object) in self.store.find(|object| target::owner(object) == Some(&instance)) {
            live.insert(target::Key::of(&object), object);
        }
        let wanted: Vec<target::Key> = targets.iter().map(target::Key::of).collect();
        let extra = live
            .iter()
            .filter(|(key, object)| {
                !wanted.contains(key) && object::list(object, &["metadata", "ownerReferences"]).is_empty()
            })
            .map(|(key, _)| key.clone())
            .collect();
        for (key, target) in wanted.into_iter().zip(targets) {
            if let Some(resource) = target::resource_of(self.store.registry(), target)
                && let Some(object) = self.store.get(resource, &key.namespace, &key.name)
            {
                live.insert(key, object);
            }
        }
        (live, extra)
    }

    /// How long until the Application is to be compared because of a resource.
    fn touched_in(&self, key: &Key) -> Option<Duration> {
        let all = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key)
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn touch(&self, key: &Key, after: Duration) {
        let at = Instant::now() + after;
        let mut all = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let due = all.entry(key.clone()).or_insert(at);
        *due = at.min(*due);
    }

    fn untouch(&self, key: &Key) {
        self.touched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The controller of one cluster.
#[derive(Debug)]
pub(crate) struct Controller {
    shared: Arc<Shared>,
    due: BTreeMap<Key, Instant>,
    working: BTreeSet<Key>,
    tasks: JoinSet<(Key, Option<Duration>)>,
}

impl Controller {
    /// Creates the controller and what it needs in the cluster.
    pub(crate) fn new(store: Arc<Store>, config: ArgoCd, cache: PathBuf) -> Self {
        install(&store);
        clear(&cache);
        Self {
            shared: Arc::new(Shared {
                store,
                config,
                cache,
                rendered: Mutex::default(),
                touched: Mutex::default(),
            }),
            due: BTreeMap::new(),
            working: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Works until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut feed = self.shared.store.watch(self.shared.store.version());
        self.everything();
        loop {
            self.start_due();
            let next = self.due.iter().filter(|(key, _)| !self.working.contains(*key));
            let next = next.map(|(_, at)| *at).min();
            let timer = async move {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = timer => {}
                Some(done) = self.tasks.join_next() => match done {
                    Ok((key, wait)) => {
                        self.working.remove(&key);
                        if let Some(wait) = wait {
                            self.look(key, wait);
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "work on an Application broke off");
                        self.working.clear();
                    }
                },
                changes = feed.next() => match changes {
                    Ok(changes) => changes.iter().for_each(|change| self.notice(change)),
                    Err(error) if error.code == 410 => {
                        feed = self.shared.store.watch(self.shared.store.version());
                        self.everything();
                    }
                    Err(_) => return,
                },
            }
        }
    }

    fn look(&mut self, key: Key, after: Duration) {
        let at = Instant::now() + after;
        let due = self.due.entry(key).or_insert(at);
        *due = at.min(*due);
    }

    fn everything(&mut self) {
        let Ok(resource) = self.shared.applications() else {
            return;
        };
        for application in self.shared.store.list(resource, None).0 {
            let key = (
                object::namespace(&application).to_owned(),
                object::name(&application).to_owned(),
            );
            self.look(key, Duration::ZERO);
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        let due = self
            .due
            .iter()
            .filter(|(key, at)| **at <= now && !self.working.contains(*key));
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            self.due.remove(&key);
            self.working.insert(key.clone());
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn(async move {
                let wait = reconcile::work(&shared, &key).await;
                (key, wait)
            });
        }
    }

    fn notice(&mut self, change: &Change) {
        let object = change.object.as_ref();
        if change.resource.group == GROUP {
            match change.resource.plural {
                "applications" => {
                    let key = (
                        object::namespace(object).to_owned(),
                        object::name(object).to_owned(),
                    );
                    self.look(key, Duration::ZERO);
                }
                "appprojects" => self.everything(),
                _ => {}
            }
        }
        let owners = [Some(object), change.previous.as_deref()];
        let owners: BTreeSet<&str> = owners.into_iter().flatten().filter_map(target::owner).collect();
        for owner in owners {
            let key = match owner.split_once('_') {
                Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
                None => (HOME.to_owned(), owner.to_owned()),
            };
            if self.shared.application(&key).is_some() {
                self.shared.touch(&key, SETTLE);
                self.look(key, SETTLE);
            }
        }
    }
}

/// Removes what a killed cluster had checked out.
fn clear(cache: &Path) {
    for entry in std::fs::read_dir(cache)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        if entry.file_name() != REPOSITORIES
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, path = %entry.path().display(), "not removed");
        }
    }
}

/// Creates an object unless it exists.
fn ensure(store: &Store, resource: &'static Resource, mut object: Value) {
    let created = prepare::prepare_new(resource, &mut object, Timestamp::now())
        .and_then(|()| store.create(resource, object));
    if let Err(error) = created
        && error.reason != "AlreadyExists"
    {
        tracing::error!(%error, "Argo CD's objects are not complete");
    }
}

/// The definitions, the namespace and the project that Argo CD comes with, unless they exist.
fn install(store: &Store) {
    for (kind, plural, short_names) in [
        ("Application", "applications", ["app", "apps"]),
        ("AppProject", "appprojects", ["appproj", "appprojs"]),
    ] {
        let schema = json!({"type": "object", "required": ["metadata", "spec"],
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{GROUP}")},
            "spec": {"group": GROUP, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "shortNames": short_names},
                "versions": [{"name": VERSION, "served": true, "storage": true,
                              "schema": {"openAPIV3Schema": schema}}]}});
        ensure(store, &DEFINITIONS, definition);
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}});
    ensure(store, &NAMESPACES, namespace);
    if let Some(projects) = store.registry().by_path(GROUP, VERSION, "appprojects") {
        let project = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "AppProject",
            "metadata": {"name": "default", "namespace": HOME},
            "spec": {"sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}],
                     "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}});
        ensure(store, projects, project);
    }
}
