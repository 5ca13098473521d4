//! Approvals as people read them. Pure: returns text, with nothing in it that is not in the approval.
//!
//! The contents of an approval were supplied by its requester. Characters that control a terminal, or that reverse or
//! hide text, are written as their numbers.

use std::fmt::Write as _;

use slipway_proto::{
    approval::v1::{
        Approval, CommitRange, Policy, Section, Subject, Table, decision::Verdict, section::Body,
        subject::Kind,
    },
    common::v1::Image,
};
use slipway_server::convert;

use super::super::table;
use crate::{readable, retry};

/// A status as people read it: `PENDING`.
pub(super) fn status(approval: &Approval) -> &'static str {
    approval.status().as_str_name().trim_start_matches("STATUS_")
}

/// Approvals, one in a row, as they were at `now` (microseconds since 1970).
pub(super) fn table_of(approvals: &[Approval], now: i64) -> comfy_table::Table {
    let mut rows = table(&["APPROVAL", "FOR", "POLICY", "STATUS", "WAITS FOR", "AGE"]);
    for approval in approvals {
        let age = now - readable::micros(approval.create_time.as_ref()).unwrap_or(now);
        let subject = approval.subject.as_ref().map_or("", |subject| &subject.summary);
        let policy = approval.policy.as_ref().map_or("", |policy| &policy.name);
        let waiting = approval
            .waiting_on
            .as_ref()
            .map_or("", |waiting| &waiting.message);
        rows.add_row([
            approval.id.clone(),
            line(subject),
            line(policy),
            line(&retry::status(status(approval), approval.retry.as_ref(), now)),
            line(waiting),
            readable::seconds(age),
        ]);
    }
    rows
}

/// One approval in full, as it was at `now`.
pub(super) fn whole(approval: &Approval, now: i64) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}  {}", approval.id, status(approval));
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:8} {}", line(value));
        }
    };
    let subject = approval.subject.clone().unwrap_or_default();
    say("for", &subject.summary);
    say("kind", kind(&subject));
    say("scope", &scope(&subject));
    say("target", &subject.scope.clone().unwrap_or_default().target);
    for named in &subject.images {
        say("image", &image(named));
    }
    say(
        "commits",
        &subject.commits.as_ref().map(commits).unwrap_or_default(),
    );
    say("plan", &subject.plan_hash);
    say(
        "policy",
        &approval.policy.as_ref().map(policy).unwrap_or_default(),
    );
    say("asked by", &convert::chain(approval.requested_by.as_ref()));
    for decision in &approval.decisions {
        let verdict = match decision.verdict() {
            Verdict::Approve => "yes",
            Verdict::Reject => "no",
            Verdict::Unspecified => "?",
        };
        let by = convert::chain(decision.by.as_ref());
        say(verdict, format!("{by}  {}", decision.comment).trim_end());
    }
    if let Some(reason) = &approval.reason {
        say("reason", &format!("{}: {}", reason.code, reason.message));
    }
    say(
        "waits",
        approval
            .waiting_on
            .as_ref()
            .map_or("", |waiting| &waiting.message),
    );
    let retry = approval.retry.as_ref().map(|retry| retry::line(retry, now));
    say("", &retry.unwrap_or_default());
    say("binding", &approval.binding);
    for shown in &subject.sections {
        text.push_str(&section(shown));
    }
    text
}

fn kind(subject: &Subject) -> &'static str {
    match subject.kind() {
        Kind::Release => "release",
        Kind::WorkflowRun => "run of a workflow",
        Kind::Canary => "canary",
        Kind::Infrastructure => "infrastructure",
        Kind::Unspecified => "",
    }
}

fn scope(subject: &Subject) -> String {
    let scope = subject.scope.clone().unwrap_or_default();
    if scope.environment.is_empty() {
        scope.service
    } else {
        format!("{} in {}", scope.service, scope.environment)
    }
}

/// The digest in full: it is what is being approved.
fn image(image: &Image) -> String {
    let tags = if image.tags.is_empty() {
        String::new()
    } else {
        format!(" ({})", image.tags.join(", "))
    };
    if image.repository.is_empty() {
        return format!("{} {}{tags}", image.name, image.digest);
    }
    format!("{} {}@{}{tags}", image.name, image.repository, image.digest)
}

fn commits(commits: &CommitRange) -> String {
    let mut said = match commits.base.as_str() {
        "" => commits.head.clone(),
        base => format!("{base}..{}", commits.head),
    };
    if !commits.branch.is_empty() {
        let _ = write!(said, " on {}", commits.branch);
    }
    if !commits.repository_url.is_empty() {
        let _ = write!(said, " of {}", commits.repository_url);
    }
    said
}

fn policy(policy: &Policy) -> String {
    let who = if policy.approvers.is_empty() {
        "anyone who may approve".to_owned()
    } else {
        policy.approvers.join(", ")
    };
    format!("{} ({} of {who})", policy.name, policy.required)
}

/// A section under its title and source, with its body indented.
fn section(section: &Section) -> String {
    let mut text = format!("\n{}  (from {})\n", line(&section.title), line(&section.source));
    let body = match &section.body {
        Some(Body::Table(table)) => cells(table),
        Some(Body::Diff(diff)) => block(&diff.text),
        Some(Body::Text(text)) => block(text),
        Some(Body::Link(link)) => format!("{}: {}\n", line(&link.rel), line(&link.href)),
        None => format!(
            "{} bytes with SHA-256 {}, which are not shown here\n",
            section.size, section.sha256
        ),
    };
    for line in body.lines() {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
    }
    text
}

fn cells(body: &Table) -> String {
    let columns: Vec<String> = body.columns.iter().map(|name| line(name)).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut rows = table(&columns);
    for row in &body.rows {
        rows.add_row(row.cells.iter().map(|cell| line(cell)));
    }
    format!("{rows}\n")
}

/// Text that must stay in one line.
fn line(text: &str) -> String {
    harmless(text, |_| false)
}

/// Text in many lines.
fn block(text: &str) -> String {
    harmless(text, |c| matches!(c, '\n' | '\t'))
}

fn harmless(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() || is_unseen(c)) && !keep(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Characters that turn the direction of text, break lines, or have no width (Unicode's Bidi_Control, Zl, Zp, and those of Cf
/// that join or separate).
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use slipway_proto::{
        approval::v1::{Decision, Diff, Scope, approval::Status, table::Row},
        common::v1::{Actor, Link, Reason, WaitingOn, actor},
    };

    use super::*;

    fn person(names: &[&str]) -> Option<Actor> {
        let link = |name: &&str| actor::Link {
            principal: format!("token/{name}"),
            ..actor::Link::default()
        };
        Some(Actor {
            links: names.iter().map(link).collect(),
        })
    }

    fn subject(sections: Vec<Section>) -> Subject {
        Subject {
            kind: Kind::Release.into(),
            scope: Some(Scope {
                service: "shop".to_owned(),
                environment: "prod".to_owned(),
                target: "main/shop/Deployment/web".to_owned(),
            }),
            images: vec![Image {
                name: "web".to_owned(),
                repository: "registry.example/shop/web".to_owned(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                tags: vec!["1a2b3c4".to_owned(), "1.2".to_owned()],
            }],
            commits: Some(CommitRange {
                repository_url: "https://git.example/shop.git".to_owned(),
                branch: "main".to_owned(),
                base: "0".repeat(40),
                head: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
            }),
            plan_hash: "sha256:1234".to_owned(),
            summary: "shop 1a2b3c4 to prod".to_owned(),
            sections,
        }
    }

    fn pending(sections: Vec<Section>) -> Approval {
        Approval {
            id: "apr-1".to_owned(),
            status: Status::Pending.into(),
            subject: Some(subject(sections)),
            binding: "4d23".to_owned(),
            policy: Some(Policy {
                name: "two".to_owned(),
                required: 2,
                approvers: vec!["token/bob".to_owned(), "token/carol".to_owned()],
                ..Policy::default()
            }),
            requested_by: person(&["deploy-svc", "alice"]),
            decisions: vec![Decision {
                verdict: Verdict::Approve.into(),
                by: person(&["bob"]),
                comment: "looks good".to_owned(),
                time: None,
            }],
            waiting_on: Some(WaitingOn {
                message: "1 of 2 approvals; 1 more by carol".to_owned(),
                ..WaitingOn::default()
            }),
            ..Approval::default()
        }
    }

    fn section(title: &str, body: Option<Body>) -> Section {
        Section {
            title: title.to_owned(),
            source: "deploy-svc".to_owned(),
            sha256: "cd".repeat(32),
            size: 5000,
            body,
        }
    }

    fn rows(columns: &[&str], rows: &[&[&str]]) -> Option<Body> {
        let row = |cells: &&[&str]| Row {
            cells: cells.iter().map(|&cell| cell.to_owned()).collect(),
        };
        Some(Body::Table(Table {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: rows.iter().map(row).collect(),
        }))
    }

    /// Compares with `tests/golden/approval/<name>.txt`; `SLIPWAY_BLESS=1` writes missing files.
    fn golden(name: &str, text: &str) {
        let path = format!("{}/tests/golden/approval/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if !std::path::Path::new(&path).exists() && std::env::var_os("SLIPWAY_BLESS").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let pinned = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}\n{text}"));
        assert_eq!(text, pinned, "{path}");
    }

    #[test]
    fn each_form_of_a_body_has_its_picture() {
        let diff = "--- a/deployment.yaml\n+++ b/deployment.yaml\n@@ -1,2 +1,2 @@\n spec:\n-  replicas: 1\n+  replicas: 2\n";
        let text = "The first line.\n\n\tcode\nThe last, without an end.";
        for (name, title, body) in [
            (
                "table",
                "What changes",
                rows(
                    &["environment", "image"],
                    &[&["prod", "registry.example/shop/web"], &["staging", ""]],
                ),
            ),
            (
                "diff",
                "Rendered",
                Some(Body::Diff(Diff {
                    text: diff.to_owned(),
                })),
            ),
            ("text", "Notes", Some(Body::Text(text.to_owned()))),
            (
                "link",
                "Build",
                Some(Body::Link(Link {
                    rel: "log".to_owned(),
                    href: "https://ci.example/builds/1".to_owned(),
                })),
            ),
            ("left_out", "Rendered", None),
        ] {
            golden(name, &super::section(&section(title, body)));
        }
    }

    #[test]
    fn an_approval_is_shown_whole() {
        let sections = vec![
            section(
                "What changes",
                rows(&["environment", "image"], &[&["prod", "web"]]),
            ),
            section("Notes", Some(Body::Text("as it is\n".to_owned()))),
        ];
        golden("pending", &whole(&pending(sections), 0));
        let mut ended = pending(Vec::new());
        ended.set_status(Status::Rejected);
        ended.waiting_on = None;
        ended.decisions.push(Decision {
            verdict: Verdict::Reject.into(),
            by: person(&["bot", "carol"]),
            ..Decision::default()
        });
        ended.reason = Some(Reason {
            code: "REJECTED".to_owned(),
            message: "rejected by token/carol (through token/bot)".to_owned(),
        });
        // How approvals from before there were kinds and names are shown.
        let subject = ended.subject.as_mut().unwrap();
        subject.images[0].repository.clear();
        subject.images[0].tags.clear();
        let head = std::mem::take(&mut subject.commits.as_mut().unwrap().head);
        subject.commits = Some(CommitRange {
            head,
            ..CommitRange::default()
        });
        golden("rejected", &whole(&ended, 0));
        golden("nothing", &whole(&Approval::default(), 0));
    }

    #[test]
    fn lists_have_a_line_each() {
        let mut old = pending(Vec::new());
        old.create_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let table = table_of(&[old, Approval::default()], 91_000_000);
        golden("list", &format!("{table}\n"));
    }

    /// The requester cannot move the cursor, colour a line, reverse text, or begin a line of its own.
    #[test]
    fn text_from_outside_is_harmless() {
        let evil = "a\u{1b}[2J\u{9b}1mb\rc\u{202e}d\u{200b}e\u{2028}f\u{7f}\u{e0041}";
        let shown = r"a\u{1b}[2J\u{9b}1mb\u{d}c\u{202e}d\u{200b}e\u{2028}f\u{7f}\u{e0041}";
        assert_eq!(line(evil), shown);
        assert_eq!(block(&format!("{evil}\n\t{evil}")), format!("{shown}\n\t{shown}"));
        assert_eq!(line("a\nyes  token/bob\t"), r"a\u{a}yes  token/bob\u{9}");
        assert_eq!(line("ünï 日本 🚢"), "ünï 日本 🚢");

        // Wherever it stands.
        let mut approval = pending(vec![
            section(evil, Some(Body::Text(evil.to_owned()))),
            section(
                evil,
                Some(Body::Diff(Diff {
                    text: evil.to_owned(),
                })),
            ),
            section(evil, rows(&[evil], &[&[evil]])),
            section(
                evil,
                Some(Body::Link(Link {
                    rel: evil.to_owned(),
                    href: evil.to_owned(),
                })),
            ),
        ]);
        let subject = approval.subject.as_mut().unwrap();
        subject.summary = evil.to_owned();
        subject.plan_hash = evil.to_owned();
        subject.scope.as_mut().unwrap().target = evil.to_owned();
        subject.images[0].tags = vec![evil.to_owned()];
        subject.commits.as_mut().unwrap().repository_url = evil.to_owned();
        approval.decisions[0].comment = evil.to_owned();
        approval.waiting_on.as_mut().unwrap().message = evil.to_owned();
        approval.requested_by = person(&[evil]);
        let list = table_of(std::slice::from_ref(&approval), 0).to_string();
        for text in [whole(&approval, 0), list] {
            let bad: Vec<char> = text
                .chars()
                .filter(|&c| c != '\n' && (c.is_control() || is_unseen(c)))
                .collect();
            assert!(bad.is_empty(), "{bad:?}: {text}");
        }
    }
}
