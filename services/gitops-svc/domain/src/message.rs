//! The commit message of a change, and the trailers by which it is found again. Pure.

use std::fmt::Write as _;

use gix_object::commit::MessageRef;
use slipway_edit::{Edit, Folder, Reference};
use slipway_model::{CommitSha, Id, ImageRef, Images, Name, Principal};

use crate::change::Request;

/// The trailer that names our change; searched for after every fetch.
pub const CHANGE_TRAILER: &str = "Slipway-Change";
/// A subject longer than this is refused.
pub const MAX_SUBJECT: usize = 200;

/// The whole message, identical each time it is made for the same change.
pub fn compose(id: &Id, request: &Request) -> String {
    let mut text = format!("{}\n\n", subject(request));
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
    if let Some(image) = request.images.as_ref().map(Images::only) {
        match &image.digest {
            Some(digest) => trailer("Image", &image.repository.at(digest).to_string()),
            None => trailer("Image", image.repository.as_str()),
        }
        if let Some(tag) = image.tags.first() {
            trailer("Image-Tag", tag.as_str());
        }
    }
    if let Some(commit) = &request.source_commit {
        trailer("Commit", commit.as_str());
    }
    trailer("Triggered-by", &request.requested_by.to_string());
    if let Some(from) = &request.promoted_from {
        trailer("Promoted-from", &format!("{}@{}", from.environment, from.commit));
    }
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

/// The first line of the message.
pub fn subject(request: &Request) -> String {
    if !request.subject.is_empty() {
        return line(&request.subject);
    }
    let (service, environment) = (&request.service, &request.environment);
    if request.reverts.is_some() {
        return format!("revert({service}): put {environment} back");
    }
    let what = match (&request.source_commit, request.images.as_ref().map(Images::only)) {
        (Some(commit), _) => commit.short().to_owned(),
        (None, Some(image)) => match (image.tags.first(), &image.digest) {
            (Some(tag), _) => tag.to_string(),
            (None, Some(digest)) => digest.short().to_owned(),
            (None, None) => image.repository.to_string(),
        },
        (None, None) if request.edits.first() == Some(&Edit::Marker) => {
            return format!("chore({service}): mark {environment}");
        }
        (None, None) => written(&request.edits).unwrap_or_else(|| "images".to_owned()),
    };
    format!("chore({service}): deploy {what} to {environment}")
}

/// The first line of the marker that takes back the marker of this request.
pub fn not_deployed(marker: &Request) -> String {
    let (service, environment) = (&marker.service, &marker.environment);
    let what = match &marker.source_commit {
        Some(commit) => commit.short(),
        None => "what was marked",
    };
    format!("revert({service}): {what} is not deployed to {environment}")
}

/// The first line of a revert of a part of this request.
pub fn put_back(original: &Request, places: &[Folder]) -> String {
    let places: Vec<&str> = places.iter().map(Folder::as_str).collect();
    let text = format!("revert({}): put {} back", original.service, places.join(", "));
    text.chars().take(MAX_SUBJECT).collect()
}

/// What the edits write, when it is the same in all of them: the tag, else the digest.
fn written(edits: &[Edit]) -> Option<String> {
    let mut said = edits.iter().filter_map(|edit| match edit {
        Edit::KustomizeImage(edit) => Some(&edit.to),
        Edit::HelmImage(edit) => Some(&edit.to),
        Edit::ManifestImage(edit) => Some(&edit.to),
        Edit::RestoreImage(_) | Edit::RestoreValues(_) | Edit::Marker => None,
    });
    let first = said.next()?;
    if said.any(|to| (&to.new_tag, &to.digest) != (&first.new_tag, &first.digest)) {
        return None;
    }
    match (&first.new_tag, &first.digest) {
        (Some(tag), _) => Some(tag.to_string()),
        (None, Some(digest)) => Some(digest.short().to_owned()),
        (None, None) => None,
    }
}

/// One line, whatever was given: a line break in a value would create an additional trailer.
fn line(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1000)
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The change that a commit message names in its trailers.
pub fn change_of(message: &str) -> Option<String> {
    // On a branch that others write to as well, most commits do not name one.
    if !message.contains(CHANGE_TRAILER) {
        return None;
    }
    Trailers::read(message).change.map(String::from)
}

/// What the trailers of a commit say, ours or those of a tool that writes the same ones. They may claim anything;
/// malformed ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailers {
    pub service: Option<Name>,
    pub environment: Option<Name>,
    /// `Image` and `Image-Tag`.
    pub image: Option<ImageRef>,
    pub source_commit: Option<CommitSha>,
    /// On whose behalf it was written.
    pub triggered_by: Option<Principal>,
    pub change: Option<Id>,
    pub reverts: Option<Id>,
    /// `Slipway-Release`.
    pub release: Option<String>,
    pub promoted_from: Option<(Name, Option<CommitSha>)>,
}

impl Trailers {
    /// By git's own rules: the last paragraph, unless that is the subject; lines that begin with a space continue the
    /// previous one. It may be followed by a paragraph that only says who took part in the commit, as some hosts add
    /// one when they squash.
    pub fn read(message: &str) -> Self {
        let mut text = message.trim_end();
        loop {
            let message = MessageRef::from_bytes(text.as_bytes());
            let Some(body) = message.body() else {
                return Self::default();
            };
            let trailers: Vec<(String, String)> = body
                .trailers()
                .map(|trailer| (trailer.token.to_string(), trailer.value.to_string()))
                .collect();
            let parts = !trailers.is_empty() && body.trailers().all(|trailer| trailer.is_attribution());
            match text.rfind("\n\n") {
                Some(end) if parts => text = text[..end].trim_end(),
                _ => return Self::from(trailers),
            }
        }
    }

    fn from(trailers: Vec<(String, String)>) -> Self {
        let mut read = Self::default();
        let (mut image, mut tag) = (None, None);
        for (key, value) in trailers {
            match key.to_ascii_lowercase().as_str() {
                "service" => read.service = read.service.or(value.parse().ok()),
                "environment" => read.environment = read.environment.or(value.parse().ok()),
                "image" => image = image.or(Some(value)),
                "image-tag" => tag = tag.or(value.parse().ok()),
                "commit" => read.source_commit = read.source_commit.or(value.parse().ok()),
                "triggered-by" => {
                    let person = value.split(" (through ").next().unwrap_or_default();
                    read.triggered_by = read.triggered_by.or(person.parse().ok());
                }
                "slipway-change" => read.change = read.change.or(value.parse().ok()),
                "slipway-reverts" => read.reverts = read.reverts.or(value.parse().ok()),
                "slipway-release" => read.release = read.release.or(Some(line(&value))),
                "promoted-from" => {
                    let (environment, commit) = value.split_once('@').unwrap_or((&value, ""));
                    let from = environment.parse().ok().map(|name| (name, commit.parse().ok()));
                    read.promoted_from = read.promoted_from.or(from);
                }
                _ => {}
            }
        }
        read.image = image.and_then(|image| {
            let said = Reference::split(&image);
            Some(ImageRef {
                name: said.name.parse().ok()?,
                tag: tag.or(said.tag.parse().ok()),
                digest: said.digest.parse().ok(),
            })
        });
        read
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::{Actor, Authentication, Images, Principal};

    use super::{Trailers, change_of, compose};
    use crate::change::{Image, Promotion, Request};

    fn request() -> Request {
        Request {
            repository: "shop".to_owned(),
            branch: "main".parse().unwrap(),
            service: "ms-identity".parse().unwrap(),
            environment: "staging".parse().unwrap(),
            edits: Vec::new(),
            source_commit: Some("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap()),
            images: Some(Images::one(Image {
                name: "ms-identity".parse().unwrap(),
                repository: "r.example/ms-identity".parse().unwrap(),
                digest: Some(format!("sha256:{}", "ab".repeat(32)).parse().unwrap()),
                tags: vec!["1a2b3c4".parse().unwrap(), "latest".parse().unwrap()],
            })),
            subject: String::new(),
            reverts: None,
            promoted_from: None,
            mode: crate::pull_request::Mode::Push,
            why: String::new(),
            correlation_id: "rel-1".to_owned(),
            labels: Default::default(),
            requested_by: Actor::direct(Principal::new("token", "bot"), Authentication::StaticToken)
                .on_behalf_of(Principal::new("github", "alice")),
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
        assert_eq!(change_of(&message).as_deref(), Some("chg-1"));
    }

    #[test]
    fn no_value_makes_a_trailer_of_its_own() {
        let mut request = request();
        request.subject = "done\n\nSlipway-Change: chg-2".to_owned();
        request.correlation_id = "rel-1\nSlipway-Change: chg-3".to_owned();
        request.why = "Slipway-Change: chg-4\r\n\r\nx".to_owned();
        let message = compose(&"chg-1".parse().unwrap(), &request);
        assert_eq!(change_of(&message).as_deref(), Some("chg-1"));
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
            "a subject is not a trailer"
        );
    }

    #[test]
    fn a_promotion_says_where_from() {
        let mut request = request();
        request.promoted_from = Some(Promotion {
            environment: "dev".parse().unwrap(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        });
        let message = compose(&"chg-1".parse().unwrap(), &request);
        assert!(
            message.contains("\nPromoted-from: dev@1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d\n"),
            "{message}"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let request = request();
        let message = compose(&"chg-1".parse().unwrap(), &request);
        let read = Trailers::read(&message);
        assert_eq!(read.service, Some(request.service));
        assert_eq!(read.environment, Some(request.environment));
        let image = format!("r.example/ms-identity:1a2b3c4@sha256:{}", "ab".repeat(32));
        assert_eq!(read.image.map(|image| image.to_string()), Some(image));
        assert_eq!(read.source_commit, request.source_commit);
        assert_eq!(read.triggered_by.as_ref(), Some(request.requested_by.effective()));
        assert_eq!(read.change, "chg-1".parse().ok());
        assert_eq!(read.release.as_deref(), Some("rel-1"));
    }

    #[test]
    fn trailers_are_the_last_paragraph() {
        let service = |message: &str| Trailers::read(message).service.map(String::from);
        for (message, wanted) in [
            ("x\n\nService: shop\n", Some("shop")),
            ("x\n\nwords\n\nservice: shop\nEnvironment: dev", Some("shop")),
            ("x\r\n\r\nService: shop\r\n", Some("shop")),
            // A line that begins with a space continues the previous one.
            ("x\n\nImage: r.example/a\n :1\nService: shop\n", Some("shop")),
            ("x\n\nService: shop\n\nwords\n", None),
            ("x\n\nthe Service: shop\n", None),
            ("Service: shop", None),
            ("x\n\nService: Not A Name\n", None),
            // As GitHub squashes.
            (
                "x\n\nService: shop\n\nCo-authored-by: A <a@example.com>\n",
                Some("shop"),
            ),
            ("x\n\nCo-authored-by: A <a@example.com>\n", None),
            ("", None),
        ] {
            assert_eq!(service(message).as_deref(), wanted, "{message:?}");
        }
        let image = Trailers::read("x\n\nImage: r.example:5000/a:2\n").image.unwrap();
        assert_eq!(image.to_string(), "r.example:5000/a:2");
    }
}
