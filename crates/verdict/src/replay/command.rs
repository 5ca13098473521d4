//! The command line of a `kubectl rollout status`.

use std::time::Duration;

use slipway_model::duration::go;

use crate::WorkloadKind;

/// One `kubectl rollout status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// One after the other, in kubectl's order. Empty: not given by name (`-l`, `-f`, `-k`).
    pub targets: Vec<TargetArgument>,
    pub namespace: Option<String>,
    /// `--watch=false` asks once.
    pub watch: bool,
    /// Zero: not given.
    pub revision: i64,
    pub timeout: Option<Duration>,
}

/// What kubectl was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetArgument {
    pub kind: WorkloadKind,
    /// `None`: all of the kind.
    pub name: Option<String>,
}

/// Flags that take the next argument when they have no `=`.
const WITH_VALUE: &[&str] = &[
    "-n",
    "--namespace",
    "--revision",
    "--timeout",
    "-f",
    "--filename",
    "-k",
    "--kustomize",
    "-l",
    "--selector",
    "-s",
    "--server",
    "--as",
    "--as-group",
    "--as-uid",
    "--cache-dir",
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--cluster",
    "--context",
    "--kubeconfig",
    "--log-flush-frequency",
    "--password",
    "--profile",
    "--profile-output",
    "--request-timeout",
    "--tls-server-name",
    "--token",
    "--user",
    "--username",
    "-v",
    "--v",
    "--vmodule",
];

/// Reads the arguments; `None` when they are not those of `rollout status`.
pub fn read(args: &[String]) -> Option<Command> {
    let mut command = Command {
        targets: Vec::new(),
        namespace: None,
        watch: true,
        revision: 0,
        timeout: None,
    };
    let mut words = Vec::new();
    let mut rest = args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        if !arg.starts_with('-') || arg == "-" {
            words.push(arg);
            continue;
        }
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None if WITH_VALUE.contains(&arg) => (arg, rest.next()),
            // -nshop
            None if arg.starts_with("-n") => ("-n", arg.strip_prefix("-n")),
            None => (arg, None),
        };
        match (flag, value) {
            ("-n" | "--namespace", Some(value)) => command.namespace = Some(value.to_owned()),
            ("-w" | "--watch", value) => {
                command.watch = !matches!(value, Some("false" | "f" | "F" | "0" | "False" | "FALSE"));
            }
            ("--revision", Some(value)) => command.revision = value.parse().unwrap_or(0),
            ("--timeout", Some(value)) => command.timeout = go::parse(value).filter(|time| !time.is_zero()),
            _ => {}
        }
    }
    let words = words.strip_prefix(&["kubectl"]).unwrap_or(&words);
    let words = words.strip_prefix(&["rollout", "status"])?;
    if words.iter().any(|word| word.contains('/')) {
        let both = words.iter().filter_map(|word| word.split_once('/'));
        command.targets = both
            .filter_map(|(kind, name)| {
                Some(TargetArgument {
                    kind: self::kind(kind)?,
                    name: Some(name.to_owned()),
                })
            })
            .collect();
    } else if let Some((kinds, names)) = words.split_first() {
        for kind in kinds.split(',').filter_map(kind) {
            let named = names.iter().map(|name| TargetArgument {
                kind,
                name: Some((*name).to_owned()),
            });
            command.targets.extend(named);
            if names.is_empty() {
                command.targets.push(TargetArgument { kind, name: None });
            }
        }
    }
    Some(command)
}

/// A kind as kubectl accepts it: singular, plural, short, followed by version and group.
fn kind(word: &str) -> Option<WorkloadKind> {
    let word = word.to_ascii_lowercase();
    let (word, group) = word.split_once('.').unwrap_or((&word, "apps"));
    if !(group == "apps" || group.ends_with(".apps")) {
        return None;
    }
    Some(match word {
        "deployment" | "deployments" | "deploy" => WorkloadKind::Deployment,
        "statefulset" | "statefulsets" | "sts" => WorkloadKind::StatefulSet,
        "daemonset" | "daemonsets" | "ds" => WorkloadKind::DaemonSet,
        _ => return None,
    })
}
