//! Argo CD's sync windows, rule by rule.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_model::Timestamp;
use slipway_verdict::{
    application::Application,
    sync_window::{Answer, AppProject, SyncWindow, may_sync},
};

fn app() -> Application {
    serde_json::from_value(json!({
        "metadata": {"name": "shop"},
        "spec": {
            "project": "default",
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop-prod"},
        },
    }))
    .unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "tables read better without borrows")]
fn window(kind: &str, schedule: &str, duration: &str, more: Value) -> SyncWindow {
    let mut window = json!({"kind": kind, "schedule": schedule, "duration": duration, "applications": ["*"]});
    for (key, value) in more.as_object().unwrap() {
        window[key] = value.clone();
    }
    serde_json::from_value(window).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn open(windows: &[SyncWindow], manual: bool, now: &str) -> bool {
    may_sync(windows, app().subject(), manual, time(now)) == Answer::Open
}

fn until(windows: &[SyncWindow], manual: bool, now: &str) -> Option<String> {
    match may_sync(windows, app().subject(), manual, time(now)) {
        Answer::Open => panic!("open at {now}"),
        // Beginnings are a moment late, since a window is not yet active at its very beginning.
        Answer::Closed { until, .. } => until.map(|time| time.to_string()[..19].to_owned()),
    }
}

#[test]
fn no_windows_no_rules() {
    assert!(open(&[], false, "2026-11-02T12:00:00Z"));
}

#[test]
fn which_applications_a_window_is_for() {
    let night = |more| vec![window("deny", "0 0 * * *", "24h", more)];
    let only = |key: &str, pattern: &str| {
        let mut more = json!({"applications": []});
        more[key] = json!([pattern]);
        night(more)
    };
    // (the window, whether it is for the application)
    let table = [
        (only("applications", "shop"), true),
        (only("applications", "sh*"), true),
        (only("applications", "sho?"), true),
        (only("applications", "{till,shop}"), true),
        (only("applications", "s[a-h]op"), true),
        (only("applications", "shop-eu"), false),
        (only("applications", "Shop"), false),
        (only("namespaces", "*-prod"), true),
        (only("namespaces", "prod"), false),
        // Slashes are as any other character.
        (only("clusters", "https://*.svc"), true),
        (only("clusters", "in-cluster"), false),
        // No application is named, so none matches.
        (night(json!({"applications": []})), false),
        (night(json!({"applications": null})), false),
        // One is enough …
        (
            night(json!({"applications": ["till"], "namespaces": ["shop-*"]})),
            true,
        ),
        // … unless all are asked for.
        (
            night(json!({"applications": ["till"], "namespaces": ["shop-*"], "andOperator": true})),
            false,
        ),
        (
            night(json!({"applications": ["shop"], "namespaces": ["shop-*"], "andOperator": true})),
            true,
        ),
        (night(json!({"applications": [], "andOperator": true})), false),
    ];
    for (windows, is_for) in table {
        let open = open(&windows, false, "2026-11-02T12:00:00Z");
        assert_eq!(open, !is_for, "{windows:?}");
    }
}

#[test]
fn allow_and_deny_together() {
    let allow = |more| window("allow", "0 8 * * 1-5", "10h", more);
    let deny = |more| window("deny", "0 12 * * *", "1h", more);
    let manual = || json!({"manualSync": true});
    let plain = || json!({});
    // Monday, 2 November 2026: (windows, time, automated sync, manual sync)
    let table = [
        (vec![allow(plain())], "09:00", true, true),
        (vec![allow(plain())], "19:00", false, false),
        (vec![allow(manual())], "19:00", false, true),
        (vec![deny(plain())], "12:30", false, false),
        (vec![deny(plain())], "11:30", true, true),
        (vec![deny(manual())], "12:30", false, true),
        // The denial is stronger.
        (vec![allow(plain()), deny(plain())], "12:30", false, false),
        (vec![allow(plain()), deny(manual())], "12:30", false, true),
        (vec![allow(plain()), deny(plain())], "09:00", true, true),
        // All that deny must let manual syncs through.
        (vec![deny(manual()), deny(plain())], "12:30", false, false),
        // All that allow, and do not now, must let manual syncs through.
        (
            vec![allow(manual()), window("allow", "0 1 * * *", "1h", plain())],
            "19:00",
            false,
            false,
        ),
        // One that allows now is enough.
        (
            vec![allow(plain()), window("allow", "0 18 * * *", "2h", plain())],
            "19:00",
            true,
            true,
        ),
        // Beginning and end: neither moment is within.
        (vec![deny(plain())], "12:00", true, true),
        (vec![deny(plain())], "13:00", true, true),
    ];
    for (windows, at, automated, by_hand) in table {
        let now = format!("2026-11-02T{at}:00Z");
        assert_eq!(
            open(&windows, false, &now),
            automated,
            "automated, {at}: {windows:?}"
        );
        assert_eq!(open(&windows, true, &now), by_hand, "manual, {at}: {windows:?}");
    }
}

#[test]
fn what_cannot_be_read_closes() {
    let table = [
        ("0 8 * *", "1h"),
        ("@daily", "1h"),
        ("0 8 * * 7", "1h"),
        ("0 8 * * 5-7", "1h"),
        ("0 8 L * *", "1h"),
        ("0 0 8 * * *", "1h"),
        ("61 8 * * *", "1h"),
        ("0 8 * * *", "an hour"),
        ("0 8 * * *", "1d"),
        ("0 8 * * *", "1 h"),
        ("0 8 * * *", ""),
    ];
    for (schedule, duration) in table {
        let windows = [window("allow", schedule, duration, json!({"manualSync": true}))];
        match may_sync(&windows, app().subject(), true, time("2026-11-02T08:30:00Z")) {
            Answer::Closed { until: None, words } => {
                assert!(words.contains("cannot be read"), "{schedule} {duration}: {words}");
            }
            other => panic!("{schedule} {duration}: {other:?}"),
        }
    }
}

#[test]
fn schedules_and_durations_as_cron_and_go_write_them() {
    // (schedule, duration, time, active)
    let table = [
        ("0 8 * * MON", "1h", "2026-11-02T08:30:00Z", true),
        ("0 8 * * mon-fri", "1h", "2026-11-02T08:30:00Z", true),
        ("0 8 * NOV ?", "1h", "2026-11-02T08:30:00Z", true),
        ("*/15 * * * *", "10m", "2026-11-02T08:50:00Z", true),
        ("*/15 * * * *", "10m", "2026-11-02T08:42:00Z", false),
        ("5/15 * * * *", "1m30s", "2026-11-02T08:21:00Z", true),
        ("0 8 * * *", "1.5h", "2026-11-02T09:20:00Z", true),
        ("0 22 * * *", "8h", "2026-11-03T05:59:59.999999Z", true),
        ("0 9 * * 0", "25h", "2026-11-02T09:30:00Z", true),
        ("0 9 * * 0", "1h", "2026-11-02T09:30:00Z", false),
        // Day of month or day of week, when both are given.
        ("0 8 13 * 1", "1h", "2026-11-02T08:30:00Z", true),
        ("0 8 13 * 2", "1h", "2026-11-02T08:30:00Z", false),
    ];
    for (schedule, duration, now, active) in table {
        let windows = [window("deny", schedule, duration, json!({}))];
        assert_eq!(open(&windows, false, now), !active, "{schedule} {duration} {now}");
    }
}

#[test]
fn the_wall_clock_of_the_zone_counts() {
    let berlin = |schedule: &str, duration: &str| {
        [window(
            "deny",
            schedule,
            duration,
            json!({"timeZone": "Europe/Berlin"}),
        )]
    };
    let evening = berlin("0 18 * * *", "1h");
    // Summer, UTC+2; winter, UTC+1.
    assert!(!open(&evening, false, "2026-07-01T16:30:00Z"));
    assert!(open(&evening, false, "2026-07-01T17:30:00Z"));
    assert!(!open(&evening, false, "2026-12-01T17:30:00Z"));
    assert!(open(&evening, false, "2026-12-01T16:30:00Z"));
    // 29 March 2026, 02:00 becomes 03:00: what begins at 02:30 is over an hour of wall clock later.
    let night = berlin("30 2 * * *", "1h");
    assert!(!open(&night, false, "2026-03-29T01:15:00Z"));
    assert!(open(&night, false, "2026-03-29T01:45:00Z"));
    // 25 October 2026, 03:00 becomes 02:00: the hour comes twice, and so does the window.
    assert!(!open(&night, false, "2026-10-25T00:45:00Z"));
    assert!(!open(&night, false, "2026-10-25T01:45:00Z"));
    assert!(open(&night, false, "2026-10-25T02:45:00Z"));
    // An unknown zone is UTC, as Argo CD takes it.
    let nowhere = [window(
        "deny",
        "0 18 * * *",
        "1h",
        json!({"timeZone": "Mars/Olympus"}),
    )];
    assert!(!open(&nowhere, false, "2026-07-01T18:30:00Z"));
}

#[test]
fn when_it_opens() {
    let deny = |schedule: &str, duration: &str| window("deny", schedule, duration, json!({}));
    let allow = |schedule: &str, duration: &str| window("allow", schedule, duration, json!({}));
    let weekdays = || allow("0 8 * * 1-5", "10h");
    // (windows, now, until)
    let table = [
        (
            vec![deny("0 12 * * *", "1h")],
            "2026-11-02T12:30:00Z",
            "2026-11-02T13:00:00",
        ),
        (vec![weekdays()], "2026-11-02T19:00:00Z", "2026-11-03T08:00:00"),
        (vec![weekdays()], "2026-11-06T19:00:00Z", "2026-11-09T08:00:00"),
        // Denied until after the next allowed time has begun.
        (
            vec![weekdays(), deny("0 7 * * *", "2h")],
            "2026-11-02T19:00:00Z",
            "2026-11-03T09:00:00",
        ),
        // Denials that overlap.
        (
            vec![deny("0 12 * * *", "1h"), deny("30 12 * * *", "2h")],
            "2026-11-02T12:10:00Z",
            "2026-11-02T14:30:00",
        ),
        // Over the end of summer time: 08:00 in Berlin is 07:00 UTC by then.
        (
            vec![window(
                "allow",
                "0 8 * * 1-5",
                "1h",
                json!({"timeZone": "Europe/Berlin"}),
            )],
            "2026-10-23T12:00:00Z",
            "2026-10-26T07:00:00",
        ),
    ];
    for (windows, now, opens) in table {
        let found = until(&windows, false, now);
        assert_eq!(found.as_deref(), Some(opens), "{windows:?} at {now}");
    }
    // Never: every minute is denied.
    assert_eq!(
        until(&[deny("* * * * *", "2m")], false, "2026-11-02T12:30:00Z"),
        None
    );
    // A day that does not exist never begins.
    assert_eq!(
        until(&[allow("0 8 30 2 *", "1h")], false, "2026-11-02T12:30:00Z"),
        None
    );
}

#[test]
fn the_words_name_the_window() {
    let windows = [window(
        "deny",
        "0 0 24 12 *",
        "72h",
        json!({"timeZone": "Europe/Berlin", "description": "Christmas freeze, OPS-12"}),
    )];
    match may_sync(&windows, app().subject(), true, time("2026-12-25T12:00:00Z")) {
        Answer::Closed { until, words } => {
            assert_eq!(
                words,
                "the project's deny window \"0 0 24 12 *\" for 72h (Europe/Berlin): Christmas freeze, OPS-12"
            );
            assert_eq!(until, Some(time("2026-12-26T23:00:00Z")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_project_is_read_as_the_cluster_has_it() {
    let project: AppProject = serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "default"},
        "spec": {"sourceRepos": ["*"], "syncWindows": [{
            "kind": "deny", "schedule": "0 0 * * *", "duration": "1h", "namespaces": ["*"], "manualSync": true,
            "andOperator": true, "timeZone": "UTC", "syncOverrun": true,
        }]},
    }))
    .unwrap();
    let window = &project.spec.sync_windows[0];
    assert!(window.manual_sync && window.and_operator);
    let empty: AppProject = serde_json::from_value(json!({"spec": {"syncWindows": null}})).unwrap();
    assert!(empty.spec.sync_windows.is_empty());
}
