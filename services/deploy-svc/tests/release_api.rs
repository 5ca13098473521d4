//! ReleaseService over a real connection and a real ledger: which images it takes, and in which form its events go out.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use deploy_domain::release::Release;
use pretty_assertions::assert_eq;
use serde_json::Value;
use slipway_events::{Bus, BusConfig, Envelope, Handler, MemoryBus};
use slipway_ledger::{Decider, Index, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, Fault, Id, Timestamp};
use slipway_proto::{
    common::v1::Image,
    release::v1::{
        GetReleaseRequest, PlanReleaseRequest, Release as Shown, StartReleaseRequest, StreamEventsRequest,
        release_service_client::ReleaseServiceClient,
    },
};
use slipway_server::{Channel, ClientConfig, ErrorView, TokenHash, Wiring};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// A release of an older version.
const OLD: &str = "rel-old";
const COMMIT: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";
const CATALOG: &str = "
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments: [{ name: dev, policy: none, target: { cluster: local, namespace: dev, name: shop } }]
  - name: mail
    repository: https://git.example/mail.git
    images: [{ name: server, repository: registry.example/mail/server }]
    environments: [{ name: dev, policy: none, target: { cluster: local, namespace: dev, name: mail } }]
";

const CONFIG: &str = "
server: { listen: 127.0.0.1:0, principals: [{ subject: alice, token_sha256: HASH, roles: [{ actions: [read, start] }] }] }
database: { url: 'sqlite://FOLDER/deploy.db' }
catalog: FOLDER/catalog.yaml
clusters: { local: { kubeconfig: FOLDER/kubeconfig } }
build: { url: 'http://127.0.0.1:1' }
gitops: { url: 'http://127.0.0.1:1' }
approval: { url: 'http://127.0.0.1:1' }
";
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts: [{ name: one, context: { cluster: one, user: one } }]
clusters: [{ name: one, cluster: { server: 'https://127.0.0.1:1' } }]
users: [{ name: one, user: {} }]
";

/// deploy-svc in this process; whom it would ask is not there.
struct Service {
    url: String,
    bus: MemoryBus,
    shutdown: CancellationToken,
    folder: tempfile::TempDir,
}

impl Service {
    async fn start() -> Self {
        Self::after(Vec::new()).await
    }

    /// Begins with these events of the release [`OLD`], which an older version recorded.
    async fn after(recorded: Vec<Value>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = CONFIG
            .replace("FOLDER", folder.path().to_str().unwrap())
            .replace("HASH", &String::from(TokenHash::of("alice-token")));
        for (name, text) in [
            ("catalog.yaml", CATALOG),
            ("kubeconfig", KUBECONFIG),
            ("deploy.yaml", &text),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        if !recorded.is_empty() {
            let database = format!("sqlite://{}", folder.path().join("deploy.db").display());
            let ledger = Ledger::open(LedgerConfig::new(database).origin("deploy"))
                .await
                .unwrap();
            let meta = Meta::new(Actor::system("test"), None);
            let id = OLD.parse().unwrap();
            ledger
                .execute::<Older>(&id, || recorded.clone(), &meta)
                .await
                .unwrap();
            ledger.close().await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bus = MemoryBus::new(BusConfig::default());
        let telemetry = slipway_telemetry::Service::disabled("deploy-svc");
        let wiring = Wiring::new(listener, Arc::new(bus.clone()), telemetry);
        let config = slipway_server::config::read(folder.path().join("deploy.yaml")).unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(deploy_svc::run(config, wiring, shutdown.clone()));
        Self {
            url,
            bus,
            shutdown,
            folder,
        }
    }

    fn client(&self) -> ReleaseServiceClient<Channel> {
        let config = ClientConfig::new(&self.url, "alice-token".to_owned());
        ReleaseServiceClient::new(config.connect("release").unwrap())
    }

    async fn begin(&self, service: &str, images: Vec<Image>) -> Result<Shown, ErrorView> {
        let request = StartReleaseRequest {
            service: service.to_owned(),
            commit: COMMIT.to_owned(),
            images,
            ..StartReleaseRequest::default()
        };
        let started = self.client().start_release(request).await;
        let started = started.map_err(|status| ErrorView::of(&status))?;
        Ok(started.into_inner().release.unwrap())
    }

    /// The first events of a release, as `StreamEvents` shows them: type and data.
    async fn streamed(&self, id: &str, count: usize) -> Vec<(String, Value)> {
        let mut stream = self
            .client()
            .stream_events(StreamEventsRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut events = Vec::new();
        while events.len() < count {
            let event = stream.message().await.unwrap().unwrap().event;
            let of_it = event.filter(|event| event.subject == format!("release/{id}"));
            events.extend(of_it.map(|event| (event.r#type, serde_json::from_str(&event.data).unwrap())));
        }
        events
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn image(repository: &str) -> Image {
    Image {
        repository: repository.to_owned(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        tags: vec!["1a2b3c4".to_owned()],
        ..Image::default()
    }
}

#[tokio::test]
async fn exactly_one_image_is_taken_and_it_must_be_the_catalogs() {
    let service = Service::start().await;
    let shop = || image("registry.example/shop");
    let bent = |bend: fn(&mut Image)| {
        let mut image = shop();
        bend(&mut image);
        vec![image]
    };
    for (images, field, words) in [
        (
            vec![shop(), shop()],
            "images",
            "give exactly one; several images are not supported yet",
        ),
        (
            bent(|image| image.repository = "registry.example/mail/server".to_owned()),
            "images[0].repository",
            "this service's image has the repository registry.example/shop",
        ),
        (
            bent(|image| image.repository.clear()),
            "images[0].repository",
            "is required",
        ),
        (
            bent(|image| image.repository = "Shop".to_owned()),
            "images[0].repository",
            "image name \"Shop\" is not valid",
        ),
        (
            bent(|image| image.name = "server".to_owned()),
            "images[0].name",
            "this service's image has the name shop",
        ),
        (
            bent(|image| image.name = "Shop".to_owned()),
            "images[0].name",
            "name \"Shop\" is not valid",
        ),
        (
            bent(|image| image.digest.clear()),
            "images[0].digest",
            "is required",
        ),
        (
            bent(|image| image.tags = vec![":".to_owned()]),
            "images[0].tags",
            "tag \":\" is not valid",
        ),
        (
            bent(|image| image.tags = vec!["x".to_owned(); 33]),
            "images[0].tags",
            "give at most 32",
        ),
    ] {
        let error = service.begin("shop", images).await.unwrap_err();
        assert_eq!(
            (error.code, error.field.as_str()),
            (Code::InvalidArgument, field),
            "{error:?}"
        );
        assert!(error.message.contains(words), "{words}: {error:?}");
    }

    // One that is given is not built, whatever else is asked.
    let request = StartReleaseRequest {
        service: "shop".to_owned(),
        commit: COMMIT.to_owned(),
        images: vec![shop()],
        rebuild: true,
        ..StartReleaseRequest::default()
    };
    let error = service.client().start_release(request).await.unwrap_err();
    assert_eq!(ErrorView::of(&error).field, "rebuild", "{error}");

    // None is built; one is taken as it is.
    let built = service.begin("shop", Vec::new()).await.unwrap();
    assert_eq!((built.steps[0].name.as_str(), built.images.len()), ("build", 0));
    let named = Image {
        name: "shop".to_owned(),
        ..shop()
    };
    let wanted = [named.clone()];
    for given in [shop(), named] {
        let taken = service.begin("shop", vec![given]).await.unwrap();
        assert_eq!(taken.steps[0].name, "dev/lane");
        assert_eq!(taken.images, wanted);
    }
}

#[tokio::test]
async fn a_plan_names_its_image_as_the_catalog_does() {
    let service = Service::start().await;
    for (of, name, repository) in [
        ("shop", "shop", "registry.example/shop"),
        ("mail", "server", "registry.example/mail/server"),
    ] {
        let request = PlanReleaseRequest {
            service: of.to_owned(),
            commit: COMMIT.to_owned(),
            ..PlanReleaseRequest::default()
        };
        let answer = service.client().plan_release(request).await.unwrap();
        let planned = Image {
            name: name.to_owned(),
            repository: repository.to_owned(),
            ..Image::default()
        };
        assert_eq!(answer.into_inner().plan.unwrap().images, [planned]);
        // An image without a name is the only one, whatever it is called.
        let taken = service.begin(of, vec![image(repository)]).await.unwrap();
        assert_eq!(taken.images[0].name, name);
    }
}

/// What cannot work is said by the plan, with the lines to write.
#[tokio::test]
async fn a_plan_warns_of_an_image_that_the_cluster_cannot_pull() {
    let service = Service::start().await;
    let warnings = async |of: &str| {
        let request = PlanReleaseRequest {
            service: of.to_owned(),
            commit: COMMIT.to_owned(),
            ..PlanReleaseRequest::default()
        };
        let answer = service.client().plan_release(request).await.unwrap();
        answer.into_inner().warnings
    };
    assert_eq!(warnings("shop").await, [""; 0]);
    // Saved a moment ago: no reload is waited for.
    let path = service.folder.path().join("catalog.yaml");
    std::fs::write(
        &path,
        CATALOG.replace("image: registry.example/shop", "image: shop"),
    )
    .unwrap();
    let [warning] = &warnings("shop").await[..] else {
        panic!("one warning")
    };
    for words in [
        "image shop has no registry host",
        "cluster local pulls images from a registry",
        "image: registry.example/team/shop",
        "{ prefix: registry.example/team, kind: oci, username: USER, password_file: FILE }",
    ] {
        assert!(warning.contains(words), "{words}: {warning}");
    }
}

/// Writes events of releases as they come, to the letter: what an older version recorded.
struct Older;

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl slipway_ledger::Refusal for Never {
    fn kind(&self) -> slipway_ledger::RefusalKind {
        slipway_ledger::RefusalKind::Defect
    }
}

impl Decider for Older {
    const KIND: &'static str = Release::KIND;
    const STATE_VERSION: u32 = 2;

    type State = ();
    type Command = Vec<Value>;
    type Event = Value;
    type Effect = ();
    type Refusal = Never;

    fn decide(_: &Id, (): &(), events: Vec<Value>, _: Timestamp) -> Result<Vec<Value>, Never> {
        Ok(events)
    }

    fn evolve((): &mut (), _: &Value, _: Timestamp) {}

    fn index((): &()) -> Index {
        Index {
            status: "running".to_owned(),
            service: "shop".to_owned(),
            ..Index::default()
        }
    }

    fn is_final((): &()) -> bool {
        false
    }
}

struct Told(mpsc::UnboundedSender<Envelope>);

#[async_trait]
impl Handler for Told {
    async fn handle(&self, event: &Envelope) -> Result<(), Fault<String>> {
        self.0
            .send(event.clone())
            .map_err(|error| Fault::Permanent(error.to_string()))
    }
}

/// What an older version recorded is shown and published as it was, and read as what it means now; what is recorded now goes
/// out in its own form.
#[tokio::test]
async fn events_go_out_in_the_form_that_they_were_recorded_in() {
    let requested: Value = serde_json::from_str(include_str!("golden/release/requested.json")).unwrap();
    let advanced: Value = serde_json::from_str(include_str!("golden/release/advanced_built.json")).unwrap();
    let service = Service::after(vec![requested.clone(), advanced.clone()]).await;
    let new = service
        .begin("shop", vec![image("registry.example/shop")])
        .await
        .unwrap();

    let streamed = service.streamed(OLD, 2).await;
    let of_then = [
        ("dev.slipway.release.requested.v1".to_owned(), requested.clone()),
        ("dev.slipway.release.advanced.v1".to_owned(), advanced),
    ];
    assert_eq!(streamed, of_then);
    let streamed = service.streamed(&new.id, 1).await;
    assert_eq!(streamed[0].0, "dev.slipway.release.requested.v2");
    let images = &streamed[0].1["images"];
    assert_eq!(images[0]["name"], "shop");
    assert_eq!(images[0]["repository"], "registry.example/shop");

    // The same over the bus.
    let (sender, mut told) = mpsc::unbounded_channel();
    let (bus, shutdown) = (service.bus.clone(), service.shutdown.clone());
    tokio::spawn(async move {
        let told = Arc::new(Told(sender));
        bus.consume(&["deploy"], "test", "one", told, shutdown).await;
    });
    let wanted = BTreeSet::from([
        format!("release/{OLD}/1 dev.slipway.release.requested.v1"),
        format!("release/{OLD}/2 dev.slipway.release.advanced.v1"),
        format!("release/{}/1 dev.slipway.release.requested.v2", new.id),
    ]);
    let mut heard = BTreeSet::new();
    while !heard.is_superset(&wanted) {
        let event = told.recv().await.unwrap();
        heard.insert(format!("{} {}", event.event_id(), event.type_name()));
    }
    let of_old = |heard: &&String| heard.starts_with(&format!("release/{OLD}/"));
    assert_eq!(heard.iter().filter(of_old).count(), 2, "{heard:?}");

    let request = GetReleaseRequest { id: OLD.to_owned() };
    let shown = service.client().get_release(request).await.unwrap();
    let shown = shown.into_inner().release.unwrap();
    let plan = shown.plan.unwrap();
    assert_eq!(plan.hash, requested["plan"]["hash"].as_str().unwrap());
    assert_eq!(
        (plan.images[0].name.as_str(), plan.images[0].repository.as_str()),
        ("shop", "registry.example/shop")
    );
    let image = &shown.images[0];
    assert_eq!(
        (
            image.name.as_str(),
            image.repository.as_str(),
            image.digest.as_str()
        ),
        (
            "shop",
            "registry.example/shop",
            requested["image"]["digest"].as_str().unwrap()
        )
    );
}
