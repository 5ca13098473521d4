//! Argo CD's sync windows: whether a project lets an application be synced now.
//!
//! The rules are those of Argo CD's `SyncWindows` (3.x): an active `deny` window closes, whatever else is open, unless
//! it lets manual syncs through; otherwise an active `allow` window opens; otherwise an inactive `allow` window closes,
//! unless all of them let manual syncs through. A window that cannot be read closes as well. A schedule is a five-field
//! cron expression on the wall clock of the window's time zone, so that a window of 02:00 is open twice in the night
//! that has that hour twice.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use globset::GlobBuilder;
use jiff::{
    SignedDuration,
    civil::DateTime,
    tz::{TimeZone, TimeZoneDatabase},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use slipway_model::{Timestamp, duration::go};

use crate::objects::or_default;

/// How far ahead we look for the end of a closed period.
const HORIZON: Duration = Duration::from_secs(366 * 24 * 3600);
/// How many beginnings and ends of windows are examined for that.
const MAX_CHANGES: usize = 1000;

/// `argoproj.io/v1alpha1` AppProject. Only the fields that are used are read.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AppProject {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: AppProjectSpec,
}

/// A project's specification.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppProjectSpec {
    #[serde(default, deserialize_with = "or_default")]
    pub sync_windows: Vec<SyncWindow>,
}

/// One window of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncWindow {
    /// `allow` or `deny`.
    pub kind: String,
    /// When it begins: five cron fields, without `@` words.
    pub schedule: String,
    /// How long it lasts, in Go's notation: `1h30m`.
    pub duration: String,
    #[serde(deserialize_with = "or_default")]
    pub applications: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub namespaces: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub clusters: Vec<String>,
    /// A sync that a person or a program requests is let through.
    pub manual_sync: bool,
    /// IANA name; UTC when empty or unknown.
    pub time_zone: String,
    /// The three lists must all match; otherwise one is enough.
    pub and_operator: bool,
    pub description: String,
}

/// What windows need to know about an application: empty if it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The application's own name.
    pub name: &'a str,
    /// The namespace of its destination.
    pub namespace: &'a str,
    /// The cluster of its destination by name, by address, or both.
    pub cluster: &'a str,
    pub server: &'a str,
}

/// Whether a sync may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Open,
    Closed {
        /// When it opens, if that is within a year.
        until: Option<Timestamp>,
        /// Which window closes it, for people.
        words: String,
    },
}

/// Whether the windows of its project let the application be synced; `manual` is a sync that is not automated.
pub fn may_sync(windows: &[SyncWindow], subject: Subject<'_>, manual: bool, now: Timestamp) -> Answer {
    let matching: Vec<&SyncWindow> = windows
        .iter()
        .filter(|window| window.applies_to(subject))
        .collect();
    let mut parsed = Vec::with_capacity(matching.len());
    for window in matching {
        match Parsed::of(window) {
            Ok(window) => parsed.push(window),
            Err(error) => {
                let words = format!(
                    "{} cannot be read, which blocks every sync: {error}",
                    window.words()
                );
                return Answer::Closed { until: None, words };
            }
        }
    }
    match closing(&parsed, manual, now) {
        None => Answer::Open,
        Some(window) => Answer::Closed {
            until: opening(&parsed, manual, now),
            words: window.window.words(),
        },
    }
}

impl SyncWindow {
    /// Argo CD's `SyncWindows.Matches`, including the order of its checks.
    fn applies_to(&self, subject: Subject<'_>) -> bool {
        let by_application = any(&self.applications, &[subject.name]);
        let by_cluster = any(&self.clusters, &[subject.cluster, subject.server]);
        let by_namespace = any(&self.namespaces, &[subject.namespace]);
        let answers = [by_application, by_cluster, by_namespace];
        let mut given = answers.into_iter().flatten();
        if self.and_operator {
            let mut given = given.peekable();
            given.peek().is_some() && given.all(|matched| matched)
        } else {
            given.any(|matched| matched)
        }
    }

    fn words(&self) -> String {
        let Self {
            kind,
            schedule,
            duration,
            ..
        } = self;
        let zone = if self.time_zone.is_empty() {
            "UTC"
        } else {
            &self.time_zone
        };
        let mut words = format!("the project's {kind} window \"{schedule}\" for {duration} ({zone})");
        if !self.description.is_empty() {
            words = format!("{words}: {}", crate::cut(&self.description));
        }
        words
    }
}

/// None when nothing is listed.
fn any(patterns: &[String], values: &[&str]) -> Option<bool> {
    let matches = |pattern: &String| {
        let mut values = values.iter().filter(|value| !value.is_empty());
        values.any(|value| glob(pattern, value))
    };
    (!patterns.is_empty()).then(|| patterns.iter().any(matches))
}

/// Like gobwas/glob without separators. A pattern that cannot be read matches nothing.
fn glob(pattern: &str, value: &str) -> bool {
    pattern == "*"
        || GlobBuilder::new(pattern)
            .literal_separator(false)
            .build()
            .is_ok_and(|glob| glob.compile_matcher().is_match(value))
}

struct Parsed<'a> {
    window: &'a SyncWindow,
    schedule: Cron,
    duration: SignedDuration,
    zone: TimeZone,
}

impl<'a> Parsed<'a> {
    fn of(window: &'a SyncWindow) -> Result<Self, String> {
        let fault = |what: &str, error: &dyn std::fmt::Display| format!("cannot parse {what}: {error}");
        strict(&window.schedule)?;
        // `?` means every value, like `*`; `5/15` means every 15 starting at 5.
        let schedule = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .sloppy_ranges(true)
            .build()
            .parse(&window.schedule.replace('?', "*"))
            .map_err(|error| fault("the schedule", &error))?;
        Ok(Self {
            window,
            schedule,
            duration: go::parse(&window.duration)
                .and_then(|duration| SignedDuration::try_from(duration).ok())
                .ok_or_else(|| {
                    fault(
                        "the duration",
                        &format_args!("{:?} is not one of Go's", window.duration),
                    )
                })?,
            zone: zone(&window.time_zone),
        })
    }

    fn denies(&self) -> bool {
        self.window.kind == "deny"
    }

    fn allows(&self) -> bool {
        self.window.kind == "allow"
    }

    /// The wall clock of the window's zone.
    fn wall(&self, time: Timestamp) -> DateTime {
        instant(time).to_zoned(self.zone.clone()).datetime()
    }

    /// The instant at which the wall clock shows that; after the gap if it never does.
    fn moment(&self, wall: DateTime) -> Option<Timestamp> {
        let zoned = self.zone.to_ambiguous_zoned(wall).compatible().ok()?;
        Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
    }

    /// Argo CD looks for the first beginning after `now - duration`, and the window is active if that is past.
    fn active(&self, now: Timestamp) -> bool {
        let wall = self.wall(now);
        self.latest(wall).is_some_and(|start| start < wall)
    }

    fn latest(&self, wall: DateTime) -> Option<DateTime> {
        let from = wall.checked_sub(self.duration).ok()?;
        self.schedule.find_next_occurrence(&from, false).ok()
    }

    /// When it may next begin or end after that time. An inactive window begins; an active one ends, or begins again.
    fn change(&self, time: Timestamp) -> Option<Timestamp> {
        let wall = self.wall(time);
        let begin = self.schedule.find_next_occurrence(&wall, false).ok();
        let end = self
            .latest(wall)
            .and_then(|start| start.checked_add(self.duration).ok());
        // Its beginning is not within the period yet, nor is its end any more.
        let begin = begin
            .and_then(|wall| self.moment(wall))
            .map(|moment| moment + Duration::from_micros(1));
        let end = end.and_then(|wall| self.moment(wall));
        [begin, end]
            .into_iter()
            .flatten()
            .filter(|moment| *moment > time)
            .min()
    }
}

/// The window that keeps a sync from beginning at that time.
fn closing<'a, 'w>(windows: &'a [Parsed<'w>], manual: bool, at: Timestamp) -> Option<&'a Parsed<'w>> {
    let (active, inactive): (Vec<_>, Vec<_>) = windows.iter().partition(|window| window.active(at));
    let stops = |window: &&&Parsed<'_>| !(manual && window.window.manual_sync);
    if active.iter().any(|window| window.denies()) {
        return active
            .iter()
            .filter(|window| window.denies())
            .find(stops)
            .copied();
    }
    if active.iter().any(|window| window.allows()) {
        return None;
    }
    inactive
        .iter()
        .filter(|window| window.allows())
        .find(stops)
        .copied()
}

/// When it opens again.
fn opening(windows: &[Parsed<'_>], manual: bool, now: Timestamp) -> Option<Timestamp> {
    let mut time = now;
    for _ in 0..MAX_CHANGES {
        time = windows.iter().filter_map(|window| window.change(time)).min()?;
        if time.since(now) > HORIZON {
            return None;
        }
        if closing(windows, manual, time).is_none() {
            return Some(time);
        }
    }
    None
}

/// What Argo CD's parser accepts and ours might interpret differently: exactly five fields of numbers, names, `*`, `?`,
/// `,`, `-` and `/`, and Sunday as 0.
fn strict(schedule: &str) -> Result<(), String> {
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!(
            "the schedule has {} fields where cron has 5",
            fields.len()
        ));
    }
    for (index, field) in fields.iter().enumerate() {
        let known = |part: &str| {
            let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let name = index >= 3 && part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_alphabetic());
            number || name || matches!(part, "*" | "?")
        };
        let seventh = |item: &str| {
            let range = item.split('/').next().unwrap_or_default();
            index == 4 && range.split('-').any(|day| day == "7")
        };
        if !field.split([',', '-', '/']).all(known) || field.split(',').any(seventh) {
            return Err(format!("the schedule's field {field:?} is not cron's"));
        }
    }
    Ok(())
}

fn zone(name: &str) -> TimeZone {
    if name.is_empty() {
        return TimeZone::UTC;
    }
    // The program's own copy of the time zones, so that the verdict does not depend on the machine.
    TimeZoneDatabase::bundled().get(name).unwrap_or(TimeZone::UTC)
}

fn instant(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or(jiff::Timestamp::MAX)
}
