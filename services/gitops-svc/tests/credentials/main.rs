//! Remotes that want to know who we are: git over https and ssh by the real programs, GitHub's API by what it
//! documents, and commits that prove by whom they are.
#![allow(clippy::unwrap_used)] // helpers of tests

mod app;
mod forge;
mod secret;
mod signing;
#[path = "../world/mod.rs"]
mod world;

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use slipway_proto::gitops::v1::{Change, StreamEventsRequest, change::Status};
use slipway_server::TokenHash;
use slipway_testbed::{GitHttpServer, HttpAnswer, SshServer, ssh_key};
use world::{Running, World, applied, apply, assert_status, finished, set_tag, start_refused, start_with};

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
    // Whoever mounts it comes after the first try.
    let mut events = client
        .stream_events(StreamEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    while let Some(next) = events.next().await {
        let event = next.unwrap().event;
        if event.is_some_and(|event| event.r#type == "dev.slipway.branch.postponed.v1") {
            break;
        }
    }
    secret_file(&file, "token-in-file\n");
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
    // Nothing but our own rule keeps git from going there.
    let both = [server.ca_file(), elsewhere.ca_file()].map(|file| std::fs::read_to_string(file).unwrap());
    std::fs::write(world.path("both.pem"), both.concat()).unwrap();
    let (one, two) = (
        server.ca_file().display().to_string(),
        world.path("both.pem").display().to_string(),
    );
    let running = start(&world, &repository.replace(&one, &two)).await;
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
