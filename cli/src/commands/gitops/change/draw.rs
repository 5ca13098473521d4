//! Changes as people read them. Pure: returns text.

use std::fmt::Write;

use slipway_edit::Reference;
use slipway_proto::gitops::v1::{
    Change, Edit,
    change::{Source, Status},
    edit,
};
use slipway_server::convert;

use super::super::{super::table, environments::short_digest};
use crate::{readable, retry};

/// A status as people read it: `PUSHED`.
pub(super) fn status(status: Status) -> &'static str {
    status.as_str_name().trim_start_matches("STATUS_")
}

/// One change in full.
pub(super) fn change(change: &Change, now: i64) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}  {} → {}  {}{}",
        change.id,
        change.service,
        change.environment,
        status(change.status()),
        if change.no_op { ", no change" } else { "" }
    );
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:11} {value}");
        }
    };
    line(
        "repository",
        &format!("{} ({})", change.repository, change.branch),
    );
    line("commit", &change.commit);
    line("subject", &change.subject);
    for (at, edit) in change.edits.iter().enumerate() {
        let (place, wanted) = said(edit);
        let before = change.previous.get(at).map(|edit| said(edit).1);
        let before = before.filter(|before| !before.is_empty() && *before != wanted);
        let before = before
            .map(|before| format!(" (was {before})"))
            .unwrap_or_default();
        line("edit", &format!("{place}: {wanted}{before}"));
    }
    line("promoted", &change.promoted_from);
    line("reverts", &change.reverts);
    if let Some(request) = &change.pull_request {
        let state = request.state().as_str_name().trim_start_matches("STATE_");
        line("request", &format!("{} {state} {}", request.url, request.message));
    }
    line("by", &convert::chain(change.requested_by.as_ref()));
    if let Some(reason) = &change.reason {
        line("reason", &format!("{} [{}]", reason.message, reason.code));
    }
    if !change.not_rendered.is_empty() {
        line("rendered", &format!("no: {}", change.not_rendered));
    }
    if let Some(waiting) = &change.waiting_on {
        line("waits for", &waiting.message);
    }
    if let Some(retry) = &change.retry {
        line("", &retry::line(retry, now));
    }
    text
}

/// Changes, one per row.
pub(super) fn table_of(changes: &[Change], now: i64) -> comfy_table::Table {
    let mut rows = table(&[
        "CHANGE",
        "SERVICE",
        "ENVIRONMENT",
        "IMAGE",
        "STATUS",
        "COMMIT",
        "AGE",
        "BY",
    ]);
    for change in changes {
        let begun = change.create_time.as_ref().or(change.end_time.as_ref());
        let age = now - readable::micros(begun).unwrap_or(now);
        let by = match change.source() {
            Source::Commit => "a commit".to_owned(),
            _ => convert::effective(change.requested_by.as_ref()).to_owned(),
        };
        rows.add_row([
            change.id.clone(),
            change.service.clone(),
            change.environment.clone(),
            image(change),
            retry::status(status(change.status()), change.retry.as_ref(), now),
            readable::short(&change.commit).to_owned(),
            readable::seconds(age),
            by,
        ]);
    }
    rows
}

/// The image of a change; if it has none, what its first edit writes.
fn image(change: &Change) -> String {
    if let Some(image) = change.images.first() {
        let tag = image.tags.first().cloned().unwrap_or_default();
        return short(&image.repository, &tag, &image.digest);
    }
    match change.edits.as_slice() {
        [] => change.subject.clone(),
        [edit] => said(edit).1,
        [edit, more @ ..] => format!("{} and {} more", said(edit).1, more.len()),
    }
}

/// Where an edit writes, and what.
fn said(edit: &Edit) -> (String, String) {
    match &edit.edit {
        Some(edit::Edit::KustomizeImage(edit)) => (
            format!("{} {}", edit.path, edit.name),
            short(&edit.new_name, &edit.new_tag, &edit.digest),
        ),
        Some(edit::Edit::HelmImage(edit)) => (
            format!("{} {}", edit.file, edit.path),
            short(&edit.new_name, &edit.new_tag, &edit.digest),
        ),
        Some(edit::Edit::ManifestImage(edit)) => {
            let selectors = [&edit.object, &edit.container, &edit.image, &edit.field];
            let selectors: Vec<&str> = selectors
                .into_iter()
                .map(String::as_str)
                .filter(|selector| !selector.is_empty())
                .collect();
            (
                format!("{} {}", edit.file, selectors.join(" ")),
                short(&edit.new_name, &edit.new_tag, &edit.digest),
            )
        }
        Some(edit::Edit::Marker(_)) => ("marker".to_owned(), "an empty commit".to_owned()),
        None => ("unknown edit".to_owned(), String::new()),
    }
}

fn short(name: &str, tag: &str, digest: &str) -> String {
    let reference = Reference {
        name: name.to_owned(),
        tag: tag.to_owned(),
        digest: short_digest(digest),
    };
    reference.to_string()
}

#[cfg(test)]
mod tests {
    use slipway_proto::{
        common::v1::Reason,
        gitops::v1::{KustomizeImage, Marker},
    };

    use super::*;

    fn tagged(tag: &str) -> Edit {
        Edit {
            edit: Some(edit::Edit::KustomizeImage(KustomizeImage {
                path: "apps/web/dev".to_owned(),
                name: "web".to_owned(),
                new_tag: tag.to_owned(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                ..KustomizeImage::default()
            })),
        }
    }

    #[test]
    fn a_change_says_what_was_and_what_is() {
        let mut whole = Change {
            id: "chg-1".to_owned(),
            service: "web".to_owned(),
            environment: "dev".to_owned(),
            repository: "shop".to_owned(),
            branch: "main".to_owned(),
            status: Status::Failed.into(),
            edits: vec![tagged("2")],
            previous: vec![tagged("1")],
            reason: Some(Reason {
                code: "BRANCH_PROTECTED".to_owned(),
                message: "the branch is protected".to_owned(),
            }),
            ..Change::default()
        };
        let text = change(&whole, 0);
        for part in [
            "chg-1  web → dev  FAILED\n",
            "apps/web/dev web: :2@sha256:abababababab (was :1@sha256:abababababab)",
            "[BRANCH_PROTECTED]",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(image(&whole), ":2@sha256:abababababab");
        whole.edits = vec![Edit {
            edit: Some(edit::Edit::Marker(Marker {})),
        }];
        assert_eq!(image(&whole), "an empty commit");
        let rows = table_of(&[whole], 0).to_string();
        assert!(rows.contains("chg-1") && rows.contains("FAILED"), "{rows}");
    }
}
