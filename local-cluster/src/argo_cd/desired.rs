//! The desired state of an Application: a commit of its repository, rendered and completed.

use std::sync::{Arc, PoisonError};

use serde_json::Value;

use crate::argo_cd::application::{self, has_fault};
use crate::argo_cd::git::Repository;
use crate::argo_cd::target::{self, Key};
use crate::argo_cd::{REPOSITORIES, Shared, render};
use crate::object::text;

/// How many renderings are kept.
const KEPT: usize = 64;

/// The objects of one folder of one commit.
#[derive(Debug)]
pub(super) struct Rendered {
    objects: Vec<Value>,
    kustomized: bool,
}

/// What git wants for an Application.
#[derive(Debug)]
pub(super) struct Desired {
    pub(super) commit: String,
    pub(super) targets: Vec<Value>,
    /// The keys that occur twice in git.
    pub(super) repeated: Vec<Key>,
    pub(super) kustomized: bool,
}

impl Shared {
    /// Renders the Application at `revision`; `hard` forgets what was rendered before.
    ///
    /// # Errors
    /// Argo CD's message about a target state that cannot be loaded.
    pub(super) async fn desired(
        &self,
        application: &Value,
        revision: &str,
        hard: bool,
    ) -> Result<Desired, String> {
        let loaded = if has_fault(application, "error") {
            Err("an error was ordered".to_owned())
        } else {
            self.load(application, revision, hard).await
        };
        let (commit, rendered) = loaded.map_err(|error| {
            format!(
                "Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = {error}"
            )
        })?;
        let namespace = text(application, &["spec", "destination", "namespace"]);
        let instance = application::instance(application);
        let registry = self.store.registry();
        let (targets, repeated) = target::place(&rendered.objects, &instance, namespace, |object| {
            target::resource_of(registry, object)
        });
        Ok(Desired {
            commit,
            targets,
            repeated,
            kustomized: rendered.kustomized,
        })
    }

    async fn load(
        &self,
        application: &Value,
        revision: &str,
        hard: bool,
    ) -> Result<(String, Arc<Rendered>), String> {
        let source = &application["spec"]["source"];
        if !source.is_object() {
            return Err("spec.source is required; local-cluster knows no spec.sources".to_owned());
        }
        if source["chart"].is_string() || source["helm"].is_object() {
            return Err("Helm charts are not rendered by local-cluster".to_owned());
        }
        let (url, path) = (text(source, &["repoURL"]), text(source, &["path"]));
        let repository = Repository::new(&self.cache.join(REPOSITORIES), url)?;
        let commit = repository.resolve(revision).await?;
        let key = (url.to_owned(), path.to_owned(), commit.clone());
        let known = self
            .rendered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(known) = known.filter(|_| !hard) {
            return Ok((commit, known));
        }
        std::fs::create_dir_all(&self.cache).map_err(|error| format!("{}: {error}", self.cache.display()))?;
        let folder = tempfile::tempdir_in(&self.cache).map_err(|error| error.to_string())?;
        repository.check_out(&commit, folder.path()).await?;
        let rendered = Arc::new(Rendered {
            objects: render::render(folder.path(), path).await?,
            kustomized: render::is_kustomization(folder.path(), path),
        });
        let mut all = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.pop_first();
        }
        all.insert(key, Arc::clone(&rendered));
        Ok((commit, rendered))
    }
}

/// The revision that an Application follows.
pub(super) fn target_revision(application: &Value) -> &str {
    match text(application, &["spec", "source", "targetRevision"]) {
        "" => "HEAD",
        revision => revision,
    }
}

/// Whether the destination is this cluster.
///
/// # Errors
/// Argo CD's message for others.
pub(super) fn check_destination(application: &Value) -> Result<(), String> {
    let destination = &application["spec"]["destination"];
    match (text(destination, &["server"]), text(destination, &["name"])) {
        ("https://kubernetes.default.svc", "") | ("", "in-cluster") => Ok(()),
        ("", "") => Err("Destination server missing from app spec".to_owned()),
        (server, "") => Err(format!(
            "cluster '{server}' has not been configured; local-cluster knows https://kubernetes.default.svc"
        )),
        ("", name) => Err(format!(
            "unable to find destination server: there are no clusters with this name: {name}"
        )),
        _ => Err("application destination can't have both name and server defined".to_owned()),
    }
}
