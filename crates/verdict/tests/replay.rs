//! `kubectl rollout status` as it was recorded against a real control plane, replayed event by event: with the
//! additions off our verdict is kubectl's, with them on it is never more optimistic.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use std::{fs, io::Read, path::PathBuf};

use flate2::read::GzDecoder;
use slipway_verdict::{
    FailureReason, Verdict, Verify,
    replay::{Options, Run, recording, replay},
};

/// Name and text of every recording of plain workloads.
fn recordings() -> Vec<(String, String)> {
    recordings_of("recordings")
}

fn recordings_of(folder: &str) -> Vec<(String, String)> {
    let folder = slipway_testbed::data(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("recordings in {}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.gz"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings in {}", folder.display());
    files
        .iter()
        .map(|path| {
            let mut text = String::new();
            let file = fs::File::open(path).unwrap();
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), text)
        })
        .collect()
}

fn runs(text: &str, verify: Verify) -> Vec<Run> {
    let recording = recording::read(text.lines()).unwrap();
    replay(&recording, &Options { verify }).unwrap()
}

fn strict() -> Verify {
    Verify {
        crash_loop_restarts: 2,
        ..Verify::default()
    }
}

#[test]
fn kubectls_lines_and_exit_codes_are_ours() {
    for (name, text) in recordings() {
        let runs = runs(&text, strict());
        assert!(!runs.is_empty(), "{name}: no run of kubectl rollout status");
        for run in runs {
            assert_eq!(
                run.disagreements, [""; 0],
                "{name}: {}: {:#?}",
                run.command, run.rows
            );
            assert_eq!(run.notes, [""; 0], "{name}: {}", run.command);
        }
    }
}

#[test]
fn with_the_additions_known_faults_are_found_before_kubectl_gives_up() {
    for (name, reason, lead_ms) in [
        ("deployment-crash-loop", FailureReason::CrashLoop, 1000),
        ("deployment-image-missing", FailureReason::ImageNotFound, 1000),
        ("statefulset-stuck", FailureReason::CrashLoop, 9000),
    ] {
        let (_, text) = recordings()
            .into_iter()
            .find(|(file, _)| file.starts_with(name))
            .unwrap_or_else(|| panic!("no recording {name}"));
        let run = &runs(&text, strict())[1];
        let (t, verdict) = run.additions.clone().unwrap();
        let Verdict::Failed(failure) = verdict else {
            panic!("{name}: {verdict:?}")
        };
        assert_eq!(failure.reason, reason, "{name}");
        assert!(failure.message.contains("pod "), "names the pod: {failure:?}");
        let end = run.rows.iter().rfind(|row| !row.told.is_empty()).unwrap().t_ms;
        assert!(end - t > lead_ms, "{name}: {t} ms, kubectl {end} ms");
    }
}

/// What real controllers' own tools, and kubectl with a real kubelet, said is what we say.
#[test]
fn real_controllers_and_a_real_kubelet_agree() {
    let mut runs_compared = 0;
    for (name, text) in ["recordings/real", "recordings/controllers"]
        .map(recordings_of)
        .concat()
    {
        let runs = runs(&text, Verify::default());
        assert!(!runs.is_empty(), "{name}: no run of a tool");
        for run in runs {
            assert_eq!(
                run.disagreements, [""; 0],
                "{name}: {}: {:#?}",
                run.command, run.rows
            );
            runs_compared += 1;
        }
    }
    assert!(runs_compared > 50, "only {runs_compared} runs");
}

/// With the additions a fault is known before the controller's tool gives up, with object and pod.
#[test]
fn faults_inside_are_known_before_the_controllers_give_up() {
    for (name, number, reason, words, lead_ms) in [
        (
            "argocd-crash",
            1,
            FailureReason::CrashLoop,
            "Deployment argocd-crash/shop: pod shop-",
            3000,
        ),
        (
            "rollouts-canary-crash",
            1,
            FailureReason::CrashLoop,
            "pod shop-",
            3000,
        ),
        (
            "flagger-crash",
            0,
            FailureReason::Aborted,
            "Flagger rolled back",
            -1,
        ),
    ] {
        let (_, text) = recordings_of("recordings/controllers")
            .into_iter()
            .find(|(file, _)| file.starts_with(name))
            .unwrap();
        let verify = Verify {
            crash_loop_restarts: 1,
            ..Verify::default()
        };
        let run = &runs(&text, verify)[number];
        let Some((t, Verdict::Failed(failure))) = run.additions.clone() else {
            panic!("{name}: {:?} {:#?}", run.additions, run.rows)
        };
        assert_eq!(failure.reason, reason, "{name}: {failure:?}");
        assert!(failure.message.contains(words), "{name}: {failure:?}");
        let end = run
            .rows
            .iter()
            .rfind(|row| !row.told.is_empty())
            .map_or(i64::MAX, |row| row.t_ms);
        assert!(end - t > lead_ms, "{name}: {t} ms, {} {end} ms", run.tool);
    }
}

/// Progress names the pod and why its probe fails.
#[test]
fn a_failing_probe_is_named_while_kubectl_counts() {
    let (_, text) = recordings_of("recordings/real")
        .into_iter()
        .find(|(file, _)| file.starts_with("real-deployment-unready"))
        .unwrap();
    let run = &runs(&text, Verify::default())[1];
    let told = run
        .rows
        .iter()
        .any(|row| row.full.contains("pod ms-identity-") && row.full.contains("readiness probe: HTTP 503 ("));
    assert!(told, "{:#?}", run.rows);
}

/// The images of a recording by digest, as deployments pin them: the one that the pods of each tag report.
fn pinned(text: &str) -> String {
    let lines = text.lines().map(|line| {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap()
            .to_string()
            + "\n"
    });
    let text = &lines.collect::<String>();
    let mut pinned = text.clone();
    for tag in ["aaaaaaa", "bbbbbbb", "ccccccc", "ddddddd"] {
        let name = format!("/ms-identity:{tag}\"");
        let reported = text.lines().find_map(|line| {
            let (_, behind) = line.split_once(&format!("{name},\"imageID\":\""))?;
            let (id, _) = behind.split_once('"')?;
            id.rsplit_once('@').map(|(_, digest)| digest.to_owned())
        });
        if let Some(digest) = reported {
            pinned = pinned.replace(&name, &format!("/ms-identity:{tag}@{digest}\""));
        }
    }
    pinned
}

#[test]
fn with_digests_what_kubectl_calls_done_is_proven() {
    let mut proven = 0;
    for (name, text) in recordings() {
        let pinned = pinned(&text);
        let recording = recording::read(pinned.lines()).unwrap();
        for run in replay(&recording, &Options { verify: strict() }).unwrap() {
            assert_eq!(run.disagreements, [""; 0], "{name}: {}", run.command);
            match (&run.additions, run.exit) {
                (Some((_, Verdict::Complete)), Some(0)) => proven += usize::from(pinned.contains("@sha256")),
                // What is not proven when kubectl ends is proven soon after; never something else.
                (None, Some(0)) => {}
                (Some((_, Verdict::Failed(failure))), _) => {
                    assert_ne!(failure.reason, FailureReason::WrongImage, "{name}: {failure:?}");
                }
                (additions, exit) => assert_ne!(exit, Some(0), "{name}: {additions:?}"),
            }
        }
    }
    assert!(proven >= 9, "only {proven} runs were proven");
}

mod mutations {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;
    use slipway_verdict::replay::recording::{Line, Recording, What};

    use super::*;

    static RECORDINGS: LazyLock<Vec<(String, Recording)>> = LazyLock::new(|| {
        let read = |(name, text): (String, String)| (name, recording::read(text.lines()).unwrap());
        recordings().into_iter().map(read).collect()
    });

    fn recorded(index: prop::sample::Index) -> (String, Recording) {
        RECORDINGS[index.index(RECORDINGS.len())].clone()
    }

    fn disagreements(recording: &Recording) -> Vec<String> {
        let runs = replay(recording, &Options { verify: strict() }).unwrap();
        runs.into_iter().flat_map(|run| run.disagreements).collect()
    }

    fn is_kubectl(line: &Line) -> bool {
        matches!(line.what, What::Kubectl { .. })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// What is told twice, bookmarks, and a kubectl that is quicker or slower change nothing.
        #[test]
        fn harmless(
            which in any::<prop::sample::Index>(),
            twice in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            marks in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            shift in -200_i64..600,
            jitter in prop::collection::vec(0_i64..40, 40),
        ) {
            let (name, mut recording) = recorded(which);
            for index in twice {
                let at = index.index(recording.lines.len());
                if !is_kubectl(&recording.lines[at]) {
                    recording.lines.insert(at, recording.lines[at].clone());
                }
            }
            for index in marks {
                let at = index.index(recording.lines.len());
                let event = serde_json::from_value(json!({"type": "BOOKMARK", "object": {"metadata": {}}})).unwrap();
                let mut mark = recording.lines[at].clone();
                mark.what = What::Watch { resource: "deployments".to_owned(), event };
                recording.lines.insert(at, mark);
            }
            // Each stream keeps its order; between them it may change.
            let mut last = i64::MIN;
            for (number, line) in recording.lines.iter_mut().enumerate() {
                if is_kubectl(line) {
                    line.t_ms = (line.t_ms + shift + jitter[number % jitter.len()]).max(last);
                    last = line.t_ms;
                }
            }
            recording.lines.sort_by_key(|line| line.t_ms);
            let all = disagreements(&recording);
            prop_assert!(all.is_empty(), "{name}: {all:#?}");
        }

        /// Whatever the watches lose, repeat or bring late: nothing panics, and the additions never say complete
        /// where kubectl would not.
        #[test]
        fn never_more_hopeful(
            which in any::<prop::sample::Index>(),
            dropped in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            swapped in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let (name, mut recording) = recorded(which);
            for index in dropped {
                let at = index.index(recording.lines.len());
                if !is_kubectl(&recording.lines[at]) {
                    recording.lines.remove(at);
                }
            }
            for index in swapped {
                let at = index.index(recording.lines.len() - 1);
                recording.lines.swap(at, at + 1);
            }
            for words in disagreements(&recording) {
                prop_assert!(!words.contains("with the additions is COMPLETE"), "{name}: {words}");
                prop_assert!(!words.contains(" ms our verdict is"), "{name}: {words}");
            }
        }
    }
}
