use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Whole {
    server: ServerConfig,
    #[serde(default)]
    database: DatabaseConfig,
}

const GOOD: &str = r#"
server:
  listen: 127.0.0.1:7003
  request_timeout: 1m 30s
  principals:
    - subject: alice
      token_sha256: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90
      roles:
        - actions: [read, approve]
          environments: [staging, "prod-*"]
database:
  url: sqlite:///tmp/x.db
"#;

#[test]
fn a_whole_file_is_read() {
    let whole: Whole = parse("slipway.yaml", GOOD).unwrap();
    assert_eq!(whole.server.request_timeout, Duration::from_secs(90));
    let alice = &whole.server.principals[0];
    assert_eq!(alice.principal().to_string(), "token/alice");
    assert_eq!(alice.token_sha256, TokenHash::of("alice"));
    assert_eq!(alice.roles[0].services, ["*"]);
    assert_eq!(alice.roles[0].actions, [Action::Read, Action::Approve]);
    assert_eq!(
        whole.database.url().unwrap().expose_secret(),
        "sqlite:///tmp/x.db"
    );
    whole.server.check().unwrap();
}

#[test]
fn errors_name_file_line_and_key() {
    for (from, to, line, key, says) in [
        ("listen:", "lissten:", 3, "server.lissten", "unknown field"),
        (
            "1m 30s",
            "soon",
            4,
            "server.request_timeout",
            "write it like 500ms, 30s",
        ),
        (
            "subject: alice",
            "subject: a b",
            6,
            "server.principals[0].subject",
            "without space",
        ),
        (
            "2bd806",
            "zzzzzz",
            7,
            "server.principals[0].token_sha256",
            "64 hexadecimal",
        ),
        (
            "[read, approve]",
            "[read, aprove]",
            9,
            "server.principals[0].roles[0].actions[1]",
            "unknown variant",
        ),
        (
            "request_timeout:",
            "max_message_bytes:",
            4,
            "server.max_message_bytes",
            "",
        ),
        ("database:", "databse:", 11, "databse", "unknown field"),
    ] {
        let text = GOOD.replace(from, to);
        let error = parse::<Whole>("slipway.yaml", &text).unwrap_err();
        let shown = error.to_string();
        let ConfigError::Parse {
            line: at,
            key: named,
            message,
            ..
        } = error
        else {
            panic!("{shown}")
        };
        assert_eq!((at, named.as_str()), (line, key), "{shown}");
        assert!(message.contains(says), "{shown}");
        assert!(shown.starts_with(&format!("slipway.yaml:{line}:")), "{shown}");
        assert!(!shown.contains('\n'), "{shown}");
    }
}

#[test]
fn a_key_twice_is_refused() {
    let error = parse::<Whole>("x.yaml", "server: {}\nserver: {}\n").unwrap_err();
    assert!(error.to_string().contains("x.yaml:2:"), "{error}");
}

#[test]
fn errors_do_not_show_secrets() {
    let text = GOOD.replace("sqlite:///tmp/x.db", "postgres://u:hunter2@db/x\n  urll: y");
    let error = parse::<Whole>("x.yaml", &text).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let text = GOOD.replace(
        "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90",
        "hunter2",
    );
    let error = parse::<Whole>("x.yaml", &text).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let whole: Whole = parse(
        "x.yaml",
        &GOOD.replace("sqlite:///tmp/x.db", "postgres://u:hunter2@db/x"),
    )
    .unwrap();
    assert!(!format!("{whole:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = read::<Whole>("/nonexistent/slipway.yaml").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/slipway.yaml: cannot be read"),
        "{error}"
    );
}

#[test]
fn plain_text_is_for_loopback() {
    let mut server = ServerConfig {
        listen: "0.0.0.0:1".parse().unwrap(),
        ..ServerConfig::default()
    };
    assert!(server.check().unwrap_err().to_string().contains("server.tls"));
    server.allow_plaintext = true;
    server.check().unwrap();
    for listen in ["127.0.0.1:1", "[::1]:1"] {
        ServerConfig {
            listen: listen.parse().unwrap(),
            ..ServerConfig::default()
        }
        .check()
        .unwrap();
    }
}

#[test]
fn one_token_is_one_principal() {
    let entry = |subject| PrincipalConfig::new(subject, "same", Vec::new()).unwrap();
    let server = ServerConfig {
        principals: vec![entry("a"), entry("b")],
        ..ServerConfig::default()
    };
    assert!(
        server
            .check()
            .unwrap_err()
            .to_string()
            .starts_with("server.principals[1].token_sha256")
    );
}

#[test]
fn a_secret_has_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, "redis://x\n").unwrap();
    let bus = BusConfig {
        redis_url_file: Some(file.clone()),
        ..BusConfig::default()
    };
    assert_eq!(bus.redis_url().unwrap().unwrap().expose_secret(), "redis://x");
    let both = BusConfig {
        redis_url: Some("redis://y".into()),
        redis_url_file: Some(file.clone()),
    };
    assert!(both.redis_url().is_err());
    std::fs::write(&file, "").unwrap();
    assert!(bus.redis_url().unwrap_err().to_string().contains("is empty"));
    assert!(BusConfig::default().redis_url().unwrap().is_none());
    assert!(DatabaseConfig::default().url().is_err());
}
