//! What a person needs to see about a failure: pods at fault, with the last lines of their logs. Pure: returns text.

use std::fmt::Write;

use slipway_proto::deploy::v1::PodEvidence;

/// How many lines of one run are shown; the resource has more.
const LINES: usize = 12;
/// How many names of pods.
const NAMES: usize = 4;

/// Pods at fault, with the last lines of their runs; the most telling first.
pub(crate) fn evidence(out: &mut String, evidence: &[PodEvidence]) {
    let mut sorted: Vec<&PodEvidence> = evidence.iter().collect();
    sorted.sort_by_key(|one| rank(one));
    for one in sorted {
        block(out, one);
    }
}

/// Pods at fault, then what their controllers say, then pods without a fault.
fn rank(one: &PodEvidence) -> u8 {
    if one.pod.contains('/') {
        1
    } else if one.state.starts_with("Running, ready") {
        2
    } else {
        0
    }
}

fn block(out: &mut String, one: &PodEvidence) {
    let exit = one
        .exit_code
        .map(|code| format!(", exit code {code}"))
        .unwrap_or_default();
    let container = match one.container.as_str() {
        "" => String::new(),
        name => format!(" container {name}"),
    };
    let telling = match one.telling.as_str() {
        "" => String::new(),
        // The state says it already.
        line if one.state.contains(line) => String::new(),
        line => format!(": {line}"),
    };
    let state = &one.state;
    if one.others == 0 {
        let noun = if one.pod.contains('/') { "" } else { "pod " };
        let _ = writeln!(out, "{noun}{}{container}: {state}{exit}{telling}", one.pod);
    } else {
        let _ = writeln!(out, "{} pods: {state}{exit}{telling}", one.others + 1);
        let names: Vec<&str> = std::iter::once(&one.pod)
            .chain(&one.other_pods)
            .map(String::as_str)
            .take(NAMES)
            .collect();
        let more = (one.others as usize + 1).saturating_sub(names.len());
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(out, "  {}{more}{container}; of {}:", names.join(", "), one.pod);
    }
    if !one.log_missing.is_empty() {
        let _ = writeln!(out, "  no log: {}", one.log_missing);
    }
    if !one.previous_log_tail.is_empty() {
        let _ = writeln!(out, "  the run before:");
        last(out, &one.previous_log_tail);
        if !one.log_tail.is_empty() {
            let _ = writeln!(out, "  this run:");
        }
    }
    last(out, &one.log_tail);
    for event in &one.events {
        let _ = writeln!(out, "  * {event}");
    }
}

/// The last lines of a log, and how many are left out.
fn last(out: &mut String, all: &[String]) {
    let skip = all.len().saturating_sub(LINES);
    if skip > 0 {
        let _ = writeln!(out, "  | … {skip} earlier lines: -o yaml");
    }
    lines(out, &all[skip..]);
}

/// Lines of a log.
pub(crate) fn lines(out: &mut String, lines: &[String]) {
    for line in lines {
        let _ = writeln!(out, "  | {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(all: &[PodEvidence]) -> String {
        let mut out = String::new();
        evidence(&mut out, all);
        out
    }

    #[test]
    fn pods_of_one_cause_are_together_and_the_most_telling_comes_first() {
        let controller = PodEvidence {
            pod: "Canary/shop".to_owned(),
            state: "Promoted, Failed: Canary analysis failed".to_owned(),
            ..PodEvidence::default()
        };
        let sound = PodEvidence {
            pod: "shop-0".to_owned(),
            container: "app".to_owned(),
            state: "Running, ready".to_owned(),
            log_missing: "the container wrote nothing".to_owned(),
            ..PodEvidence::default()
        };
        let crashing = PodEvidence {
            pod: "shop-1".to_owned(),
            container: "app".to_owned(),
            state: "CrashLoopBackOff".to_owned(),
            exit_code: Some(3),
            log_tail: (1..=20).map(|n| format!("line {n}")).collect(),
            events: vec!["Warning BackOff: Back-off".to_owned()],
            others: 5,
            other_pods: ["shop-2", "shop-3", "shop-4", "shop-5", "shop-6"]
                .map(str::to_owned)
                .to_vec(),
            telling: "cannot reach the database".to_owned(),
            ..PodEvidence::default()
        };
        let shown = text(&[sound, controller, crashing]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "6 pods: CrashLoopBackOff, exit code 3: cannot reach the database",
                "  shop-1, shop-2, shop-3, shop-4 and 2 more container app; of shop-1:",
                "  | … 8 earlier lines: -o yaml",
                "  | line 9",
            ]
        );
        assert_eq!(
            lines[lines.len() - 5..],
            [
                "  | line 20",
                "  * Warning BackOff: Back-off",
                "Canary/shop: Promoted, Failed: Canary analysis failed",
                "pod shop-0 container app: Running, ready",
                "  no log: the container wrote nothing",
            ]
        );
    }
}
