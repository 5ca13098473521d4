//! One pod: its containers, their restarts and probes, and its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::kubelet::Context;
use crate::kubelet::back_off::{BackOff, human};
use crate::kubelet::environment::Source;
use crate::kubelet::ports;
use crate::kubelet::probe::{Kind, Probe, Report};
use crate::kubelet::process::Process;
use crate::kubelet::program;
use crate::kubelet::refusal::Refusal;
use crate::kubelet::status::{self, ContainerStatus, terminated, waiting};
use crate::object::{self, list, text};
use crate::resources::{CONFIG_MAPS, PODS, SECRETS};
use crate::shim;

mod pretend;

/// How long a failed pull is shown as such before it is shown as backing off.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// A container that ran this long counts as stable: its next restart is the first again.
const BACK_OFF_FORGOTTEN: Duration = Duration::from_secs(600);

/// How a pod should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
    /// The cluster ends, the pod's object stays.
    pub(crate) shutdown: bool,
}

pub(crate) type Stops = watch::Receiver<Option<Stop>>;

/// Waits until the pod should stop.
async fn stopped(stops: &mut Stops) -> Stop {
    match stops.wait_for(Option::is_some).await {
        Ok(stop) => stop.unwrap_or(Stop {
            grace: Duration::ZERO,
            shutdown: true,
        }),
        // The kubelet is gone.
        Err(_) => Stop {
            grace: Duration::ZERO,
            shutdown: true,
        },
    }
}

/// Waits for the time to pass; true if the pod should stop before.
async fn pause(stops: &mut Stops, duration: Duration) -> bool {
    tokio::select! {
        _ = stopped(stops) => true,
        () = sleep(duration) => false,
    }
}

struct Pod {
    context: Arc<Context>,
    pod: Arc<Value>,
    containers: Mutex<Vec<ContainerStatus>>,
    /// Local ports by container.
    ports: Mutex<Value>,
}

/// Runs a pod until it is told to stop. Returns when nothing of it is left.
pub(crate) async fn run(context: Arc<Context>, pod: Arc<Value>, mut stops: Stops) {
    let now = Timestamp::now();
    let containers: Vec<ContainerStatus> = list(&pod, &["spec", "containers"])
        .iter()
        .map(|container| ContainerStatus::begin(container, &pod, now))
        .collect();
    let worker = Arc::new(Pod {
        ports: Mutex::new(ports::of_pod(&pod)),
        containers: Mutex::new(containers),
        context,
        pod,
    });
    worker.publish();
    if let Some(after) = worker.context.pretend {
        worker.pretend(after, &mut stops).await;
    } else {
        let mut tasks = JoinSet::new();
        for index in 0..list(&worker.pod, &["spec", "containers"]).len() {
            tasks.spawn(Arc::clone(&worker).container(index, stops.clone()));
        }
        while tasks.join_next().await.is_some() {}
    }
    // A pod that ran to its end stays, with its logs, until it is deleted.
    let stop = stopped(&mut stops).await;
    if !stop.shutdown {
        worker.finish();
    }
}

impl Pod {
    fn uid(&self) -> &str {
        object::uid(&self.pod)
    }

    fn spec(&self, index: usize) -> &Value {
        list(&self.pod, &["spec", "containers"])
            .get(index)
            .unwrap_or(&Value::Null)
    }

    /// Changes a container's status and writes the pod's.
    fn set(&self, index: usize, change: impl FnOnce(&mut ContainerStatus)) {
        if let Some(status) = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(index)
        {
            change(status);
        }
        self.publish();
    }

    fn status(&self, index: usize) -> Option<ContainerStatus> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(index)
            .cloned()
    }

    fn publish(&self) {
        let containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let ports = self
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .to_string();
        let (namespace, name) = (object::namespace(&self.pod), object::name(&self.pod));
        let result = self.context.store.update(&PODS, namespace, name, |old| {
            if object::uid(old) != self.uid() {
                return Ok(old.clone());
            }
            let mut new = status::write(old, &containers, Timestamp::now());
            if ports != "null" {
                object::set_annotation(&mut new, ports::ANNOTATION, &ports);
            }
            Ok(new)
        });
        if let Err(error) = result {
            tracing::debug!(%error, name, "pod status not written");
        }
    }

    /// Releases the object: everything of the pod is over.
    fn finish(&self) {
        let (namespace, name) = (object::namespace(&self.pod), object::name(&self.pod));
        let result = self.context.store.update(&PODS, namespace, name, |old| {
            let mut new = old.clone();
            if object::uid(old) == self.uid() && object::is_deleting(old) {
                object::metadata(&mut new).insert("deletionGracePeriodSeconds".to_owned(), json!(0));
            }
            Ok(new)
        });
        if let Err(error) = result {
            tracing::debug!(%error, name, "pod was gone already");
        }
        self.context.logs.remove(self.uid());
    }

    /// Runs one container, again and again, until the pod stops or the restart policy says that it is done.
    async fn container(self: Arc<Self>, index: usize, mut stops: Stops) {
        let mut back_off = BackOff::new(self.context.back_off);
        let policy = text(&self.pod, &["spec", "restartPolicy"]).to_owned();
        let is_done = |code: i64| policy == "Never" || policy == "OnFailure" && code == 0;
        let last = self.status(index).map(|s| s.last_state).unwrap_or_default();
        let mut is_restart = last["terminated"].is_object();
        if let Some(code) = last["terminated"]["exitCode"].as_i64()
            && is_done(code)
        {
            // It ended before the cluster did.
            return self.set(index, |status| status.state = last);
        }
        loop {
            if stops.borrow().is_some() {
                return;
            }
            let Some((process, started, probes)) = self.start(index, &mut stops).await else {
                return;
            };
            let code = self.watch(index, process, probes, &mut stops).await;
            let now = Timestamp::now();
            self.set(index, |status| {
                let since = status.state["running"]["startedAt"].clone();
                status.state = terminated(code, &since, now, &status.container_id);
                (status.ready, status.started) = (false, false);
            });
            if is_done(code.into()) || stops.borrow().is_some() {
                return;
            }
            if started.elapsed() > BACK_OFF_FORGOTTEN {
                back_off = BackOff::new(self.context.back_off);
                is_restart = false;
            }
            // The first restart is immediate, like the kubelet's.
            if is_restart {
                let wait = back_off.next();
                let container = text(self.spec(index), &["name"]);
                let message = format!(
                    "back-off {} restarting failed container={container} pod={}_{}({})",
                    human(wait),
                    object::name(&self.pod),
                    object::namespace(&self.pod),
                    self.uid()
                );
                self.set(index, |status| {
                    status.last_state = status.state.clone();
                    status.state = waiting("CrashLoopBackOff", &message);
                });
                let event = format!(
                    "Back-off restarting failed container {container} in pod {}",
                    object::name(&self.pod)
                );
                let kubelet = self.context.kubelet.of_container(container);
                kubelet.warning(&self.pod, "BackOff", &event);
                if pause(&mut stops, wait).await {
                    return;
                }
            } else {
                self.set(index, |status| {
                    status.last_state = status.state.clone();
                    status.state = waiting("ContainerCreating", "");
                });
            }
            is_restart = true;
            if let Some(status) = self
                .containers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(index)
            {
                status.restarts += 1;
            }
        }
    }

    /// Gets the image and starts the process; tries until it works. `None` if the pod should stop.
    async fn start(&self, index: usize, stops: &mut Stops) -> Option<(Process, Instant, Vec<Probe>)> {
        let container = self.spec(index).clone();
        let name = text(&container, &["name"]).to_owned();
        let reference = text(&container, &["image"]).to_owned();
        let kubelet = self.context.kubelet.of_container(&name);
        let mut back_off = BackOff::new(self.context.back_off);
        loop {
            let image = tokio::select! {
                _ = stopped(stops) => return None,
                image = self.context.images.get(&reference) => image,
            };
            let image = match image {
                Ok(image) => image,
                Err(error) => {
                    let message = error.to_string();
                    self.set(index, |status| status.state = waiting(error.reason(), &message));
                    kubelet.warning(
                        &self.pod,
                        "Failed",
                        &format!("Failed to pull image \"{reference}\": {message}"),
                    );
                    if pause(stops, PULL_ERROR_SHOWN).await {
                        return None;
                    }
                    if error.reason() == "ErrImagePull" {
                        let message = format!("Back-off pulling image \"{reference}\"");
                        self.set(index, |status| {
                            status.state = waiting("ImagePullBackOff", &message);
                        });
                        kubelet.normal(&self.pod, "BackOff", &message);
                    }
                    if pause(stops, back_off.next()).await {
                        return None;
                    }
                    continue;
                }
            };
            self.set_image(index, &image.id);
            match self.create(&container, &image).await {
                Ok((process, probes)) => {
                    kubelet.normal(
                        &self.pod,
                        "Pulled",
                        &format!("Container image \"{reference}\" already present on machine"),
                    );
                    kubelet.normal(&self.pod, "Created", &format!("Created container: {name}"));
                    kubelet.normal(&self.pod, "Started", &format!("Started container {name}"));
                    let has = |kind: &str| container[kind].is_object();
                    let (starting, probed) = (has("startupProbe"), has("readinessProbe"));
                    self.set(index, |status| {
                        status.state = json!({"running": {"startedAt": object::stamp(Timestamp::now())}});
                        status.container_id = format!("local-cluster://{}", uuid::Uuid::new_v4().simple());
                        status.started = !starting;
                        status.ready = !starting && !probed;
                    });
                    return Some((process, Instant::now(), probes));
                }
                Err(refusal) => {
                    self.set(index, |status| {
                        status.state = waiting(refusal.reason, &refusal.message);
                    });
                    kubelet.warning(&self.pod, "Failed", &format!("Error: {}", refusal.message));
                    if pause(stops, back_off.next()).await {
                        return None;
                    }
                }
            }
        }
    }

    fn set_image(&self, index: usize, id: &str) {
        if let Some(status) = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(index)
        {
            id.clone_into(&mut status.image_id);
        }
    }

    async fn create(
        &self,
        container: &Value,
        image: &crate::kubelet::image::Image,
    ) -> Result<(Process, Vec<Probe>), Refusal> {
        let refuse = |message: String| Refusal {
            reason: "CreateContainerError",
            message,
        };
        let ports = self
            .assign_ports(container)
            .ok_or_else(|| refuse("no free local port is left".to_owned()))?;
        let namespace = object::namespace(&self.pod);
        let lookup = |source: Source, name: &str| {
            let resource = match source {
                Source::ConfigMap => &CONFIG_MAPS,
                Source::Secret => &SECRETS,
            };
            let found = self.context.store.get(resource, namespace, name);
            found.map(|found| Value::clone(&found))
        };
        let program = program::program(image, &self.pod, container, &ports, lookup)?;
        let mut probes = Vec::new();
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            probes.extend(Probe::read(container, kind, &ports).map_err(refuse)?);
        }
        let name = text(container, &["name"]);
        let log = self
            .context
            .logs
            .start(self.uid(), name)
            .map_err(|error| refuse(format!("log: {error}")))?;
        let process = Process::start(&self.context.shim, &program, log).await;
        let process = process.map_err(|error| Refusal {
            reason: "RunContainerError",
            message: format!("the shim could not be started: {error}"),
        })?;
        Ok((process, probes))
    }

    /// New ports for a container, the old ones if they are still free.
    fn assign_ports(&self, container: &Value) -> Option<Value> {
        let name = text(container, &["name"]);
        let mut all = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all[name].take();
        self.context.ports.release(&numbers(&before));
        let assigned = self.context.ports.assign(container, &before)?;
        let assigned = Value::Object(assigned);
        if !all.is_object() {
            *all = json!({});
        }
        all[name] = assigned.clone();
        Some(assigned)
    }

    /// Follows the process and its probes to its end, which it causes if it must. Returns the exit code.
    async fn watch(&self, index: usize, mut process: Process, probes: Vec<Probe>, stops: &mut Stops) -> i32 {
        let (sender, mut reports) = mpsc::channel(16);
        let mut running = JoinSet::new();
        let (startup, mut later): (Vec<Probe>, Vec<Probe>) =
            probes.into_iter().partition(|p| p.kind() == Kind::Startup);
        let is_starting = !startup.is_empty();
        for probe in if is_starting {
            startup
        } else {
            std::mem::take(&mut later)
        } {
            running.spawn(probe.run(sender.clone()));
        }
        let has_readiness = self.spec(index)["readinessProbe"].is_object();
        let name = text(self.spec(index), &["name"]).to_owned();
        let kubelet = self.context.kubelet.of_container(&name);
        loop {
            let report = tokio::select! {
                code = process.wait() => return code,
                stop = stopped(stops) => {
                    running.abort_all();
                    if !stop.shutdown {
                        kubelet.normal(&self.pod, "Killing", &format!("Stopping container {name}"));
                    }
                    return end(&mut process, stop.grace, stops).await;
                }
                Some(report) = reports.recv() => report,
            };
            match report {
                Report::Bad { kind, message } => {
                    let message = format!("{} probe failed: {message}", kind.name());
                    kubelet.warning(&self.pod, "Unhealthy", &message);
                }
                Report::Verdict {
                    kind: Kind::Readiness,
                    good,
                } => self.set(index, |status| status.ready = good),
                Report::Verdict {
                    kind: Kind::Startup,
                    good: true,
                } => {
                    self.set(index, |status| {
                        status.started = true;
                        status.ready = !has_readiness;
                    });
                    for probe in std::mem::take(&mut later) {
                        running.spawn(probe.run(sender.clone()));
                    }
                }
                Report::Verdict { good: true, .. } => {}
                Report::Verdict { kind, good: false } => {
                    let kind = kind.name().to_lowercase();
                    let message = format!("Container {name} failed {kind} probe, will be restarted");
                    kubelet.normal(&self.pod, "Killing", &message);
                    running.abort_all();
                    let grace =
                        object::number(&self.pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
                    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
                    return end(&mut process, grace, stops).await;
                }
            }
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        for container in ports.as_object().into_iter().flatten() {
            self.context.ports.release(&numbers(container.1));
        }
    }
}

/// SIGTERM, then SIGKILL after the grace period, which a later order may shorten.
async fn end(process: &mut Process, grace: Duration, stops: &mut Stops) -> i32 {
    let begun = Instant::now();
    let mut deadline = begun + grace;
    if !grace.is_zero() {
        process.order(shim::TERMINATE).await;
    }
    loop {
        tokio::select! {
            code = process.wait() => return code,
            () = sleep_until(deadline) => {
                process.order(shim::KILL).await;
                return process.wait().await;
            }
            changed = stops.changed() => {
                let grace = stops.borrow_and_update().map_or(Duration::ZERO, |stop| stop.grace);
                deadline = deadline.min(begun + grace);
                if changed.is_err() {
                    deadline = Instant::now();
                }
            }
        }
    }
}

fn numbers(ports: &Value) -> Vec<u16> {
    let values = ports.as_object().into_iter().flatten();
    values
        .filter_map(|(_, port)| u16::try_from(port.as_u64()?).ok())
        .collect()
}
