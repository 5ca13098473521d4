//! A recording: JSON lines of what was done to a cluster, what its watches delivered and what kubectl printed.

use serde::Deserialize;
use serde_json::Value;

/// Line by line, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// `scenario` of the header.
    pub scenario: String,
    /// The namespace that kubectl uses unless told otherwise.
    pub namespace: Option<String>,
    pub lines: Vec<Line>,
}

/// One line that has a time.
#[derive(Debug, Clone)]
pub struct Line {
    /// In the file, from 1.
    pub number: usize,
    /// Milliseconds since the start.
    pub t_ms: i64,
    pub what: What,
}

/// The content of a line.
#[derive(Debug, Clone)]
pub enum What {
    /// Something was done to the cluster, or to git.
    Action(Action),
    Watch {
        /// Such as `deployments`.
        resource: String,
        event: WatchEvent,
    },
    Kubectl {
        /// Distinguishes overlapping runs, if the recorder says which is which.
        run: String,
        event: KubectlEvent,
    },
    /// A controller's own tool (`argocd`, `kubectl-argo-rollouts`), or its object's status.
    Oracle {
        tool: String,
        /// As for kubectl.
        run: String,
        event: KubectlEvent,
    },
    /// A kind of line that this reader does not know.
    Other,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Action {
    /// What it is called, and the path that was written.
    pub words: String,
    /// What was written, if it was written to the API server.
    pub body: Value,
    /// The commit that was made.
    pub commit: Option<String>,
}

impl Action {
    /// The commit that was made, or that Argo CD was asked to sync.
    pub(crate) fn revision(&self) -> Option<&str> {
        let asked = self
            .body
            .pointer("/operation/sync/revision")
            .and_then(Value::as_str);
        self.commit.as_deref().or(asked)
    }

    /// The image of the first container of the template that was written.
    pub(crate) fn image(&self) -> Option<&str> {
        self.body
            .pointer("/spec/template/spec/containers/0/image")?
            .as_str()
    }
}

/// As the API server sent it.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`.
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub object: Value,
}

/// What kubectl, or a controller's own tool, did.
#[derive(Debug, Clone)]
pub enum KubectlEvent {
    Started {
        args: Vec<String>,
    },
    Line {
        text: String,
    },
    /// `None`: killed, or not recorded.
    Exited {
        code: Option<i64>,
    },
    Other,
}

/// Why a file is not a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("line {number}: not JSON: {why}; a recording has one JSON object a line")]
    Json { number: usize, why: String },
    #[error("line {number}: a JSON object was expected")]
    NotAnObject { number: usize },
    #[error("line {number}: {kind} without t_ms, the milliseconds since the start")]
    Time { number: usize, kind: String },
    #[error("there is nothing in it: neither watch events nor a run of kubectl or of a controller's tool")]
    Empty,
    #[error("line {number}: this is not an object of {resource}: {why}")]
    Object {
        number: usize,
        resource: String,
        why: String,
    },
}

/// Reads a recording. Kinds of lines that are not known are kept as [`What::Other`].
///
/// # Errors
/// [`ReadError`], with the number of the line.
pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Recording, ReadError> {
    let mut recording = Recording::default();
    for (index, text) in lines.into_iter().enumerate() {
        let number = index + 1;
        if text.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(text).map_err(|error| ReadError::Json {
            number,
            why: error.to_string(),
        })?;
        if !value.is_object() {
            return Err(ReadError::NotAnObject { number });
        }
        let kind = word(&value, "kind");
        if kind == "header" {
            recording.scenario = word(&value, "scenario").to_owned();
            recording.namespace = Some(word(&value, "namespace").to_owned()).filter(|name| !name.is_empty());
            continue;
        }
        let what = what(kind, &value);
        let t_ms = match (&value["t_ms"], &what) {
            (Value::Number(number), _) => number.as_f64().map_or(0, whole),
            // A line that is not used may lack a time.
            (_, What::Other) => 0,
            _ => {
                return Err(ReadError::Time {
                    number,
                    kind: kind.to_owned(),
                });
            }
        };
        recording.lines.push(Line { number, t_ms, what });
    }
    let told = |line: &Line| {
        matches!(
            line.what,
            What::Watch { .. } | What::Kubectl { .. } | What::Oracle { .. }
        )
    };
    if recording.lines.iter().any(told) {
        Ok(recording)
    } else {
        Err(ReadError::Empty)
    }
}

/// Times are whole milliseconds; fractions written by a recorder are dropped.
#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> i64 {
    number as i64
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn what(kind: &str, value: &Value) -> What {
    match kind {
        "action" => What::Action(Action {
            words: format!("{} {}", word(value, "action"), word(value, "path")),
            body: value["body"].clone(),
            commit: value["commit"].as_str().map(str::to_owned),
        }),
        "watch" => match serde_json::from_value(value["event"].clone()) {
            Ok(event) => What::Watch {
                resource: word(value, "resource").to_owned(),
                event,
            },
            Err(_) => What::Other,
        },
        "kubectl" => What::Kubectl {
            run: run(value),
            event: kubectl(value),
        },
        "oracle" => What::Oracle {
            tool: word(value, "tool").to_owned(),
            run: run(value),
            event: kubectl(value),
        },
        _ => What::Other,
    }
}

fn run(value: &Value) -> String {
    ["run", "id", "pid"]
        .iter()
        .map(|key| &value[*key])
        .find(|value| !value.is_null())
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn kubectl(value: &Value) -> KubectlEvent {
    match word(value, "event") {
        "started" => KubectlEvent::Started {
            args: match &value["args"] {
                Value::Array(args) => args
                    .iter()
                    .map(|arg| arg.as_str().map_or_else(|| arg.to_string(), str::to_owned))
                    .collect(),
                Value::String(args) => args.split_whitespace().map(str::to_owned).collect(),
                _ => Vec::new(),
            },
        },
        "line" => KubectlEvent::Line {
            text: word(value, "text").trim_end().to_owned(),
        },
        "exited" => KubectlEvent::Exited {
            code: value["code"].as_i64(),
        },
        _ => KubectlEvent::Other,
    }
}
