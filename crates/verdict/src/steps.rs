//! How long the steps of a canary or blue-green rollout take by themselves: its pauses, analyses and experiments, as they
//! are written in the Rollout (Argo Rollouts) or the Canary (Flagger). What pods need to start comes on top of it.

use std::time::Duration;

use serde_json::Value;
use slipway_model::duration::{self, go};

/// Flagger's own interval where none is written.
const FLAGGER_INTERVAL: Duration = Duration::from_secs(60);
/// Flagger's checks around the steps: one before the first, and one each for the promotion and the end.
const FLAGGER_AROUND: u32 = 3;
/// Analyses longer than this are not waited for; a larger number is more likely a mistake.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a person is given to promote where nothing is written.
const FOR_A_PERSON: Duration = Duration::from_secs(24 * 60 * 60);

/// What a rollout waits for by design.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// The sum of its steps.
    pub time: Duration,
    /// It also pauses until a person promotes it.
    pub people: bool,
}

impl Steps {
    /// Whether there is nothing to wait for.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// How much longer than a rollout without steps it may take: a quarter more than its steps, for pods that start
    /// slowly and checks that are repeated, and a day for a person.
    pub fn room(self) -> Duration {
        let room = self.time.saturating_add(self.time / 4);
        if self.people {
            room.saturating_add(FOR_A_PERSON)
        } else {
            room
        }
    }

    /// In words: "30m of steps and a person".
    pub fn words(self) -> String {
        let steps = format!("{} of pauses and analyses", duration::print(self.time));
        match (self.time.is_zero(), self.people) {
            (_, false) => steps,
            (false, true) => format!("{steps}, and a pause for a person"),
            (true, true) => "a pause for a person".to_owned(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            time: self.time.saturating_add(other.time).min(LONGEST),
            people: self.people || other.people,
        }
    }

    /// Of several that go on at once, the longest.
    fn beside(self, other: Self) -> Self {
        Self {
            time: self.time.max(other.time),
            people: self.people || other.people,
        }
    }

    fn of(time: Duration) -> Self {
        Self {
            time: time.min(LONGEST),
            people: false,
        }
    }

    fn person() -> Self {
        Self {
            time: Duration::ZERO,
            people: true,
        }
    }
}

/// Of the Rollouts and Canaries among these objects; `promotes`: pauses for a person are ended at once. AnalysisTemplates
/// among them say how long analyses take; of others that is not known.
pub fn of<'a>(objects: &(impl Iterator<Item = &'a Value> + Clone), promotes: bool) -> Steps {
    let each = objects.clone().filter_map(|object| {
        let is = |group: &str, kind: &str| {
            let version = text(object, "/apiVersion").unwrap_or_default();
            text(object, "/kind") == Some(kind) && version.split('/').next() == Some(group)
        };
        if is("argoproj.io", "Rollout") {
            Some(rollout(object, objects, promotes))
        } else if is("flagger.app", "Canary") {
            Some(canary(object))
        } else {
            None
        }
    });
    each.fold(Steps::default(), Steps::beside)
}

fn rollout<'a>(live: &Value, objects: &(impl Iterator<Item = &'a Value> + Clone), promotes: bool) -> Steps {
    let person = if promotes {
        Steps::default()
    } else {
        Steps::person()
    };
    let list = |pointer: &str| live.pointer(pointer).and_then(Value::as_array);
    let canary = list("/spec/strategy/canary/steps").into_iter().flatten();
    let canary = canary.map(|step| {
        if let Some(pause) = step.get("pause") {
            return match pause.get("duration").filter(|written| !written.is_null()) {
                Some(written) => Steps::of(seconds_or_go(written).unwrap_or_default()),
                None => person,
            };
        }
        let experiment = step.pointer("/experiment/duration").and_then(seconds_or_go);
        let analyses = ["/analysis/templates", "/experiment/analyses"];
        let analyses = analyses.iter().filter_map(|pointer| step.pointer(pointer));
        let analyses = analyses.map(|named| analysis(named, objects));
        let analyses = analyses.fold(Steps::default(), Steps::beside);
        Steps::of(experiment.unwrap_or_default()).beside(analyses)
    });
    let steps = canary.fold(Steps::default(), Steps::and);
    let Some(blue_green) = live.pointer("/spec/strategy/blueGreen") else {
        return steps;
    };
    let switch = match blue_green.get("autoPromotionSeconds").and_then(Value::as_u64) {
        Some(seconds) if seconds > 0 => Steps::of(Duration::from_secs(seconds)),
        _ if blue_green.get("autoPromotionEnabled") == Some(&Value::Bool(false)) => person,
        _ => Steps::default(),
    };
    let around = ["prePromotionAnalysis", "postPromotionAnalysis"].iter();
    let around = around.filter_map(|key| blue_green.pointer(&format!("/{key}/templates")));
    let around = around.map(|named| analysis(named, objects));
    around.fold(switch, Steps::and)
}

/// The longest of the templates that a step names; they run at once.
fn analysis<'a>(named: &Value, objects: &(impl Iterator<Item = &'a Value> + Clone)) -> Steps {
    let names: Vec<&str> = named
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|template| template.get("templateName")?.as_str())
        .collect();
    let templates = objects.clone().filter(|object| {
        let template = matches!(
            text(object, "/kind"),
            Some("AnalysisTemplate" | "ClusterAnalysisTemplate")
        );
        template && text(object, "/metadata/name").is_some_and(|name| names.contains(&name))
    });
    let metrics = templates.flat_map(|template| {
        let metrics = template.pointer("/spec/metrics").and_then(Value::as_array);
        metrics.into_iter().flatten()
    });
    let longest = metrics.map(metric).max().unwrap_or_default();
    Steps::of(longest)
}

/// The initial delay, and an interval for each measurement. Without an interval there is one measurement; without a count
/// it has no end of its own, and only a background analysis is written like that.
fn metric(metric: &Value) -> Duration {
    let time = |key: &str| metric.get(key).and_then(seconds_or_go).unwrap_or_default();
    let count = match metric.get("count") {
        Some(Value::Number(count)) => count.as_u64(),
        Some(Value::String(count)) => count.parse().ok(),
        _ => None,
    };
    let count = u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX);
    time("initialDelay").saturating_add(time("interval").saturating_mul(count))
}

fn canary(live: &Value) -> Steps {
    let analysis = ["/spec/analysis", "/spec/canaryAnalysis"];
    let analysis = analysis.iter().find_map(|pointer| live.pointer(pointer));
    let Some(analysis) = analysis.filter(|_| live.pointer("/spec/skipAnalysis") != Some(&Value::Bool(true)))
    else {
        return Steps::default();
    };
    let number = |key: &str| {
        let number = analysis.get(key).and_then(Value::as_u64).unwrap_or(0);
        u32::try_from(number).unwrap_or(u32::MAX)
    };
    let interval = analysis.get("interval").and_then(seconds_or_go);
    let interval = interval
        .filter(|interval| !interval.is_zero())
        .unwrap_or(FLAGGER_INTERVAL);
    let weights = analysis.get("stepWeights").and_then(Value::as_array);
    let weights = weights.map_or(0, |weights| u32::try_from(weights.len()).unwrap_or(u32::MAX));
    let most = match number("maxWeight") {
        0 => 100,
        most => most,
    };
    let steps = match (number("iterations"), weights, number("stepWeight")) {
        (0, 0, 0) => 0,
        (0, 0, step) => most.div_ceil(step),
        (0, weights, _) => weights,
        (iterations, ..) => iterations,
    };
    let promotion = match number("stepWeightPromotion") {
        0 => 0,
        step => 100_u32.div_ceil(step),
    };
    // A failed check is repeated until there are as many as the threshold allows.
    let checks = steps
        .saturating_add(promotion)
        .saturating_add(number("threshold"))
        .saturating_add(FLAGGER_AROUND);
    let webhooks = analysis.get("webhooks").and_then(Value::as_array);
    let people = webhooks.into_iter().flatten().any(|webhook| {
        matches!(
            webhook.get("type").and_then(Value::as_str),
            Some("confirm-rollout" | "confirm-promotion" | "confirm-traffic-increase")
        )
    });
    let steps = Steps::of(interval.saturating_mul(checks));
    if people { steps.and(Steps::person()) } else { steps }
}

/// As Argo Rollouts and Flagger write durations: seconds, as number or text, or `1h30m`.
fn seconds_or_go(written: &Value) -> Option<Duration> {
    match written {
        Value::Number(seconds) => seconds.as_u64().map(Duration::from_secs),
        Value::String(text) => match text.parse::<u64>() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => go::parse(text),
        },
        _ => None,
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value)] // what `json!` makes

    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn rollout(strategy: Value) -> Value {
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"strategy": strategy}})
    }

    fn canary(analysis: Value) -> Value {
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "spec": {"analysis": analysis}})
    }

    fn steps(objects: &[Value]) -> (Duration, bool) {
        let steps = of(&objects.iter(), false);
        (steps.time, steps.people)
    }

    #[test]
    fn a_rollout_takes_the_sum_of_its_pauses_and_analyses() {
        let template = |name: &str, metrics: Value| {
            json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
                "metadata": {"name": name}, "spec": {"metrics": metrics}
            })
        };
        let pause = |duration: Value| json!({"pause": {"duration": duration}});
        let ten = || pause(json!("10m"));
        let analysis = |name: &str| json!({"analysis": {"templates": [{"templateName": name}]}});
        for (strategy, time, people) in [
            (json!({"canary": {}}), minutes(0), false),
            (
                json!({"canary": {"steps": [{"setWeight": 20}, ten(), {"setWeight": 40}, ten(), {"setWeight": 60}, ten()]}}),
                minutes(30),
                false,
            ),
            (
                json!({"canary": {"steps": [pause(json!(90)), pause(json!("30")), pause(json!("1h30m"))]}}),
                minutes(92),
                false,
            ),
            (
                json!({"canary": {"steps": [{"pause": {}}, ten()]}}),
                minutes(10),
                true,
            ),
            (
                json!({"canary": {"steps": [analysis("latency"), ten(), analysis("unknown")]}}),
                minutes(10 + 26),
                false,
            ),
            (
                json!({"canary": {"steps": [{"experiment": {"duration": "45m", "analyses": [{"templateName": "latency"}]}}]}}),
                minutes(45),
                false,
            ),
            (
                json!({"blueGreen": {"autoPromotionEnabled": false}}),
                minutes(0),
                true,
            ),
            (
                json!({"blueGreen": {"autoPromotionEnabled": false, "autoPromotionSeconds": 600}}),
                minutes(10),
                false,
            ),
            (
                json!({"blueGreen": {"postPromotionAnalysis": {"templates": [{"templateName": "latency"}]}}}),
                minutes(26),
                false,
            ),
        ] {
            let objects = [
                rollout(strategy.clone()),
                template(
                    "latency",
                    json!([{"initialDelay": "1m", "interval": "5m", "count": 5}, {"interval": "1m", "count": "3"}, {"interval": "1m"}]),
                ),
            ];
            assert_eq!(steps(&objects), (time, people), "{strategy}");
        }
        let waits = rollout(json!({"canary": {"steps": [{"pause": {}}]}}));
        assert!(of(&[waits].iter(), true).is_empty(), "they are promoted at once");
    }

    #[test]
    fn a_canary_takes_an_interval_for_each_check() {
        let threshold = |rest: Value| {
            let mut analysis = json!({"interval": "2m", "threshold": 5});
            let (Value::Object(all), Value::Object(rest)) = (&mut analysis, rest) else {
                panic!("objects")
            };
            all.extend(rest);
            analysis
        };
        for (analysis, checks, people) in [
            (
                threshold(json!({"maxWeight": 50, "stepWeight": 20})),
                3 + 5 + 3,
                false,
            ),
            (threshold(json!({"stepWeight": 10})), 10 + 5 + 3, false),
            (
                threshold(json!({"stepWeights": [1, 5, 20, 50]})),
                4 + 5 + 3,
                false,
            ),
            (threshold(json!({"iterations": 10})), 10 + 5 + 3, false),
            (
                threshold(json!({"stepWeights": [50], "stepWeightPromotion": 25})),
                1 + 4 + 5 + 3,
                false,
            ),
            (
                threshold(json!({"iterations": 1, "webhooks": [{"type": "confirm-promotion"}]})),
                1 + 5 + 3,
                true,
            ),
        ] {
            assert_eq!(
                steps(&[canary(analysis.clone())]),
                (minutes(2 * checks), people),
                "{analysis}"
            );
        }
        assert_eq!(
            steps(&[canary(json!({"iterations": 7}))]),
            (minutes(10), false),
            "Flagger's own interval"
        );
        let mut skips = canary(json!({"iterations": 7}));
        skips["spec"]["skipAnalysis"] = json!(true);
        assert_eq!(steps(&[skips]), (minutes(0), false));
    }

    #[test]
    fn several_go_on_at_once_and_others_have_no_steps() {
        let pause =
            |duration: &str| rollout(json!({"canary": {"steps": [{"pause": {"duration": duration}}]}}));
        let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"strategy": {"canary": {"steps": [{"pause": {}}]}}}});
        assert_eq!(
            steps(&[pause("10m"), other.clone(), pause("5m")]),
            (minutes(10), false)
        );
        assert_eq!(steps(&[other]), (minutes(0), false));
    }

    #[test]
    fn the_room_is_a_quarter_more_and_a_day_for_a_person() {
        let of = |time, people| Steps { time, people };
        assert_eq!(of(minutes(40), false).room(), minutes(50));
        assert_eq!(of(minutes(40), true).room(), minutes(50 + 24 * 60));
        assert_eq!(of(minutes(30), false).words(), "30m of pauses and analyses");
        assert_eq!(of(minutes(0), true).words(), "a pause for a person");
        assert_eq!(
            of(minutes(30), true).words(),
            "30m of pauses and analyses, and a pause for a person"
        );
    }
}
