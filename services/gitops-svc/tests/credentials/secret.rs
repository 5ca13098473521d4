//! Where a secret must not be.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use slipway_proto::gitops::v1::change::Status;

use crate::{
    assert_failed, change, config,
    forge::{Forge, HOUR},
    secret_file,
    world::{World, appears, apply, assert_status, finished, set_tag, start_with},
};

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
