//! The kubelet: one task per pod, started and stopped as the pods of the API come and go.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kubelet::image::Images;
use crate::kubelet::logs::Logs;
use crate::kubelet::pod::Stop;
use crate::kubelet::ports::Ports;
use crate::object::{self, number, text};
use crate::recorder::Recorder;
use crate::resources::PODS;
use crate::store::{Change, ChangeKind, Store};

mod back_off;
mod environment;
pub(crate) mod image;
mod layout;
pub(crate) mod logs;
pub(crate) mod node;
mod pod;
pub(crate) mod ports;
pub(crate) mod probe;
pub(crate) mod process;
mod program;
mod reference;
mod refusal;
mod registry;
mod status;
mod unpack;

/// When the whole cluster ends, a pod gets at most this from SIGTERM to SIGKILL.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// What the pods share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: Arc<Store>,
    pub(crate) images: Images,
    pub(crate) logs: Arc<Logs>,
    pub(crate) ports: Ports,
    pub(crate) kubelet: Recorder,
    /// The executable that becomes a pod's shim.
    pub(crate) shim: PathBuf,
    /// The first pause before a restart or another pull.
    pub(crate) back_off: Duration,
    /// Pods have no process and are ready after this.
    pub(crate) pretend: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Kubelet {
    context: Arc<Context>,
    /// By the pod's uid.
    pods: HashMap<String, watch::Sender<Option<Stop>>>,
    tasks: JoinSet<String>,
}

impl Kubelet {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context: Arc::new(context),
            pods: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs pods until shutdown, and stops them then.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut feed = self.context.store.watch(self.context.store.version());
        self.look_at_all();
        loop {
            let changes = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(uid) = ended {
                        self.pods.remove(&uid);
                    }
                    continue;
                }
                changes = feed.next() => changes,
            };
            match changes {
                Ok(changes) => changes
                    .iter()
                    .filter(|c| c.resource == &PODS)
                    .for_each(|c| self.notice(c)),
                Err(error) if error.code == 410 => {
                    feed = self.context.store.watch(self.context.store.version());
                    self.look_at_all();
                }
                Err(_) => break,
            }
        }
        for stop in self.pods.values() {
            stop.send_replace(Some(Stop {
                grace: SHUTDOWN_GRACE,
                shutdown: true,
            }));
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn look_at_all(&mut self) {
        let (pods, _) = self.context.store.list(&PODS, None);
        let alive: HashSet<&str> = pods.iter().map(|pod| object::uid(pod)).collect();
        for (uid, stop) in &self.pods {
            if !alive.contains(uid.as_str()) {
                stop.send_replace(Some(Stop {
                    grace: Duration::ZERO,
                    shutdown: false,
                }));
            }
        }
        for pod in &pods {
            self.look_at(pod);
        }
    }

    fn notice(&mut self, change: &Change) {
        if change.kind == ChangeKind::Deleted {
            match self.pods.get(object::uid(&change.object)) {
                Some(stop) => {
                    stop.send_replace(Some(Stop {
                        grace: Duration::ZERO,
                        shutdown: false,
                    }));
                }
                None => self.context.logs.remove(object::uid(&change.object)),
            }
        } else {
            self.look_at(&change.object);
        }
    }

    fn look_at(&mut self, pod: &Arc<Value>) {
        let uid = object::uid(pod);
        let grace = number(pod, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let stop = object::is_deleting(pod).then_some(Stop {
            grace,
            shutdown: false,
        });
        if let Some(sender) = self.pods.get(uid) {
            if stop.is_some() {
                sender.send_if_modified(|current| {
                    let is_new = *current != stop && current.is_none_or(|c| c.grace > grace);
                    if is_new {
                        *current = stop;
                    }
                    is_new
                });
            }
            return;
        }
        let is_over = matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed");
        let is_placed = !text(pod, &["spec", "nodeName"]).is_empty();
        // A pod that only waits for a finalizer has ended already.
        let has_ended = stop.is_some() && grace.is_zero();
        if is_over && stop.is_none() || !is_placed || has_ended {
            return;
        }
        let (sender, stops) = watch::channel(stop);
        self.pods.insert(uid.to_owned(), sender);
        let (context, pod, uid) = (Arc::clone(&self.context), Arc::clone(pod), uid.to_owned());
        self.tasks.spawn(async move {
            pod::run(context, pod, stops).await;
            uid
        });
    }
}
