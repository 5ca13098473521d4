//! `kubectl rollout status` as it was recorded against a real control plane, replayed event by event: with the
//! additions off our verdict is kubectl's, with them on it is never more hopeful.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use slipway_verdict::{
    FailureReason, Verdict, Verify,
    replay::{Options, Run, recording, replay},
};

/// Name and text of every recording. A checkout elsewhere names the folder itself.
fn recordings() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recordings");
    let folder = std::env::var_os("SLIPWAY_RECORDINGS").map_or(folder, PathBuf::from);
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
        // Another folder may lack them.
        let Some((_, text)) = recordings().into_iter().find(|(file, _)| file.starts_with(name)) else {
            continue;
        };
        let run = &runs(&text, strict())[1];
        let (t, verdict) = run.additions.clone().unwrap();
        let Verdict::Failed(failure) = verdict else {
            panic!("{name}: {verdict:?}")
        };
        assert_eq!(failure.reason, reason, "{name}");
        assert!(failure.message.contains("pod "), "names the pod: {failure:?}");
        let end = run.rows.iter().rfind(|row| !row.kubectl.is_empty()).unwrap().t_ms;
        assert!(end - t > lead_ms, "{name}: {t} ms, kubectl {end} ms");
    }
}
