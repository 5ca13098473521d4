//! `slipway gitops diff`: environments side by side.

use slipway_proto::gitops::v1::{
    DiffEnvironmentsRequest, DiffEnvironmentsResponse, EnvironmentDifference, environment_difference::Side,
};

use super::super::table;
use crate::{
    Outcome,
    args::{DiffArgs, Output},
    context::Context,
    failure::Failure,
    out, readable,
};

pub(crate) async fn run(context: &Context, output: Output, args: DiffArgs) -> Result<Outcome, Failure> {
    if args.environments.len() == 1 {
        return Err(Failure::new("one environment cannot be compared")
            .next("give two or more, such as --environments staging,production, or none for all"));
    }
    let request = DiffEnvironmentsRequest {
        repository: args.repository.repository,
        branch: args.repository.branch,
        service: args.service,
        environments: args.environments,
        only_different: args.only_different,
    };
    let answer = context.gitops()?.diff_environments(request).await?.into_inner();
    match output.format() {
        Some(format) => out::line(format.render("slipway.gitops.v1.DiffEnvironmentsResponse", &answer)?),
        None => out::print(drawn(&answer)),
    }
    Ok(Outcome::Happened)
}

/// A row for each image, a column for each environment; rows that differ are marked.
fn drawn(answer: &DiffEnvironmentsResponse) -> String {
    let Some(first) = answer.differences.first() else {
        return format!("no difference at {}\n", readable::short(&answer.commit));
    };
    let mut header = vec![String::new(), "SERVICE".to_owned(), "IMAGE".to_owned()];
    header.extend(first.sides.iter().map(|side| side.environment.to_uppercase()));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut rows = table(&header);
    let mut reasons = String::new();
    for difference in &answer.differences {
        let mark = if difference.same { " " } else { "≠" };
        let mut row = vec![
            mark.to_owned(),
            difference.service.clone(),
            difference.name.clone(),
        ];
        row.extend(difference.sides.iter().map(|side| cell(difference, side)));
        rows.add_row(row);
        for side in &difference.sides {
            if let Some(reason) = &side.reason {
                reasons += &format!(
                    "{} in {}: {} [{}]\n",
                    difference.service, side.environment, reason.message, reason.code
                );
            }
        }
    }
    let differing = answer.differences.iter().filter(|row| !row.same).count();
    format!(
        "{rows}\n{reasons}{differing} of {} differ at {}\n",
        answer.differences.len(),
        readable::short(&answer.commit)
    )
}

/// An image as short as possible: with its name only if environments disagree on it.
fn cell(difference: &EnvironmentDifference, side: &Side) -> String {
    let Some(image) = &side.image else {
        return if side.reason.is_some() { "?" } else { "-" }.to_owned();
    };
    let mut names = difference
        .sides
        .iter()
        .filter_map(|side| side.image.as_ref())
        .map(|image| &image.image);
    let first = names.next();
    let mut text = String::new();
    if names.any(|name| Some(name) != first) {
        text += if image.image.is_empty() {
            &image.name
        } else {
            &image.image
        };
    }
    if !image.tag.is_empty() {
        if !text.is_empty() {
            text += ":";
        }
        text += &image.tag;
    }
    if !image.digest.is_empty() {
        text += "@";
        text += &short_digest(&image.digest);
    }
    if text.is_empty() {
        "(as the base has it)".to_owned()
    } else {
        text
    }
}

/// `sha256:` and twelve digits, as container tools show them.
pub(super) fn short_digest(digest: &str) -> String {
    let end = digest.find(':').map_or(0, |colon| colon + 1) + 12;
    digest.get(..end).unwrap_or(digest).to_owned()
}

#[cfg(test)]
mod tests {
    use slipway_proto::{common::v1::Reason, gitops::v1::DesiredImage};

    use super::*;

    fn side(environment: &str, tag: &str) -> Side {
        let image = (!tag.is_empty()).then(|| DesiredImage {
            name: "web".to_owned(),
            tag: tag.to_owned(),
            ..DesiredImage::default()
        });
        Side {
            environment: environment.to_owned(),
            image,
            ..Side::default()
        }
    }

    #[test]
    fn what_differs_is_marked() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let mut digested = side("prod", "1.4.0");
        if let Some(image) = &mut digested.image {
            image.digest = digest;
        }
        let mut unread = side("prod", "");
        unread.reason = Some(Reason {
            code: "FILE_NOT_FOUND".to_owned(),
            message: "apps/mail/prod: there is no such folder".to_owned(),
        });
        let answer = DiffEnvironmentsResponse {
            commit: "1a2b3c4d5e6f".to_owned(),
            differences: vec![
                EnvironmentDifference {
                    service: "shop".to_owned(),
                    name: "web".to_owned(),
                    sides: vec![side("staging", "1.4.1"), digested],
                    same: false,
                },
                EnvironmentDifference {
                    service: "mail".to_owned(),
                    name: "web".to_owned(),
                    sides: vec![side("staging", "2"), unread],
                    same: true,
                },
            ],
        };
        let text = drawn(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("STAGING") && lines[0].contains("PROD"),
            "{text}"
        );
        assert!(
            lines[1].contains('≠') && lines[1].contains("1.4.0@sha256:abababababab "),
            "{text}"
        );
        assert!(!lines[2].contains('≠') && lines[2].contains('?'), "{text}");
        assert!(text.contains("[FILE_NOT_FOUND]"), "{text}");
        assert!(text.ends_with("1 of 2 differ at 1a2b3c4\n"), "{text}");
        assert_eq!(drawn(&DiffEnvironmentsResponse::default()), "no difference at \n");
    }
}
