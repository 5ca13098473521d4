//! The four services as separate processes, any number of replicas of each, on PostgreSQL and Redis, with an image
//! registry, git repositories and a cluster.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use serde_json::json;
use slipway_testbed::{Access, Postgres, Redis, Registry, TestDir, free_port, patience};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    Application, Clients, GitOps, Person,
    clients::{Addresses, token},
    cluster::Cluster,
    configs::Replica,
    process::Process,
    programs::{self, CLUSTER, SERVICES},
    scene::{self, Service, SetUp},
};

/// An existing cluster instead of the local one: the path of a kubeconfig.
const KUBECONFIG: &str = "SLIPWAY_TEST_KUBECONFIG";
/// With [`KUBECONFIG`], the prefix of the images' names in a registry that this machine may push to and that cluster
/// pulls from, such as `registry.example/team`.
const IMAGE_PREFIX: &str = "SLIPWAY_TEST_IMAGE_PREFIX";

/// The parameters of a suite.
#[derive(Debug, Default)]
pub struct Options {
    /// For each service; 0 means 2.
    pub replicas: usize,
    pub services: Vec<Service>,
    pub set_ups: Vec<SetUp>,
    /// The services are this same program, started with [`SERVES`], which gives them backends that answer at once: no
    /// repositories, registry or cluster are created, and PostgreSQL is as durable as in production.
    pub at_once: bool,
}

/// Names the service that a program of [`Options::at_once`] is to serve.
pub const SERVES: &str = "SLIPWAY_BENCH_SERVES";

/// A cluster that is never called.
const NOWHERE: &str = "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}], \
    clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: x, user: {}}]}";

/// Everything that is running, killed by process id when dropped.
#[derive(Debug)]
pub struct Suite {
    // Fields are dropped in this order: programs before what they use.
    processes: Vec<Process>,
    cluster_process: Option<Process>,
    pub redis: Redis,
    /// Refuses every push; it has the images of services whose name begins with this.
    pub refusing: Option<Registry>,
    _registry: Option<Registry>,
    pub cluster: Cluster,
    /// Namespaces to delete at the end: the cluster is somebody else's.
    made: Vec<String>,
    scope: String,
    /// The beginning of the images' names.
    prefix: String,
    pub gitops: GitOps,
    applications: BTreeMap<&'static str, Application>,
    addresses: Vec<Addresses>,
    at_once: bool,
    /// Its databases, if it does not share those of all tests.
    _durable: Option<Postgres>,
    folder: TestDir,
}

/// A suite that the tests of one program share: started by the first, ended with the last.
#[derive(Debug)]
pub struct Shared(tokio::sync::Mutex<Weak<Suite>>);

impl Shared {
    #[allow(clippy::new_without_default)] // for statics
    pub const fn new() -> Self {
        Self(tokio::sync::Mutex::const_new(Weak::new()))
    }

    /// The running suite, or a new one.
    pub async fn get(&self, options: impl FnOnce() -> Options) -> Arc<Suite> {
        let mut shared = self.0.lock().await;
        if let Some(suite) = shared.upgrade() {
            return suite;
        }
        let suite = Arc::new(Suite::start(options()).await);
        *shared = Arc::downgrade(&suite);
        suite
    }
}

impl Suite {
    /// Starts everything, and waits until each process serves.
    pub async fn start(options: Options) -> Self {
        let needed: Vec<&str> = SERVICES.into_iter().chain([CLUSTER]).collect();
        if !options.at_once {
            // Cargo may have to build them.
            tokio::task::spawn_blocking(move || programs::ensure(&needed))
                .await
                .unwrap();
        }
        let folder = TestDir::new("suite").unwrap();
        let root = folder.path().to_owned();
        let durable = match options.at_once {
            true => Some(Postgres::start_with(true).await.unwrap()),
            false => None,
        };
        let postgres = match &durable {
            Some(postgres) => postgres,
            None => slipway_testbed::postgres().await.unwrap(),
        };
        let redis = Redis::start().await.unwrap();
        let (mut registry, mut refusing) = (None, None);
        if !options.at_once {
            registry = Some(Registry::start().await.unwrap());
            refusing = Some(Registry::start_with(Access::ReadOnly).await.unwrap());
        }

        let real_cluster = std::env::var_os(KUBECONFIG).map(PathBuf::from);
        let cluster_process = (!options.at_once && real_cluster.is_none()).then(|| start_cluster(&root));
        let kubeconfig = real_cluster
            .clone()
            .unwrap_or_else(|| root.join("cluster/kubeconfig"));
        // Of two suites in one cluster, none sees the other's objects and tags.
        let scope = match &real_cluster {
            Some(_) => format!("-{:06x}", fastrand::u32(..1 << 24)),
            None => String::new(),
        };
        let prefix = match (&real_cluster, &registry) {
            (Some(_), _) => {
                let given = std::env::var(IMAGE_PREFIX)
                    .unwrap_or_else(|_| panic!("{KUBECONFIG} needs {IMAGE_PREFIX}"));
                format!("{}/suite{scope}", given.trim_end_matches('/'))
            }
            (None, Some(registry)) => registry.address(),
            (None, None) => "at-once.example".to_owned(),
        };
        let mut registries = format!("  - {{ prefix: \"{prefix}\", kind: oci");
        registries += match slipway_testbed::is_plain(&prefix) {
            true => ", tls: plaintext }\n",
            false => " }\n",
        };
        if let Some(refusing) = &refusing {
            registries += &format!(
                "  - {{ prefix: \"{}\", kind: oci, tls: plaintext }}\n",
                refusing.address()
            );
        }

        let services: Vec<Service> = options
            .services
            .into_iter()
            .map(|mut service| {
                if service.image_prefix.as_deref() == Some(REFUSING) {
                    service.image_prefix = refusing.as_ref().map(Registry::address);
                }
                service.scope.clone_from(&scope);
                service
            })
            .collect();
        let source = |service: &Service| root.join(format!("apps/{}.git", service.name));
        let mut applications = BTreeMap::new();
        if !options.at_once {
            for service in &services {
                applications.insert(service.name, Application::new(&source(service)));
            }
        }
        let seeded: &[Service] = if options.at_once { &[] } else { &services };
        let gitops = GitOps::new(&root.join("platform.git"), seeded);
        if options.at_once {
            fs::create_dir_all(root.join("cluster")).unwrap();
            fs::write(&kubeconfig, NOWHERE).unwrap();
        }
        let catalog = root.join("catalog.yaml");
        let mut text = scene::catalog(
            &services,
            |service| format!("file://{}", source(service).display()),
            |service| {
                format!(
                    "{}/{}",
                    service.image_prefix.as_ref().unwrap_or(&prefix),
                    service.name
                )
            },
        );
        let words = [
            ("${IMAGES}", prefix.clone()),
            ("${SOURCES}", format!("file://{}", root.join("apps").display())),
            ("${GITOPS}", gitops.repository.url()),
            ("${SCOPE}", scope.clone()),
        ];
        let filled = |text: &str| {
            let fill = |text: String, (word, value): &(&str, String)| text.replace(word, value);
            words.iter().fold(text.to_owned(), fill)
        };
        for set_up in &options.set_ups {
            for name in &set_up.services {
                applications.insert(name, Application::new(&root.join(format!("apps/{name}.git"))));
            }
            text += &filled(&set_up.catalog);
            let files = set_up.files.iter();
            let files: Vec<_> = files.map(|(path, text)| (path.clone(), filled(text))).collect();
            gitops.commit("feat: a set-up", &files);
        }
        fs::write(&catalog, text).unwrap();

        let of = |service: &Service| -> Vec<String> {
            let all = service.environments.iter();
            all.map(|(environment, _)| service.namespace(environment))
                .collect()
        };
        let set_up: Vec<String> = options
            .set_ups
            .iter()
            .flat_map(|set_up| &set_up.namespaces)
            .map(|name| format!("{name}{scope}"))
            .collect();
        let mut made = set_up.clone();
        made.extend(services.iter().flat_map(of));
        let mut suite = Self {
            processes: Vec::new(),
            cluster_process,
            redis,
            refusing,
            _registry: registry,
            cluster: Cluster { kubeconfig },
            made: if real_cluster.is_some() { made } else { Vec::new() },
            scope,
            prefix,
            gitops,
            applications,
            addresses: Vec::new(),
            at_once: options.at_once,
            _durable: None,
            folder,
        };
        suite.cluster_serves().await;
        for name in set_up {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            suite.cluster.apply(&namespace);
        }
        if suite.has_argo_cd() {
            let url = suite.gitops.repository.url();
            for service in services.iter().filter(|service| service.argo_cd) {
                for application in service.applications(&url) {
                    suite.cluster.apply(&application);
                }
            }
        }
        let mut databases = Vec::new();
        for _ in SERVICES {
            databases.push(postgres.create_database().await.unwrap());
        }
        suite._durable = durable;
        let replicas = if options.replicas == 0 {
            2
        } else {
            options.replicas
        };
        for number in 0..replicas {
            suite.start_replica(number, &databases, &registries, &catalog);
        }
        suite.all_serve().await;
        suite
    }

    /// Whether something in the cluster syncs Applications: not in an external one, as far as is known.
    pub fn has_argo_cd(&self) -> bool {
        self.cluster_process.is_some()
    }

    fn start_replica(&mut self, number: usize, databases: &[String], registries: &str, catalog: &Path) {
        let ports: Vec<u16> = SERVICES.iter().map(|_| free_port().unwrap()).collect();
        let urls: Vec<String> = ports
            .iter()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        let urls: [String; 4] = urls.try_into().unwrap();
        let redis = self.redis.url();
        for (index, service) in SERVICES.into_iter().enumerate() {
            let name = format!("{service}-{number}");
            let (own, shared) = (self.path(&name), self.path(service));
            fs::create_dir_all(&own).unwrap();
            fs::create_dir_all(&shared).unwrap();
            let replica = Replica {
                folder: &own,
                shared: &shared,
                port: ports[index],
                database: &databases[index],
                redis: &redis,
                at_once: self.at_once,
            };
            let text = match index {
                0 => replica.build(registries),
                1 => replica.gitops(&self.gitops.repository.url()),
                2 => replica.approval(),
                _ => {
                    let others = [urls[0].clone(), urls[1].clone(), urls[2].clone()];
                    replica.deploy(&others, catalog, &self.cluster.kubeconfig)
                }
            };
            let config = own.join("config.yaml");
            fs::write(&config, text).unwrap();
            let process = self.run(service, number, self.at_once);
            self.processes.push(process);
        }
        self.addresses.push(Addresses { urls, ca_file: None });
    }

    /// Starts a replica's process, whose configuration exists.
    fn run(&self, service: &str, number: usize, at_once: bool) -> Process {
        let name = format!("{service}-{number}");
        let own = self.path(&name);
        let config = own.join("config.yaml");
        let arguments = [OsStr::new("--config"), config.as_os_str()];
        let (program, environment) = match at_once {
            true => (
                std::env::current_exe().unwrap(),
                vec![(SERVES, service.to_owned())],
            ),
            false => (programs::program(service), Vec::new()),
        };
        Process::start(&name, &program, &own.join("log"), &arguments, &environment)
    }

    /// Asks a replica to end, starts it again, and returns how long it took from its start until it served.
    pub async fn restart(&mut self, service: &str, replica: usize) -> Duration {
        self.restart_as(service, replica, self.at_once).await
    }

    /// As [`restart`](Self::restart), now with its own program, as it is installed.
    pub async fn restart_installed(&mut self, service: &str, replica: usize) -> Duration {
        self.restart_as(service, replica, false).await
    }

    async fn restart_as(&mut self, service: &str, replica: usize, at_once: bool) -> Duration {
        self.process(service, replica).terminate().await;
        let began = Instant::now();
        let index = replica * SERVICES.len() + position(service);
        self.processes[index] = self.run(service, replica, at_once);
        let url = self.addresses[replica].urls[position(service)].clone();
        serves(&mut self.processes[index], &url).await;
        began.elapsed()
    }

    async fn cluster_serves(&mut self) {
        let Some(process) = &mut self.cluster_process else {
            return;
        };
        let began = Instant::now();
        while !process.last_output().contains("export KUBECONFIG=") {
            if let Some(status) = process.has_ended() {
                panic!("the cluster ended with {status}:\n{}", process.last_output());
            }
            assert!(began.elapsed() < patience(), "the cluster does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn all_serve(&mut self) {
        for (number, process) in self.processes.iter_mut().enumerate() {
            let url = &self.addresses[number / SERVICES.len()].urls[number % SERVICES.len()];
            serves(process, url).await;
        }
    }

    /// A person's clients, using one replica of each service.
    pub fn client(&self, person: Person, replica: usize) -> Clients {
        self.client_with(Some(&token(person)), replica)
    }

    /// Clients with any token, or none.
    pub fn client_with(&self, token: Option<&str>, replica: usize) -> Clients {
        Clients::new(&self.addresses[replica % self.addresses.len()], token)
    }

    /// Where a replica's services listen.
    pub fn addresses(&self, replica: usize) -> &Addresses {
        &self.addresses[replica]
    }

    /// The source repository of a service.
    pub fn application(&self, service: &str) -> &Application {
        &self.applications[service]
    }

    /// The names of a service's tags in the registry.
    pub async fn tags(&self, service: &str) -> Vec<String> {
        slipway_testbed::tags(&self.image(service)).await.unwrap()
    }

    /// The whole name of a set-up's namespace.
    pub fn scoped(&self, namespace: &str) -> String {
        format!("{namespace}{}", self.scope)
    }

    /// The whole name of a service's image.
    pub fn image(&self, service: &str) -> String {
        format!("{}/{service}", self.prefix)
    }

    /// The namespace of one of a service's environments.
    pub fn namespace(&self, service: &str, environment: &str) -> String {
        self.scoped(&format!("{service}-{environment}"))
    }

    /// A file or folder of this suite.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One replica of one service.
    pub fn process(&mut self, service: &str, replica: usize) -> &mut Process {
        &mut self.processes[replica * SERVICES.len() + position(service)]
    }

    /// Kills one replica of a service, as `kill -9` does.
    pub fn kill(&mut self, service: &str, replica: usize) {
        self.process(service, replica).kill();
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        self.cluster.delete_namespaces(&self.made);
    }
}

fn position(service: &str) -> usize {
    SERVICES.iter().position(|name| *name == service).unwrap()
}

/// [`Service::image_prefix`] of a service whose registry refuses pushes.
pub const REFUSING: &str = "refusing";

fn start_cluster(root: &Path) -> Process {
    let data = root.join("cluster");
    let arguments = [OsStr::new("--argo-cd"), OsStr::new("--data"), data.as_os_str()];
    Process::start(
        CLUSTER,
        &programs::program(CLUSTER),
        &root.join("cluster.log"),
        &arguments,
        &[],
    )
}

/// Waits until a service's health is SERVING.
pub async fn serves(process: &mut Process, url: &str) {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect_lazy();
    let mut health = HealthClient::new(channel);
    let began = Instant::now();
    loop {
        let answer = health.check(HealthCheckRequest::default()).await;
        if answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving) {
            return;
        }
        if let Some(status) = process.has_ended() {
            panic!(
                "a service ended with {status} instead of serving:\n{}",
                process.last_output()
            );
        }
        assert!(
            began.elapsed() < patience(),
            "{url} does not serve:\n{}",
            process.last_output()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
