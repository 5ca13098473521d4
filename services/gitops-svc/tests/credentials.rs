//! Remotes that want to know who we are: git over https and ssh by the real programs, GitHub's API by what it
//! documents, and commits that prove by whom they are.

mod world;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::Engine as _;
use rsa::{pkcs1v15, pkcs8::DecodePublicKey as _, sha2::Sha256, signature::Verifier as _};
use serde_json::{Value, json};
use slipway_proto::gitops::v1::{Change, change::Status};
use slipway_server::TokenHash;
use slipway_testbed::{GitHttpServer, HttpAnswer, SshServer, ssh_key, tool};
use world::{
    Running, World, appears, applied, apply, assert_status, finished, set_tag, start_refused, start_with,
};

/// The configuration of one replica whose repository `shop` is as given.
fn config(world: &World, repository: &str, more: &str) -> String {
    let dir = world.dir.path().display();
    let hash = String::from(TokenHash::of("alice-token"));
    format!(
        "server:\n  listen: 127.0.0.1:0\n  principals:\n\
         \x20 - {{subject: alice, token_sha256: {hash}, roles: [{{actions: [read, start, cancel, rollback]}}]}}\n\
         database: {{url: '{}'}}\ndata_dir: {dir}/data\nauthor: {{name: Robot, email: robot@example.com}}\n\
         push_deadline: 60s\n{more}repositories:\n  shop: {repository}\n",
        world.sqlite(),
    )
}

async fn start(world: &World, repository: &str) -> Running {
    start_with(&config(world, repository, "")).await.unwrap()
}

/// Sets the image's tag, and says how that ended.
async fn change(running: &Running, tag: &str) -> Change {
    applied(&mut running.client(), &set_tag("api", tag)).await
}

fn assert_failed(change: &Change, code: &str) {
    assert_status(change, Status::Failed);
    assert_eq!(change.reason.as_ref().unwrap().code, code, "{change:?}");
}

fn secret_file(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    // As those who rotate secrets do: nobody reads half of it.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// A remote by https, the file with its token, and the repository's configuration.
fn https(world: &World, path: &str, token: &str) -> (GitHttpServer, PathBuf, String) {
    let server = GitHttpServer::start(world.dir.path()).unwrap();
    server.require_token(token);
    let file = world.path("token");
    secret_file(&file, &format!("{token}\n"));
    let repository = format!(
        "{{url: '{}', ca_file: {}, credentials: {{token_file: {}}}}}",
        server.url(path),
        server.ca_file().display(),
        file.display()
    );
    (server, file, repository)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_https_and_is_read_again_for_each_use() {
    let world = World::new("https", &["api"]);
    let (server, file, repository) = https(&world, "remote.git", "first-token");
    let running = start(&world, &repository).await;

    assert_status(&change(&running, "1").await, Status::Pushed);
    assert!(world.file("api").contains("newTag: '1'"));
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.method == "POST"
        && request.path.ends_with("/git-receive-pack")
        && request.status == 200));
    let basic = Some(("x-access-token".to_owned(), "first-token".to_owned()));
    assert!(
        requests.iter().all(|request| request.basic == basic),
        "{requests:?}"
    );

    // Somebody rotates it.
    server.require_token("second-token");
    secret_file(&file, "second-token");
    assert_status(&change(&running, "2").await, Status::Pushed);

    // The remote does not know it any more.
    server.require_token("third-token");
    let refused = change(&running, "3").await;
    assert_failed(&refused, "CREDENTIALS_REFUSED");
    assert!(!format!("{refused:?}").contains("second-token"));

    // It may only read.
    secret_file(&file, "third-token");
    server.misbehave(HttpAnswer::ReadOnly);
    assert_failed(&change(&running, "4").await, "PERMISSION_DENIED");

    server.misbehave(HttpAnswer::Status(404));
    assert_failed(&change(&running, "5").await, "REPOSITORY_NOT_FOUND");

    // Not there for a moment.
    server.behave();
    server.misbehave_next([HttpAnswer::Status(503), HttpAnswer::Status(503)]);
    let before = server.requests().len();
    assert_status(&change(&running, "6").await, Status::Pushed);
    let statuses: Vec<u16> = server.requests()[before..]
        .iter()
        .map(|request| request.status)
        .collect();
    assert_eq!(statuses[..2], [503, 503], "{statuses:?}");

    assert!(world.file("api").contains("newTag: '6'"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_is_missing_or_wrong_is_waited_for() {
    let world = World::new("https-file", &["api"]);
    let (_server, file, repository) = https(&world, "remote.git", "token-in-file");
    std::fs::remove_file(&file).unwrap();
    let running = start(&world, &repository).await;
    let mut client = running.client();
    let waiting = apply(&mut client, &set_tag("api", "1")).await;
    // Whoever mounts it comes later.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        secret_file(&file, "token-in-file\n");
    });
    assert_status(&finished(&mut client, &waiting.id).await, Status::Pushed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_does_not_get_the_token() {
    let world = World::new("https-redirect", &["api"]);
    let (server, _, repository) = https(&world, "remote.git", "stay-here-token");
    let elsewhere = GitHttpServer::start(world.dir.path()).unwrap();
    let base = elsewhere.url("");
    server.misbehave(HttpAnswer::Redirect(base.trim_end_matches('/').to_owned()));
    let running = start(&world, &repository).await;
    let refused = change(&running, "1").await;
    assert_failed(&refused, "REPOSITORY_NOT_FOUND");
    assert!(refused.reason.unwrap().message.contains("301"));
    assert_eq!(elsewhere.requests(), []);
    assert!(server.requests().iter().any(|request| request.status == 301));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_ssh_on_known_hosts_only() {
    let world = World::new("ssh", &["api"]);
    let server = SshServer::start().unwrap();
    let other = world.path("other-key");
    ssh_key(&other, &["-t", "ed25519"], "").unwrap();
    // The right host with another key than it has.
    let wrong_hosts = world.path("wrong-hosts");
    let port = server.url(Path::new("")).rsplit(':').next().unwrap().to_owned();
    let key = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    std::fs::write(&wrong_hosts, format!("[127.0.0.1]:{port} {key}")).unwrap();
    let no_hosts = world.path("no-hosts");
    std::fs::write(&no_hosts, "").unwrap();
    let repository = |key: &Path, hosts: &Path| {
        format!(
            "{{url: '{}', credentials: {{ssh_key_file: {}, known_hosts_file: {}}}}}",
            server.url(world.remote.path()),
            key.display(),
            hosts.display()
        )
    };

    for (key, hosts) in [
        (server.key_file(), wrong_hosts),
        (server.key_file(), no_hosts.clone()),
        (other, server.known_hosts_file()),
    ] {
        let running = start(&world, &repository(&key, &hosts)).await;
        let tag = format!(
            "{}-{}",
            key.file_name().unwrap().display(),
            hosts.file_name().unwrap().display()
        );
        assert_failed(&change(&running, &tag).await, "CREDENTIALS_REFUSED");
        running.stop().await;
    }
    assert_eq!(std::fs::read_to_string(no_hosts).unwrap(), "", "nobody was added");

    let running = start(
        &world,
        &repository(&server.key_file(), &server.known_hosts_file()),
    )
    .await;
    assert_status(&change(&running, "1").await, Status::Pushed);
    assert_status(&change(&running, "2").await, Status::Pushed);
    assert!(world.file("api").contains("newTag: '2'"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_keep_the_service_from_starting() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new("bad-keys", &["api"]);
    let path = |name: &str| world.path(name);
    ssh_key(&path("good"), &["-t", "ed25519"], "").unwrap();
    ssh_key(&path("locked"), &["-t", "ed25519"], "opensesame").unwrap();
    ssh_key(
        &path("locked-pem"),
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        "opensesame",
    )
    .unwrap();
    ssh_key(&path("p384"), &["-t", "ecdsa", "-b", "384"], "").unwrap();
    ssh_key(&path("short"), &["-t", "rsa", "-b", "1024"], "").unwrap();
    std::fs::copy(path("good"), path("open")).unwrap();
    std::fs::set_permissions(path("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    secret_file(&path("junk"), "opensesame is not a key\n");
    secret_file(&path("passphrase"), "wrong\n");
    let dir = world.dir.path().display();

    let ssh =
        |key: &str| format!("{{url: 'git@localhost:shop.git', credentials: {{ssh_key_file: {dir}/{key}}}}}");
    let signing = |key: &str| format!("{{url: {dir}/remote.git, signing: {{ssh_key_file: {dir}/{key}}}}}");
    let app = |key: &str| {
        format!(
            "{{url: 'https://github.com/acme/shop.git', credentials: {{github_app: {{app_id: 7, private_key_file: {dir}/{key}}}}}}}"
        )
    };
    for (repository, key, words) in [
        (ssh("missing"), "credentials.ssh_key_file", "cannot be read"),
        (ssh("open"), "credentials.ssh_key_file", "chmod 600"),
        (ssh("locked"), "credentials.ssh_key_file", "has a passphrase"),
        (ssh("locked-pem"), "credentials.ssh_key_file", "has a passphrase"),
        (
            app("missing"),
            "credentials.github_app.private_key_file",
            "cannot be read",
        ),
        (
            app("junk"),
            "credentials.github_app.private_key_file",
            "RSA private key in PEM form",
        ),
        (signing("missing"), "signing.ssh_key_file", "cannot be read"),
        (signing("open"), "signing.ssh_key_file", "chmod 600"),
        (signing("junk"), "signing.ssh_key_file", "ssh-keygen"),
        (
            signing("locked"),
            "signing.ssh_key_file",
            "signing.passphrase_file",
        ),
        (signing("p384"), "signing.ssh_key_file", "ecdsa-sha2-nistp384"),
        (signing("short"), "signing.ssh_key_file", "1024 bits"),
        (
            format!(
                "{{url: {dir}/remote.git, signing: {{ssh_key_file: {dir}/locked, passphrase_file: {dir}/passphrase}}}}"
            ),
            "signing.passphrase_file",
            "does not unlock",
        ),
    ] {
        let error = start_refused(&config(&world, &repository, "")).await;
        assert!(
            error.contains(&format!("repositories.shop.{key}: ")),
            "{repository}: {error}"
        );
        assert!(error.contains(words), "{repository}: {error}");
        assert!(!error.contains("opensesame"), "{error}");
    }
    let error = start_refused(&config(
        &world,
        &format!("{{url: {dir}/remote.git}}"),
        &format!("signing: {{ssh_key_file: {dir}/junk}}\n"),
    ))
    .await;
    assert!(error.starts_with("signing.ssh_key_file: "), "{error}");
}

/// What GitHub documents of Apps, for the App [`APP`] installed as [`INSTALLATION`] on acme/shop.
#[derive(Debug, Default)]
struct Github {
    public_key_pem: String,
    /// What is given next, and for how long.
    next: Mutex<Vec<(String, Duration)>>,
    /// How many were given.
    given: Mutex<usize>,
}

const APP: u64 = 7;
const INSTALLATION: u64 = 4242;

impl Github {
    /// The JWT of the request: signed by the App, and within the times that GitHub allows.
    fn knows(&self, headers: &HeaderMap) -> Result<(), (StatusCode, Json<Value>)> {
        let refuse = |message: &str| {
            Err((
                StatusCode::UNAUTHORIZED,
                Json(json!({"message": message, "documentation_url": "https://docs.github.com/rest"})),
            ))
        };
        let Some(token) = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        else {
            return refuse("Requires authentication");
        };
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(text)
                .unwrap()
        };
        let key = rsa::RsaPublicKey::from_public_key_pem(&self.public_key_pem).unwrap();
        let key = pkcs1v15::VerifyingKey::<Sha256>::new(key);
        let signature = pkcs1v15::Signature::try_from(decode(signature).as_slice()).unwrap();
        if key.verify(signed.as_bytes(), &signature).is_err() {
            return refuse("A JSON web token could not be decoded");
        }
        let (header, claims) = signed.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
        assert_eq!(header["alg"], "RS256");
        if claims["iss"].to_string().trim_matches('"') != APP.to_string() {
            return refuse("'Issuer' claim ('iss') must be an Integer");
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert!(issued <= now && expires > now && expires <= now + 600, "{claims}");
        Ok(())
    }

    fn give(&self, next: &[(&str, Duration)]) {
        let next = next
            .iter()
            .rev()
            .map(|(token, life)| ((*token).to_owned(), *life));
        *self.next.lock().unwrap() = next.collect();
    }

    fn given(&self) -> usize {
        *self.given.lock().unwrap()
    }
}

async fn access_token(
    State(github): State<Arc<Github>>,
    UrlPath(installation): UrlPath<u64>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Result<(StatusCode, Json<Value>), (StatusCode, Json<Value>)> {
    github.knows(&headers)?;
    if installation != INSTALLATION {
        return Err((
            StatusCode::NOT_FOUND,
            Json(json!({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"})),
        ));
    }
    // No more than is needed.
    assert_eq!(asked, json!({"repositories": ["shop"]}));
    // Those that ask at the same time would all be here by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (token, life) = {
        let mut next = github.next.lock().unwrap();
        // The last one as often as it is asked for.
        if next.len() > 1 {
            next.remove(0)
        } else {
            next[0].clone()
        }
    };
    *github.given.lock().unwrap() += 1;
    let expires = rfc3339(SystemTime::now() + life);
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "token": token,
            "expires_at": expires,
            "permissions": {"contents": "write", "metadata": "read", "pull_requests": "write"},
            "repository_selection": "selected",
        })),
    ))
}

/// RFC 3339 in seconds, as GitHub writes times.
fn rfc3339(time: SystemTime) -> String {
    chrono::DateTime::from_timestamp(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            .try_into()
            .unwrap(),
        0,
    )
    .unwrap()
    .format("%Y-%m-%dT%H:%M:%SZ")
    .to_string()
}

async fn installation(
    State(github): State<Arc<Github>>,
    UrlPath((owner, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    github.knows(&headers)?;
    if (owner.as_str(), name.as_str()) != ("acme", "shop") {
        return Err((StatusCode::NOT_FOUND, Json(json!({"message": "Not Found"}))));
    }
    Ok(Json(json!({
        "id": INSTALLATION,
        "account": {"login": "acme", "id": 1, "type": "Organization"},
        "access_tokens_url": format!("https://api.github.com/app/installations/{INSTALLATION}/access_tokens"),
        "app_id": APP,
        "target_type": "Organization",
        "permissions": {"contents": "write"},
        "events": [],
    })))
}

/// GitHub as far as an App needs it: its API, and acme/shop.git by https.
struct Forge {
    github: Arc<Github>,
    api: String,
    git: GitHttpServer,
}

impl Forge {
    async fn start(world: &World) -> Self {
        let key = world.path("app.pem");
        ssh_key(&key, &["-t", "rsa", "-b", "2048", "-m", "PEM"], "").unwrap();
        let public = Command::new(tool("ssh-keygen").unwrap())
            .args(["-e", "-m", "PKCS8", "-f"])
            .arg(&key)
            .output()
            .unwrap();
        let github = Arc::new(Github {
            public_key_pem: String::from_utf8(public.stdout).unwrap(),
            ..Github::default()
        });
        let app = Router::new()
            .route("/app/installations/{id}/access_tokens", post(access_token))
            .route("/repos/{owner}/{name}/installation", get(installation))
            .with_state(Arc::clone(&github));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        std::fs::create_dir(world.path("acme")).unwrap();
        std::os::unix::fs::symlink(world.remote.path(), world.path("acme/shop.git")).unwrap();
        let git = GitHttpServer::start(world.dir.path()).unwrap();
        Self { github, api, git }
    }

    fn repository(&self, world: &World, app: &str) -> String {
        format!(
            "{{url: '{}', ca_file: {}, credentials: {{github_app: {{{app}, private_key_file: {}, api_url: '{}'}}}}}}",
            self.git.url("acme/shop.git"),
            self.git.ca_file().display(),
            world.path("app.pem").display(),
            self.api,
        )
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gets_tokens_and_uses_each_as_long_as_it_is_good() {
    let world = World::new("github-app", &["api"]);
    let head = world.remote.head("main").unwrap();
    for branch in ["one", "two", "three"] {
        let mut git = Command::new(tool("git").unwrap());
        git.arg("--git-dir")
            .arg(world.remote.path())
            .args(["branch", branch, &head]);
        assert!(git.status().unwrap().success());
    }
    let forge = Forge::start(&world).await;
    let github = &forge.github;
    // Without the installation's id: it is looked up.
    let running = start(&world, &forge.repository(&world, "app_id: 7")).await;

    github.give(&[("ghs_first", HOUR)]);
    forge.git.require_token("ghs_first");
    let mut client = running.client();
    let mut ids = Vec::new();
    for branch in ["one", "two", "three"] {
        let mut request = set_tag("api", "1");
        request.request_id = branch.to_owned();
        request.branch = branch.to_owned();
        ids.push(apply(&mut client, &request).await.id);
    }
    for id in &ids {
        assert_status(&finished(&mut client, id).await, Status::Pushed);
    }
    assert_eq!(github.given(), 1, "those that wait ask once");
    assert_status(&change(&running, "2").await, Status::Pushed);
    assert_eq!(github.given(), 1);

    // Taken back before its time: refused once, then there is another.
    github.give(&[("ghs_second", Duration::from_secs(60))]);
    forge.git.require_token("ghs_second");
    assert_status(&change(&running, "3").await, Status::Pushed);
    let given = github.given();
    assert!(given >= 2);

    // The second one is near its end: it is replaced before it is refused, and then kept.
    let before = forge.git.requests().len();
    github.give(&[("ghs_third", HOUR)]);
    forge.git.require_token("ghs_third");
    assert_status(&change(&running, "4").await, Status::Pushed);
    assert_status(&change(&running, "5").await, Status::Pushed);
    assert_eq!(github.given(), given + 1);
    let statuses: Vec<u16> = forge.git.requests()[before..]
        .iter()
        .map(|request| request.status)
        .collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");

    // A second refusal in a row is final.
    github.give(&[("ghs_fourth", HOUR)]);
    forge.git.require_token("somebody-else's");
    assert_failed(&change(&running, "6").await, "CREDENTIALS_REFUSED");
    assert_eq!(github.given(), given + 2, "tried again once");
    let basic = |request: &slipway_testbed::HttpRequest| request.basic.clone().unwrap().0;
    assert!(
        forge
            .git
            .requests()
            .iter()
            .all(|request| basic(request) == "x-access-token")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_github_says_to_an_app_is_told() {
    let world = World::new("github-refuses", &["api"]);
    let forge = Forge::start(&world).await;
    for (app, words) in [
        ("app_id: 8", "check app_id and private_key_file"),
        (
            "app_id: 7, installation_id: 1",
            "install it, or check installation_id",
        ),
    ] {
        let running = start(&world, &forge.repository(&world, app)).await;
        let refused = change(&running, &app.replace([' ', ':', ','], "-")).await;
        assert_failed(&refused, "CREDENTIALS_REFUSED");
        let message = refused.reason.unwrap().message;
        assert!(message.contains(words), "{message}");
        running.stop().await;
    }
    // Another App's key.
    std::fs::rename(world.path("app.pem"), world.path("old.pem")).unwrap();
    ssh_key(
        &world.path("app.pem"),
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        "",
    )
    .unwrap();
    let running = start(&world, &forge.repository(&world, "app_id: 7")).await;
    let refused = change(&running, "other-key").await;
    assert_failed(&refused, "CREDENTIALS_REFUSED");
    assert_eq!(forge.git.requests(), []);

    // The key is put right, and nothing is restarted.
    std::fs::rename(world.path("old.pem"), world.path("app.pem")).unwrap();
    forge.github.give(&[("ghs_only", HOUR)]);
    forge.git.require_token("ghs_only");
    assert_status(&change(&running, "right-key").await, Status::Pushed);
    running.stop().await;
}

/// All that this test program logs, at every level.
fn logged() -> Arc<Mutex<Vec<u8>>> {
    static LOG: std::sync::OnceLock<Arc<Mutex<Vec<u8>>>> = std::sync::OnceLock::new();
    #[derive(Clone)]
    struct Writer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = LOG.get_or_init(|| {
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Writer(Arc::clone(&log));
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    });
    Arc::clone(log)
}

/// The command lines of all processes.
fn command_lines() -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What git takes away meanwhile is gone.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                _ => files.push(path),
            }
        }
    }
    files
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_seen_by_nobody() {
    let log = logged();
    let world = World::new("secret", &["api"]);
    let forge = Forge::start(&world).await;
    let token = "ghs_NobodyMaySeeThisOne0123456789";
    forge.github.give(&[(token, HOUR)]);
    forge.git.require_token(token);
    let token_file = world.path("token");
    secret_file(&token_file, token);
    let file = format!(
        "{{url: '{}', ca_file: {}, credentials: {{token_file: {}}}}}",
        forge.git.url("acme/shop.git"),
        forge.git.ca_file().display(),
        token_file.display()
    );
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
    let private = std::fs::read_to_string(world.path("app.pem")).unwrap();
    let secrets = [token, &pair, private.lines().nth(1).unwrap()];
    let seen = |what: &str, bytes: &[u8]| {
        for secret in secrets {
            assert!(!contains(bytes, secret), "{what} has a secret");
        }
    };

    for (name, repository) in [("app", forge.repository(&world, "app_id: 7")), ("file", file)] {
        let text = config(&world, &repository, "");
        let parsed: gitops_svc::Config = slipway_server::config::parse("x.yaml", &text).unwrap();
        seen("the configuration", format!("{parsed:?} {parsed:#?}").as_bytes());
        let running = start_with(&text).await.unwrap();
        let (held, go) = (
            world.path(&format!("{name}-held")),
            world.path(&format!("{name}-go")),
        );
        world.hook(
            "pre-receive",
            &format!(
                "touch {}\nn=0\nwhile [ ! -e {} ] && [ $n -lt 3000 ]; do sleep 0.01; n=$((n+1)); done",
                held.display(),
                go.display()
            ),
        );
        let mut client = running.client();
        let waiting = apply(&mut client, &set_tag("api", name)).await;
        appears(&held).await;

        // The push is on its way now.
        let lines = command_lines();
        assert!(
            lines
                .iter()
                .any(|line| line.contains("git-remote-https") || line.contains("remote-https")),
            "{lines:?}"
        );
        for line in &lines {
            seen(line, line.as_bytes());
        }
        let files = files_below(&world.path("data"));
        assert!(files.iter().any(|file| file.ends_with("HEAD")), "{files:?}");
        let scan = |files: Vec<PathBuf>| {
            for file in files {
                if let Ok(bytes) = std::fs::read(&file) {
                    seen(&file.display().to_string(), &bytes);
                }
            }
        };
        scan(files);
        std::fs::write(&go, "").unwrap();
        let pushed = finished(&mut client, &waiting.id).await;
        assert_status(&pushed, Status::Pushed);
        seen("the change", format!("{pushed:?}").as_bytes());

        // And when it is refused.
        forge.git.require_token("another");
        forge.github.give(&[(token, HOUR)]);
        let refused = change(&running, &format!("{name}-refused")).await;
        assert_failed(&refused, "CREDENTIALS_REFUSED");
        seen("the change", format!("{refused:?}").as_bytes());
        forge.git.require_token(token);
        running.stop().await;
        scan(files_below(&world.path("data")));
        let ledger: Vec<PathBuf> = files_below(world.dir.path())
            .into_iter()
            .filter(|file| file.display().to_string().contains("ledger.db"))
            .collect();
        assert!(!ledger.is_empty());
        scan(ledger);
        world.hook("pre-receive", "exit 0");
    }
    let log = log.lock().unwrap();
    assert!(
        contains(&log, "access_tokens"),
        "the log has what went to GitHub's API"
    );
    seen("the log", &log);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_signed_and_git_says_so() {
    let world = World::new("signing", &["api"]);
    let allowed = world.path("allowed-signers");
    secret_file(&world.path("passphrase"), "open sesame\n");
    let git = |arguments: &[&str]| {
        let output = Command::new(tool("git").unwrap())
            .arg("--git-dir")
            .arg(world.remote.path())
            .args(["-c", "gpg.format=ssh", "-c"])
            .arg(format!("gpg.ssh.allowedSignersFile={}", allowed.display()))
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    for (name, kind, passphrase, words) in [
        ("ed25519", &["-t", "ed25519"][..], "", "ED25519"),
        ("ecdsa", &["-t", "ecdsa", "-b", "256"], "", "ECDSA"),
        ("rsa", &["-t", "rsa", "-b", "3072"], "", "RSA"),
        ("locked", &["-t", "ed25519"], "open sesame", "ED25519"),
    ] {
        let key = world.path(name);
        ssh_key(&key, kind, passphrase).unwrap();
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        std::fs::write(&allowed, format!("robot@example.com namespaces=\"git\" {public}")).unwrap();
        let signing = if passphrase.is_empty() {
            format!("{{ssh_key_file: {}}}", key.display())
        } else {
            format!(
                "{{ssh_key_file: {}, passphrase_file: {}}}",
                key.display(),
                world.path("passphrase").display()
            )
        };
        // By the service's key, and by the repository's own.
        let url = world.remote.path().display();
        let text = if name == "ecdsa" {
            config(
                &world,
                &format!("{{url: {url}}}"),
                &format!("signing: {signing}\n"),
            )
        } else {
            config(&world, &format!("{{url: {url}, signing: {signing}}}"), "")
        };
        let running = start_with(&text).await.unwrap();
        let pushed = change(&running, name).await;
        assert_status(&pushed, Status::Pushed);
        running.stop().await;

        let (_, log) = git(&["log", "-1", "--show-signature", "main"]);
        let good = format!("Good \"git\" signature for robot@example.com with {words} key");
        assert!(log.contains(&good), "{log}");
        assert!(log.contains(&pushed.commit), "{log}");
        assert_eq!(git(&["verify-commit", "main"]).0, true);

        // Somebody else's key, though the same name.
        ssh_key(&world.path(&format!("{name}-other")), &["-t", "ed25519"], "").unwrap();
        let other = std::fs::read_to_string(world.path(&format!("{name}-other.pub"))).unwrap();
        std::fs::write(&allowed, format!("robot@example.com {other}")).unwrap();
        assert_eq!(git(&["verify-commit", "main"]).0, false);
    }
    let (sound, words) = git(&["fsck", "--strict"]);
    assert!(sound, "{words}");
}
