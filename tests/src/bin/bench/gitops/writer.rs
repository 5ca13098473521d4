//! gitops-svc in a separate process, and clients that write through it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::join_all};
use slipway_proto::gitops::v1::{
    ApplyChangeRequest, Change, Edit, KustomizeImage, WatchChangeRequest, change::Status, edit,
    git_ops_service_client::GitOpsServiceClient,
};
use slipway_server::{Channel, ClientConfig, TokenHash};
use slipway_testbed::{free_port, tool};
use slipway_tests::{process::Process, programs, suite::serves};

use super::remote::{Remote, SERVICES, overlay};

const TOKEN: &str = "bench-token";
/// Connections shared by the writers.
const CONNECTIONS: usize = 8;

/// The service with one repository, and what was written through it.
#[derive(Debug)]
pub(crate) struct Writer {
    process: Process,
    data: PathBuf,
    clients: Vec<GitOpsServiceClient<Channel>>,
    number: AtomicUsize,
}

/// The result of writing for a while.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Milliseconds from each request until it was known to be pushed, for those that ended during the measurement.
    pub(crate) times: Vec<f64>,
    /// How long it was measured.
    pub(crate) measured: Duration,
    /// All of them by id, with their commits.
    pub(crate) commits: HashMap<String, String>,
}

impl Load {
    pub(crate) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_by(f64::total_cmp);
        self.measured += other.measured;
        self.commits.extend(other.commits);
    }

    /// Changes each second.
    pub(crate) fn rate(&self) -> f64 {
        crate::per_second(self.times.len() as u64, self.measured)
    }
}

impl Writer {
    /// Starts the service in a folder of its own. `renders`: what is to be committed is rendered first.
    pub(crate) async fn start(folder: &Path, remote: &Remote, database: &str, renders: bool) -> Self {
        fs::create_dir_all(folder).unwrap();
        let port = free_port().unwrap();
        let data = folder.join("data");
        let config = folder.join("config.yaml");
        let hash = String::from(TokenHash::of(TOKEN));
        fs::write(
            &config,
            format!(
                "server:\n  listen: 127.0.0.1:{port}\n  principals:\n    \
                 - {{ subject: bench, token_sha256: \"{hash}\", roles: [{{ actions: [read, start] }}] }}\n\
                 database: {{ url: \"{database}\" }}\ndata_dir: {}\ntelemetry: {{ log_filter: warn }}\n\
                 kustomize: {{ path: \"{}\" }}\n\
                 repositories:\n  platform: {{ url: \"{}\", render_before_commit: {renders} }}\n",
                data.display(),
                tool("kustomize").unwrap().display(),
                remote.url()
            ),
        )
        .unwrap();
        let arguments = [OsStr::new("--config"), config.as_os_str()];
        let program = programs::program("gitops-svc");
        let mut process = Process::start("gitops-svc", &program, &folder.join("log"), &arguments, &[]);
        let url = format!("http://127.0.0.1:{port}");
        serves(&mut process, &url).await;
        let connect = |_| GitOpsServiceClient::new(ClientConfig::new(&url, TOKEN).connect("gitops").unwrap());
        Self {
            process,
            data,
            clients: (0..CONNECTIONS).map(connect).collect(),
            number: AtomicUsize::new(0),
        }
    }

    /// Writes one change, for each service in turn and to a new tag, and waits until it is pushed.
    pub(crate) async fn write(&self) -> Change {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut client = self.clients[number % CONNECTIONS].clone();
        let service = number % SERVICES;
        let image = KustomizeImage {
            path: overlay(service),
            name: "app".to_owned(),
            new_tag: format!("v1.{number}"),
            ..KustomizeImage::default()
        };
        let request = ApplyChangeRequest {
            request_id: format!("bench-{number}"),
            repository: "platform".to_owned(),
            service: format!("svc-{service:03}"),
            environment: "prod".to_owned(),
            edits: vec![Edit {
                edit: Some(edit::Edit::KustomizeImage(image)),
            }],
            ..ApplyChangeRequest::default()
        };
        let mut change = client
            .apply_change(request)
            .await
            .unwrap()
            .into_inner()
            .change
            .unwrap();
        if change.status() == Status::Pending {
            let request = WatchChangeRequest {
                id: change.id.clone(),
                etag: change.etag.clone(),
            };
            let mut watch = client.watch_change(request).await.unwrap().into_inner();
            while let Some(next) = watch.next().await {
                change = next.unwrap().change.unwrap();
            }
        }
        assert_eq!(change.status(), Status::Pushed, "{change:?}");
        change
    }

    /// Writes one change of each service, many at once: each folder was rendered then.
    pub(crate) async fn all(self: &Arc<Self>, writers: usize) -> Vec<Change> {
        let changes = futures::stream::iter(0..SERVICES).map(|_| {
            let this = Arc::clone(self);
            async move { this.write().await }
        });
        changes.buffer_unordered(writers).collect().await
    }

    /// This many writers, each with one change in progress all the time.
    pub(crate) async fn load(self: &Arc<Self>, writers: usize, warm_up: Duration, measure: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..writers).map(|_| {
            let (this, stop) = (Arc::clone(self), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let change = this.write().await;
                    done.push((began, Instant::now(), change));
                }
                done
            })
        });
        let workers: Vec<_> = workers.collect();
        tokio::time::sleep(warm_up).await;
        let from = Instant::now();
        tokio::time::sleep(measure).await;
        let to = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let mut load = Load {
            measured: to - from,
            ..Load::default()
        };
        for done in join_all(workers).await {
            for (began, ended, change) in done.unwrap() {
                if (from..to).contains(&ended) {
                    load.times.push((ended - began).as_secs_f64() * 1e3);
                }
                load.commits.insert(change.id, change.commit);
            }
        }
        load.times.sort_by(f64::total_cmp);
        load
    }

    /// Its peak resident memory, in bytes.
    pub(crate) fn peak(&self) -> f64 {
        crate::idle::memory(self.process.id(), "VmHWM:")
    }

    /// The size of its mirror on disk, in bytes.
    pub(crate) fn mirror(&self) -> u64 {
        super::remote::stored(&self.data)
    }
}
