use super::*;

const EXAMPLE: &str = r#"
server: { listen: "127.0.0.1:7001" }
database: { url: "sqlite:///var/lib/slipway/build.db" }
data_dir: /var/lib/slipway/build/data
logs: { directory: /var/lib/slipway/build/logs }
limits: { concurrency: 3, timeout: 10m }
repositories: ["https://git.example/*", "file:///srv/git/*"]
builders:
  default: { kind: buildah }
  other: { kind: buildah, isolation: rootless }
default_builder: default
registries:
  - { prefix: "127.0.0.1:5000", kind: oci, tls: plaintext }
  - { kind: oci_layout, directory: /srv/images }
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    slipway_server::config::parse("test.yaml", text)
        .and_then(|config: Config| config.check_files().map(|()| config))
}

#[test]
fn the_example_is_read() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.settings.default_builder(), "default");
    let limits = config.settings.limits.of_build(None);
    assert_eq!((limits.timeout_s, limits.attempts), (600, 4));
}

#[test]
fn mistakes_are_named() {
    for (from, to, words) in [
        ("builders:", "bilders:", "bilders"),
        (
            "kind: buildah",
            "kind: kubernetes",
            "builders.default.kind: kubernetes is not supported yet",
        ),
        ("kind: buildah", "kind: podman", "podman"),
        (
            "default_builder: default",
            "default_builder: absent",
            "default_builder: \"absent\" is not",
        ),
        (
            "kind: oci, tls: plaintext",
            "kind: ecr",
            "registries[0].kind: ecr is not supported yet",
        ),
        (
            "tls: plaintext",
            "tls: plaintext, username: x",
            "registries[0].username",
        ),
        ("\"127.0.0.1:5000\"", "team", "registries[0].prefix"),
        (
            "kind: oci_layout, directory: /srv/images",
            "kind: oci_layout",
            "registries[1].directory",
        ),
        (
            "https://git.example/*",
            "https://git.example*",
            "repository pattern",
        ),
        ("timeout: 10m", "timeout: 7h", "limits.timeout"),
        ("concurrency: 3", "concurrency: 0", "limits.concurrency"),
        ("build/data", "build:data", "data_dir"),
        (
            "limits:",
            "git: { credentials: [{prefix: \"https://git.example\", username: x, password_file: /x}] }\nlimits:",
            "git.credentials[0].prefix",
        ),
        (
            "limits:",
            "git: { ssh: {key_file: \"/a b\", known_hosts_file: /x} }\nlimits:",
            "git.ssh.key_file",
        ),
        (
            "tls: plaintext",
            "tls: plaintext, username: x, password_file: /no/such/file",
            "registries[0].password_file: /no/such/file",
        ),
    ] {
        assert!(EXAMPLE.contains(from), "{from}");
        let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(words), "{to}: {error}");
    }
}
