//! Sync windows of an AppProject: when syncs may start.
//!
//! After Argo CD's `pkg/apis/application/v1alpha1/types.go` (SyncWindows.Matches and CanSync).

use croner::parser::{CronParser, Seconds};
use globset::GlobBuilder;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::argo_cd::duration;
use crate::object::{list, text};

/// What of an Application the windows look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) application: &'a str,
    pub(crate) namespace: &'a str,
    /// The destination's name or address.
    pub(crate) cluster: &'a str,
}

fn glob(pattern: &str, value: &str) -> bool {
    // `*` matches everything, slashes included.
    GlobBuilder::new(pattern)
        .literal_separator(false)
        .build()
        .is_ok_and(|glob| glob.compile_matcher().is_match(value))
}

fn matches(window: &Value, subject: Subject<'_>) -> bool {
    let of = |field: &str, value: &str| {
        let patterns = list(window, &[field]);
        let found = patterns.iter().any(|p| glob(p.as_str().unwrap_or(""), value));
        (!patterns.is_empty()).then_some(found)
    };
    let answers = [
        of("applications", subject.application),
        of("clusters", subject.cluster),
        of("namespaces", subject.namespace),
    ];
    let mut given = answers.into_iter().flatten().peekable();
    if window["andOperator"] == true {
        given.peek().is_some() && given.all(|found| found)
    } else {
        given.any(|found| found)
    }
}

/// Whether the window is open.
///
/// # Errors
/// When its schedule, duration or time zone cannot be read.
fn is_active(window: &Value, now: Timestamp) -> Result<bool, String> {
    let schedule = text(window, &["schedule"]);
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .build()
        .parse(schedule)
        .map_err(|error| format!("cannot parse schedule '{schedule}': {error}"))?;
    let length = text(window, &["duration"]);
    let length = duration::parse(length).ok_or_else(|| format!("cannot parse duration '{length}'"))?;
    let zone = match text(window, &["timeZone"]) {
        "" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|error| format!("cannot parse timeZone '{name}': {error}"))?,
    };
    // The wall clock there, as Argo CD counts: an hour that a time zone skips is not made up for.
    let clock = now.to_zoned(zone).datetime();
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    let from = clock.checked_sub(length).unwrap_or(jiff::civil::DateTime::MIN);
    let next = cron
        .find_next_occurrence(&from, false)
        .map_err(|error| format!("schedule '{schedule}' never comes: {error}"))?;
    Ok(next < clock)
}

/// Whether a sync may start now. `manual` is one that was not started by auto-sync.
///
/// # Errors
/// When a window that matches cannot be read; then nothing is synced.
pub(crate) fn can_sync(
    project: &Value,
    subject: Subject<'_>,
    manual: bool,
    now: Timestamp,
) -> Result<bool, String> {
    let windows = list(project, &["spec", "syncWindows"]).iter();
    let (mut denies, mut allows, mut waiting) = (Vec::new(), 0, Vec::new());
    for window in windows.filter(|window| matches(window, subject)) {
        let by_hand = window["manualSync"] == true;
        match (text(window, &["kind"]), is_active(window, now)?) {
            ("deny", true) => denies.push(by_hand),
            ("allow", true) => allows += 1,
            ("allow", false) => waiting.push(by_hand),
            _ => {}
        }
    }
    let by_hand = |windows: &[bool]| manual && windows.iter().all(|manual| *manual);
    Ok(if !denies.is_empty() {
        by_hand(&denies)
    } else if allows > 0 || waiting.is_empty() {
        true
    } else {
        by_hand(&waiting)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SUBJECT: Subject<'_> = Subject {
        application: "shop-web",
        namespace: "shop",
        cluster: "https://kubernetes.default.svc",
    };

    #[test]
    fn windows_open_and_close() {
        // A Monday.
        let now: Timestamp = "2026-03-02T09:30:00Z".parse().unwrap();
        let table = [
            ("0 9 * * *", "1h", "", true),
            ("0 9 * * *", "30m", "", false),
            ("0 9 * * 0", "1h", "", false),
            ("0 9 * * 0", "25h", "", true),
            ("0 9 * * 1-5", "1h", "", true),
            // Half past ten in Berlin, in winter.
            ("0 10 * * *", "1h", "Europe/Berlin", true),
            ("0 9 * * *", "1h", "Europe/Berlin", false),
        ];
        for (schedule, duration, zone, expected) in table {
            let window = json!({"schedule": schedule, "duration": duration, "timeZone": zone});
            assert_eq!(is_active(&window, now), Ok(expected), "{window}");
        }
        for wrong in [
            json!({"schedule": "x", "duration": "1h"}),
            json!({"schedule": "0 0 9 * * *", "duration": "1h"}),
            json!({"schedule": "* * * * *", "duration": "x"}),
            json!({"schedule": "* * * * *", "duration": "1h", "timeZone": "Nowhere"}),
        ] {
            assert!(is_active(&wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_match_by_any_of_their_globs() {
        let table = [
            (json!({"applications": ["shop-*"]}), true),
            (json!({"applications": ["*"]}), true),
            (json!({"applications": ["other"]}), false),
            (json!({"clusters": ["https://*"]}), true),
            (json!({"namespaces": ["{shop,bar}"]}), true),
            (json!({"applications": ["other"], "namespaces": ["shop"]}), true),
            (
                json!({"applications": ["other"], "namespaces": ["shop"], "andOperator": true}),
                false,
            ),
            (json!({}), false),
        ];
        for (window, expected) in table {
            assert_eq!(matches(&window, SUBJECT), expected, "{window}");
        }
    }

    #[test]
    fn denials_come_first_and_hands_may_be_free() {
        let now: Timestamp = "2026-03-02T09:30:00Z".parse().unwrap();
        let window = |kind: &str, open: bool, manual: bool| {
            json!({"kind": kind, "schedule": if open { "* * * * *" } else { "0 0 * * *" }, "duration": "1h",
                   "applications": ["*"], "manualSync": manual})
        };
        // Windows, whether a manual sync may start, whether an automated one may.
        let table = [
            (vec![], true, true),
            (vec![window("allow", true, false)], true, true),
            (vec![window("allow", false, false)], false, false),
            (vec![window("allow", false, true)], true, false),
            (vec![window("deny", true, false)], false, false),
            (vec![window("deny", true, true)], true, false),
            (vec![window("deny", false, false)], true, true),
            (
                vec![window("deny", true, true), window("deny", true, false)],
                false,
                false,
            ),
            (
                vec![window("deny", true, false), window("allow", true, false)],
                false,
                false,
            ),
            (
                vec![window("allow", true, false), window("allow", false, false)],
                true,
                true,
            ),
        ];
        for (windows, manual, automated) in table {
            let project = json!({"spec": {"syncWindows": windows}});
            assert_eq!(can_sync(&project, SUBJECT, true, now), Ok(manual), "{project}");
            assert_eq!(
                can_sync(&project, SUBJECT, false, now),
                Ok(automated),
                "{project}"
            );
        }
    }
}
