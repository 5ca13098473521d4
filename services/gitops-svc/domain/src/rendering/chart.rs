//! What Helm's words mean for a chart.

use super::Answer;
use crate::remote::paragraph;

/// How Helm's own words begin.
const ERROR: &str = "Error: ";
/// What it adds to some of them, on a line of its own.
const HINT: &str = "Use --debug flag";

/// What Helm's failure means.
pub(super) fn failure(words: &str) -> Answer {
    // That of Go itself, with pages behind it.
    if let Some(why) = words.lines().find_map(|line| line.strip_prefix("fatal error: ")) {
        return Answer::NotHere(match why.contains("memory") {
            true => "helm needs too much memory for it".to_owned(),
            false => format!("helm crashes: {why}"),
        });
    }
    if words.trim().is_empty() {
        return Answer::NotHere("something ended helm before it was done".to_owned());
    }
    // Warnings come before it.
    let mut lines = words.lines().skip_while(|line| !line.starts_with(ERROR));
    let text = match lines.next().and_then(|line| line.strip_prefix(ERROR)) {
        Some(first) => {
            let rest = lines.take_while(|line| !line.starts_with(HINT));
            paragraph(&std::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n"))
        }
        None => paragraph(words),
    };
    let any = |texts: &[&str]| texts.iter().any(|wanted| text.contains(wanted));
    let not_here = |why: &str| Answer::NotHere(format!("{why}; helm says: {text}"));
    if any(&["missing in charts/ directory"]) {
        return not_here("it depends on charts that are not in this repository");
    }
    if any(&["library charts are not installable"]) {
        return not_here("a library chart is rendered only as a part of what uses it");
    }
    if any(&["unknown flag: "]) {
        return not_here("it needs a newer helm");
    }
    Answer::Fails(format!("helm says: {text}"))
}

/// Whether the words are about the values that were edited, so that no others make up for it. `None`: the chart's own.
pub(super) fn is_unreadable(words: &str, values: Option<&str>) -> bool {
    let Some(said) = words.strip_prefix("helm says: ") else {
        return false;
    };
    match values {
        Some(file) => said.starts_with(&format!("failed to parse {file}: ")),
        None => said.starts_with("cannot load values.yaml: "),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, failure, is_unreadable};

    #[test]
    fn only_what_helm_says_of_the_chart_is_a_failure() {
        for (words, wanted) in [
            (
                "Error: execution error at (shop/templates/x.yaml:1:3): no\n\nUse --debug flag to render out invalid YAML\n",
                "helm says: execution error at (shop/templates/x.yaml:1:3): no",
            ),
            (
                "level=WARN msg=\"Error: x\"\nError: values don't meet the specifications of the schema(s):\nshop:\n- at '/image/tag': no\n",
                "helm says: values don't meet the specifications of the schema(s):; shop:; - at '/image/tag': no",
            ),
            ("no such option\n", "helm says: no such option"),
        ] {
            assert_eq!(failure(words), Answer::Fails(wanted.to_owned()));
        }
        for (words, wanted) in [
            (
                "Error: an error occurred while checking for chart dependencies: found in Chart.yaml, but missing in charts/ directory: redis",
                "it depends on charts that are not in this repository; helm says: an error",
            ),
            ("Error: library charts are not installable", "a library chart"),
            (
                "Error: unknown flag: --skip-schema-validation",
                "it needs a newer helm",
            ),
            (
                "runtime: out of memory: cannot allocate 4194304-byte block\nfatal error: out of memory\n\ngoroutine 1:\n",
                "helm needs too much memory for it",
            ),
            ("fatal error: stack overflow\n", "helm crashes: stack overflow"),
            ("\n", "something ended helm"),
        ] {
            let Answer::NotHere(why) = failure(words) else {
                panic!("{words}")
            };
            assert!(why.starts_with(wanted), "{words}: {why}");
        }
    }

    #[test]
    fn values_that_cannot_be_read_are_broken_whatever_is_added() {
        for (words, values, wanted) in [
            (
                "helm says: failed to parse a/dev.yaml: yaml: line 1",
                Some("a/dev.yaml"),
                true,
            ),
            (
                "helm says: failed to parse a/dev.yaml: yaml: line 1",
                Some("dev.yaml"),
                false,
            ),
            ("helm says: cannot load values.yaml: yaml: line 1", None, true),
            (
                "helm says: cannot load values.yaml: yaml: line 1",
                Some("a/dev.yaml"),
                false,
            ),
            (
                "helm says: error unpacking subchart x: cannot load values.yaml: yaml",
                None,
                false,
            ),
            (
                "helm says: execution error: failed to parse a/dev.yaml: x",
                Some("a/dev.yaml"),
                false,
            ),
        ] {
            assert_eq!(is_unreadable(words, values), wanted, "{words} {values:?}");
        }
    }
}
