//! Bake: what measurements of a metric say about a version.
//!
//! The counting is that of an AnalysisRun of Argo Rollouts (`docs/features/analysis.md`, `failureLimit` and
//! `inconclusiveLimit`): a limit is how many measurements of one kind are allowed, one more decides at once, and a
//! metric whose limits hold until the end has passed; failed outweighs inconclusive, and the worst metric is the
//! verdict. Two things are stricter here, so that silence is never success. A measurement that could not be made
//! (Argo's `Error`, allowed until `consecutiveErrorLimit` in a row) is as inconclusive as one without data and is
//! counted with those, in total rather than in a row. And a metric without a single good value at the end has not
//! passed, however wide its limits are.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cut;

/// What counts as good, and how many other values are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The smallest good value.
    pub min: Option<f64>,
    /// The greatest good value.
    pub max: Option<f64>,
    /// How many bad values are allowed; one more and the metric has failed.
    pub failure_limit: u32,
    /// How many measurements without a value are allowed; one more and the metric is inconclusive.
    pub inconclusive_limit: u32,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// `None`, or a value that is not finite: the measurement is inconclusive.
    pub value: Option<f64>,
    /// Why there is no value.
    pub message: &'a str,
}

/// The result of one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Good,
    Bad,
    Inconclusive,
}

/// The result of all measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is decided yet; the progress, in words.
    Measuring(String),
    Passed,
    /// More bad values than are allowed: which value, which threshold, how many.
    Failed(String),
    /// Too few values to decide, which is not success.
    Inconclusive(String),
}

impl Limits {
    /// The result of one measurement. Without any threshold no value is good.
    pub fn phase(&self, sample: &Sample<'_>) -> Phase {
        let Some(value) = sample.value.filter(|value| value.is_finite()) else {
            return Phase::Inconclusive;
        };
        if self.min.is_none() && self.max.is_none() {
            return Phase::Inconclusive;
        }
        let good = self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max);
        if good { Phase::Good } else { Phase::Bad }
    }

    /// Such as `0.07 is above max 0.05`.
    fn complaint(&self, value: f64) -> String {
        match (self.min, self.max) {
            (Some(min), _) if value < min => format!("{} is below min {}", Number(value), Number(min)),
            (_, Some(max)) if value > max => format!("{} is above max {}", Number(value), Number(max)),
            _ => Number(value).to_string(),
        }
    }
}

/// The measurements of one metric so far, counted: equivalent to the list of them, at a fixed size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub good: u32,
    pub bad: u32,
    pub inconclusive: u32,
    /// The last value, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<f64>,
    /// The last bad value in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// The last reason why there was no value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub silence: String,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, limits: &Limits, sample: &Sample<'_>) {
        let count = match limits.phase(sample) {
            Phase::Good => &mut self.good,
            Phase::Bad => {
                self.complaint = limits.complaint(sample.value.unwrap_or_default());
                &mut self.bad
            }
            Phase::Inconclusive => {
                self.silence = match sample.value {
                    Some(value) if value.is_finite() => "no threshold to judge it by".to_owned(),
                    Some(value) => format!("{value} is not a number to judge"),
                    None if sample.message.is_empty() => "no data".to_owned(),
                    None => cut(sample.message),
                };
                &mut self.inconclusive
            }
        };
        *count = count.saturating_add(1);
        self.last = sample.value.filter(|value| value.is_finite()).or(self.last);
    }

    /// Counts all of them.
    pub fn of<'a>(limits: &Limits, samples: impl IntoIterator<Item = Sample<'a>>) -> Self {
        let mut tally = Self::default();
        for sample in samples {
            tally.add(limits, &sample);
        }
        tally
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.good
            .saturating_add(self.bad)
            .saturating_add(self.inconclusive)
    }

    /// Their result; `ended` when no more will come.
    pub fn judge(&self, name: &str, limits: &Limits, ended: bool) -> Verdict {
        let count = self.count();
        if self.bad > limits.failure_limit {
            return Verdict::Failed(format!(
                "metric {name}: {}; bad in {} of {count} measurements, failure_limit is {}",
                self.complaint, self.bad, limits.failure_limit
            ));
        }
        if self.inconclusive > limits.inconclusive_limit {
            return Verdict::Inconclusive(format!(
                "metric {name}: {}; no usable value in {} of {count} measurements, inconclusive_limit is {}",
                self.silence, self.inconclusive, limits.inconclusive_limit
            ));
        }
        if !ended {
            return Verdict::Measuring(self.words(name));
        }
        if self.good > 0 {
            return Verdict::Passed;
        }
        if self.bad > 0 {
            return Verdict::Failed(format!(
                "metric {name}: {}; not one of {count} measurements was good",
                self.complaint
            ));
        }
        Verdict::Inconclusive(match count {
            0 => format!("metric {name}: never measured"),
            _ => format!(
                "metric {name}: {}; not one of {count} measurements gave a value",
                self.silence
            ),
        })
    }

    /// The progress, such as `error-rate 0.01, 3 of 4 good, 1 without a value (no data)`.
    fn words(&self, name: &str) -> String {
        if self.count() == 0 {
            return format!("{name} not measured yet");
        }
        let mut words = name.to_owned();
        if let Some(last) = self.last {
            words = format!("{words} {}", Number(last));
        }
        words = format!("{words}, {} of {} good", self.good, self.count());
        if self.bad > 0 {
            words = format!("{words}, {} bad ({})", self.bad, self.complaint);
        }
        if self.inconclusive > 0 {
            words = format!(
                "{words}, {} without a value ({})",
                self.inconclusive, self.silence
            );
        }
        words
    }
}

/// Judges one metric by all its measurements, oldest first; `ended` when no more will come.
pub fn judge<'a>(
    name: &str,
    limits: &Limits,
    samples: impl IntoIterator<Item = Sample<'a>>,
    ended: bool,
) -> Verdict {
    Tally::of(limits, samples).judge(name, limits, ended)
}

/// The worst of several metrics' verdicts: failed, inconclusive, measuring, passed. The texts of equally bad ones are
/// joined. An empty list has passed: there was nothing to measure.
pub fn worst(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    fn join(one: &str, other: &str) -> String {
        format!("{one}; {other}")
    }
    verdicts
        .into_iter()
        .fold(Verdict::Passed, |one, other| match (one, other) {
            (Verdict::Failed(one), Verdict::Failed(other)) => Verdict::Failed(join(&one, &other)),
            (failed @ Verdict::Failed(_), _) | (_, failed @ Verdict::Failed(_)) => failed,
            (Verdict::Inconclusive(one), Verdict::Inconclusive(other)) => {
                Verdict::Inconclusive(join(&one, &other))
            }
            (silent @ Verdict::Inconclusive(_), _) | (_, silent @ Verdict::Inconclusive(_)) => silent,
            (Verdict::Measuring(one), Verdict::Measuring(other)) => Verdict::Measuring(join(&one, &other)),
            (going @ Verdict::Measuring(_), _) | (_, going @ Verdict::Measuring(_)) => going,
            (Verdict::Passed, Verdict::Passed) => Verdict::Passed,
        })
}

/// A number as people read it: exact to a millionth, with no more digits than needed.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        let size = value.abs();
        if size != 0.0 && !(1e-4..1e15).contains(&size) {
            return write!(f, "{value:.3e}");
        }
        let places = (0..=9)
            .find(|places| {
                let shown: f64 = format!("{value:.*}", *places).parse().unwrap_or(value);
                (shown - value).abs() <= size * 1e-6
            })
            .unwrap_or(9);
        write!(f, "{value:.places$}")
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::{Limits, Number, Phase, Sample, Tally, Verdict, judge, worst};

    const MAX: Limits = Limits {
        min: None,
        max: Some(0.05),
        failure_limit: 1,
        inconclusive_limit: 1,
    };

    fn values<'a>(values: &[f64]) -> Vec<Sample<'a>> {
        let sample = |value: &f64| Sample {
            value: Some(*value),
            message: "",
        };
        values.iter().map(sample).collect()
    }
    fn silent(message: &str) -> Sample<'_> {
        Sample { value: None, message }
    }
    fn failed(words: &str) -> Verdict {
        Verdict::Failed(words.to_owned())
    }
    fn inconclusive(words: &str) -> Verdict {
        Verdict::Inconclusive(words.to_owned())
    }

    #[test]
    fn one_value_is_judged_by_both_thresholds() {
        let limits = |min, max| Limits { min, max, ..MAX };
        for (limits, value, phase) in [
            (limits(None, Some(1.0)), Some(1.0), Phase::Good),
            (limits(None, Some(1.0)), Some(1.000_001), Phase::Bad),
            (limits(Some(1.0), None), Some(1.0), Phase::Good),
            (limits(Some(1.0), None), Some(0.999), Phase::Bad),
            (limits(Some(1.0), Some(2.0)), Some(1.5), Phase::Good),
            (limits(Some(1.0), Some(2.0)), Some(2.5), Phase::Bad),
            (limits(Some(1.0), Some(2.0)), Some(-1.5), Phase::Bad),
            (limits(None, Some(1.0)), None, Phase::Inconclusive),
            (limits(None, Some(1.0)), Some(f64::NAN), Phase::Inconclusive),
            (limits(None, Some(1.0)), Some(f64::INFINITY), Phase::Inconclusive),
            (
                limits(None, Some(1.0)),
                Some(f64::NEG_INFINITY),
                Phase::Inconclusive,
            ),
            (limits(None, None), Some(1.0), Phase::Inconclusive),
        ] {
            assert_eq!(
                limits.phase(&Sample { value, message: "" }),
                phase,
                "{limits:?} {value:?}"
            );
        }
    }

    #[test]
    fn a_limit_that_is_passed_decides_at_once() {
        let name = "error-rate";
        let bad = failed(
            "metric error-rate: 0.07 is above max 0.05; bad in 2 of 3 measurements, failure_limit is 1",
        );
        for ended in [false, true] {
            assert_eq!(judge(name, &MAX, values(&[0.06, 0.01, 0.07]), ended), bad);
        }
        let least = Limits {
            min: Some(100.0),
            max: None,
            failure_limit: 0,
            ..MAX
        };
        assert_eq!(
            judge("requests", &least, values(&[250.0, 3.5]), false),
            failed("metric requests: 3.5 is below min 100; bad in 1 of 2 measurements, failure_limit is 0"),
        );
        let mut mute = values(&[0.01]);
        mute.extend([silent(""), silent("prometheus main: no answer within 5s")]);
        let words = "metric error-rate: prometheus main: no answer within 5s; no usable value in 2 of 3 \
                     measurements, inconclusive_limit is 1";
        for ended in [false, true] {
            assert_eq!(judge(name, &MAX, mute.clone(), ended), inconclusive(words));
        }
        // What failed has failed, whatever else cannot be measured.
        mute.extend(values(&[1.0, 1.0]));
        assert!(matches!(judge(name, &MAX, mute, false), Verdict::Failed(_)));
    }

    #[test]
    fn limits_that_hold_to_the_end_have_passed_if_there_was_a_good_value() {
        for (samples, verdict) in [
            (values(&[0.01]), Verdict::Passed),
            (values(&[0.06, 0.01, 0.05]), Verdict::Passed),
            (vec![silent(""), values(&[0.0])[0]], Verdict::Passed),
            (vec![], inconclusive("metric m: never measured")),
            (
                vec![silent("no data")],
                inconclusive("metric m: no data; not one of 1 measurements gave a value"),
            ),
            (
                values(&[f64::NAN]),
                inconclusive(
                    "metric m: NaN is not a number to judge; not one of 1 measurements gave a value",
                ),
            ),
            (
                values(&[0.5]),
                failed("metric m: 0.5 is above max 0.05; not one of 1 measurements was good"),
            ),
            (
                vec![values(&[0.5])[0], silent("")],
                failed("metric m: 0.5 is above max 0.05; not one of 2 measurements was good"),
            ),
        ] {
            assert_eq!(judge("m", &MAX, samples.clone(), true), verdict, "{samples:?}");
            assert!(matches!(judge("m", &MAX, samples, false), Verdict::Measuring(_)));
        }
    }

    #[test]
    fn words_tell_how_it_stands() {
        let wide = Limits {
            failure_limit: 9,
            inconclusive_limit: 9,
            ..MAX
        };
        let mut samples = values(&[0.01, 0.2, 0.012_345_678]);
        for (samples, words) in [
            (vec![], "m not measured yet"),
            (samples[..1].to_vec(), "m 0.01, 1 of 1 good"),
            (
                samples.clone(),
                "m 0.01234568, 2 of 3 good, 1 bad (0.2 is above max 0.05)",
            ),
            (
                {
                    samples.push(silent("no data"));
                    samples
                },
                "m 0.01234568, 2 of 4 good, 1 bad (0.2 is above max 0.05), 1 without a value (no data)",
            ),
        ] {
            assert_eq!(
                judge("m", &wide, samples, false),
                Verdict::Measuring(words.to_owned())
            );
        }
        let long = "x".repeat(5000);
        let Verdict::Inconclusive(words) = judge("m", &MAX, [silent(&long), silent(&long)], false) else {
            panic!("two of them pass the limit");
        };
        assert!(words.len() < 1000, "the text of a remote system is bounded");
    }

    #[test]
    fn numbers_are_short() {
        for (value, shown) in [
            (0.0, "0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (0.1 + 0.2, "0.3"),
            (1234.5678, "1234.568"),
            (123_456_789.0, "123456789"),
            (1.0 / 3.0, "0.333333"),
            (0.000_01, "1.000e-5"),
            (1e300, "1.000e300"),
            (-1e-300, "-1.000e-300"),
        ] {
            assert_eq!(Number(value).to_string(), shown);
        }
    }

    #[test]
    fn the_worst_metric_is_the_verdict() {
        let going = |words: &str| Verdict::Measuring(words.to_owned());
        for (verdicts, verdict) in [
            (vec![], Verdict::Passed),
            (vec![Verdict::Passed, Verdict::Passed], Verdict::Passed),
            (vec![Verdict::Passed, going("a"), going("b")], going("a; b")),
            (
                vec![going("a"), inconclusive("b"), Verdict::Passed],
                inconclusive("b"),
            ),
            (vec![inconclusive("a"), inconclusive("b")], inconclusive("a; b")),
            (vec![failed("a"), inconclusive("b"), failed("c")], failed("a; c")),
            (vec![inconclusive("a"), failed("b")], failed("b")),
        ] {
            assert_eq!(worst(verdicts.clone()), verdict, "{verdicts:?}");
        }
    }

    fn sample() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            3 => (0.0..0.1_f64).prop_map(Some),
            1 => Just(None),
            1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)].prop_map(Some),
        ]
    }

    proptest! {
        /// For any measurements: an early decision stays with every longer list, failed never turns into passed, only
        /// an end passes, and passing requires a good value with both limits held.
        #[test]
        fn decisions_stand_and_silence_never_passes(
            values in proptest::collection::vec(sample(), 0..40),
            failure_limit in 0..6_u32,
            inconclusive_limit in 0..6_u32,
        ) {
            let limits = Limits { failure_limit, inconclusive_limit, ..MAX };
            let samples: Vec<_> = values.iter().map(|value| Sample { value: *value, message: "no data" }).collect();
            let (mut silent, mut bad) = (false, false);
            for length in 0..=samples.len() {
                match judge("m", &limits, samples[..length].iter().copied(), false) {
                    Verdict::Passed => prop_assert!(false, "passed before the end"),
                    Verdict::Measuring(_) => prop_assert!(!bad && !silent, "a decision was taken back"),
                    Verdict::Failed(_) => bad = true,
                    Verdict::Inconclusive(_) => { prop_assert!(!bad, "failed became inconclusive"); silent = true; }
                }
            }
            let count = |phase| samples.iter().filter(|sample| limits.phase(sample) == phase).count();
            let (good, poor, mute) = (count(Phase::Good), count(Phase::Bad), count(Phase::Inconclusive));
            let allowed = poor <= failure_limit as usize && mute <= inconclusive_limit as usize;
            let end = judge("m", &limits, samples.iter().copied(), true);
            prop_assert_eq!(end == Verdict::Passed, allowed && good > 0);
            prop_assert_eq!(matches!(end, Verdict::Failed(_)), poor > failure_limit as usize || (allowed && good == 0 && poor > 0));
            prop_assert!(!matches!(end, Verdict::Measuring(_)));
        }

        /// A tally that is stored and read between measurements gives the same result as the list.
        #[test]
        fn a_tally_survives_storage(values in proptest::collection::vec(sample(), 0..20), ended: bool) {
            let samples: Vec<_> = values.iter().map(|value| Sample { value: *value, message: "" }).collect();
            let mut tally = Tally::default();
            for sample in &samples {
                tally.add(&MAX, sample);
                let stored = serde_json::to_string(&tally).unwrap();
                tally = serde_json::from_str(&stored).unwrap();
            }
            let listed = judge("m", &MAX, samples, ended);
            prop_assert_eq!(tally.judge("m", &MAX, ended), listed);
        }
    }
}
