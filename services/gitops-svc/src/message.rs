//! The commit message of a change, and the trailers by which it is found again.

use std::fmt::Write as _;

use slipway_model::Id;

use crate::change::Request;

/// The trailer that names our change; looked for after every fetch.
pub(crate) const CHANGE_TRAILER: &str = "Slipway-Change";
/// A subject longer than this is refused.
pub(crate) const MAX_SUBJECT: usize = 200;

/// The whole message, the same each time it is made for the same change.
pub(crate) fn compose(id: &Id, request: &Request) -> String {
    let subject = if request.subject.is_empty() {
        subject(request)
    } else {
        line(&request.subject)
    };
    let mut text = format!("{subject}\n\n");
    let why = line(&request.why);
    if !why.is_empty() {
        let _ = write!(text, "{why}\n\n");
    }
    let mut trailer = |key: &str, value: &str| {
        let value = line(value);
        if !value.is_empty() {
            let _ = writeln!(text, "{key}: {value}");
        }
    };
    trailer("Service", request.service.as_str());
    trailer("Environment", request.environment.as_str());
    if let Some(image) = &request.image {
        match &image.digest {
            Some(digest) => trailer("Image", &image.name.at(digest).to_string()),
            None => trailer("Image", image.name.as_str()),
        }
        if let Some(tag) = image.tags.first() {
            trailer("Image-Tag", tag.as_str());
        }
    }
    if let Some(commit) = &request.source_commit {
        trailer("Commit", commit.as_str());
    }
    trailer("Triggered-by", &request.requested_by.to_string());
    if let Some(reverts) = &request.reverts {
        trailer("Slipway-Reverts", reverts.as_str());
    }
    trailer(CHANGE_TRAILER, id.as_str());
    trailer("Slipway-Release", &request.correlation_id);
    if let Some(traceparent) = &request.traceparent {
        trailer("Traceparent", &traceparent.to_string());
    }
    text
}

fn subject(request: &Request) -> String {
    let (service, environment) = (&request.service, &request.environment);
    if request.reverts.is_some() {
        return format!("revert({service}): put {environment} back");
    }
    let what = match (&request.source_commit, &request.image) {
        (Some(commit), _) => commit.short().to_owned(),
        (None, Some(image)) => match (image.tags.first(), &image.digest) {
            (Some(tag), _) => tag.to_string(),
            (None, Some(digest)) => digest.short().to_owned(),
            (None, None) => image.name.to_string(),
        },
        (None, None) => "images".to_owned(),
    };
    format!("chore({service}): deploy {what} to {environment}")
}

/// One line, whatever was given: a line break in a value would make a trailer of its own.
fn line(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1000)
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The change that a commit message names in its last paragraph.
pub(crate) fn change_of(message: &str) -> Option<&str> {
    let (_, last) = message.trim_end().rsplit_once("\n\n")?;
    last.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == CHANGE_TRAILER)
        .map(|(_, id)| id.trim())
}

#[cfg(test)]
mod tests {
    use slipway_model::{Actor, Principal};

    use super::{change_of, compose};
    use crate::change::{Image, Request};

    fn request() -> Request {
        Request {
            repository: "shop".to_owned(),
            branch: "main".parse().unwrap(),
            service: "ms-identity".parse().unwrap(),
            environment: "staging".parse().unwrap(),
            edits: Vec::new(),
            source_commit: Some("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap()),
            image: Some(Image {
                name: "r.example/ms-identity".parse().unwrap(),
                digest: Some(format!("sha256:{}", "ab".repeat(32)).parse().unwrap()),
                tags: vec!["1a2b3c4".parse().unwrap(), "latest".parse().unwrap()],
            }),
            subject: String::new(),
            reverts: None,
            promoted_from: None,
            mode: crate::change::Mode::Push,
            why: String::new(),
            correlation_id: "rel-1".to_owned(),
            labels: Default::default(),
            requested_by: Actor {
                principal: Principal::new("token", "bot"),
                on_behalf_of: Some(Principal::new("github", "alice")),
            },
            traceparent: Some(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                    .parse()
                    .unwrap(),
            ),
        }
    }

    #[test]
    fn a_message_says_who_deployed_what_where() {
        let message = compose(&"chg-1".parse().unwrap(), &request());
        assert_eq!(
            message,
            format!(
                "chore(ms-identity): deploy 1a2b3c4 to staging\n\n\
                 Service: ms-identity\n\
                 Environment: staging\n\
                 Image: r.example/ms-identity@sha256:{}\n\
                 Image-Tag: 1a2b3c4\n\
                 Commit: 1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d\n\
                 Triggered-by: github/alice (through token/bot)\n\
                 Slipway-Change: chg-1\n\
                 Slipway-Release: rel-1\n\
                 Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
                "ab".repeat(32)
            )
        );
        assert_eq!(change_of(&message), Some("chg-1"));
    }

    #[test]
    fn no_value_makes_a_trailer_of_its_own() {
        let mut request = request();
        request.subject = "done\n\nSlipway-Change: chg-2".to_owned();
        request.correlation_id = "rel-1\nSlipway-Change: chg-3".to_owned();
        request.why = "Slipway-Change: chg-4\r\n\r\nx".to_owned();
        let message = compose(&"chg-1".parse().unwrap(), &request);
        assert_eq!(change_of(&message), Some("chg-1"));
        assert_eq!(
            message
                .lines()
                .filter(|line| line.starts_with("Slipway-Change: "))
                .count(),
            2,
            "{message}"
        );
        assert_eq!(
            change_of("Slipway-Change: chg-5"),
            None,
            "a subject is no trailer"
        );
    }
}
