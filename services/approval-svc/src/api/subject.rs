//! Subjects from messages, checked and bounded, and back. The limits are the ones that the proto file states.

use approval_domain::subject::{Body, CommitRange, Image, Kind, Link, Scope, Section, Subject, Table};
use slipway_ledger::Ledger;
use slipway_model::{ContentHash, Name};
use slipway_proto::{approval::v1 as proto, common::v1 as common};
use slipway_server::{ApiError, convert as wire};

const MAX_SECTIONS: usize = 16;
/// Of a title, a source and the name of a column.
const MAX_LABEL: usize = 200;
const MAX_COLUMNS: usize = 16;
const MAX_ROWS: usize = 1000;
const MAX_CELL: usize = 4096;
const MAX_URL: usize = 2048;
/// Bytes of one body, as they are hashed.
const MAX_BODY: usize = 256 * 1024;
/// Bytes of all bodies together.
const MAX_BODIES: usize = 1024 * 1024;

/// The subject of a request, and the bodies that are kept as contents beside the event.
pub(super) fn read(subject: &proto::Subject) -> Result<(Subject, Vec<String>), ApiError> {
    let kind = match subject.kind() {
        proto::subject::Kind::Release => Kind::Release,
        proto::subject::Kind::WorkflowRun => Kind::WorkflowRun,
        proto::subject::Kind::Canary => Kind::Canary,
        proto::subject::Kind::Infrastructure => Kind::Infrastructure,
        proto::subject::Kind::Unspecified => {
            return Err(ApiError::invalid(
                "subject.kind",
                "is required: KIND_RELEASE, KIND_WORKFLOW_RUN, KIND_CANARY or KIND_INFRASTRUCTURE",
            ));
        }
    };
    let scope = scope(kind, wire::message("subject.scope", subject.scope.as_ref())?)?;
    let images = images(kind, &scope.service, &subject.images)?;
    let commits = subject.commits.as_ref().map(commits).transpose()?;
    let (sections, contents) = sections(&subject.sections)?;
    let subject = Subject {
        kind,
        scope,
        images,
        commits,
        plan_hash: wire::key("subject.plan_hash", &subject.plan_hash)?,
        summary: wire::text("subject.summary", &subject.summary)?,
        sections,
    };
    Ok((subject, contents))
}

fn scope(kind: Kind, scope: &proto::Scope) -> Result<Scope, ApiError> {
    let environment = wire::optional("subject.scope.environment", &scope.environment)?;
    if kind == Kind::Release && environment.is_none() {
        return Err(ApiError::invalid(
            "subject.scope.environment",
            "is required for KIND_RELEASE",
        ));
    }
    Ok(Scope {
        service: wire::field("subject.scope.service", &scope.service)?,
        environment,
        target: wire::text("subject.scope.target", &scope.target)?,
    })
}

fn images(kind: Kind, service: &Name, images: &[common::Image]) -> Result<Vec<Image>, ApiError> {
    if images.is_empty() && kind != Kind::Release {
        return Ok(Vec::new());
    }
    let within = |error| match error {
        ApiError::Invalid { field, message } => ApiError::invalid(format!("subject.{field}"), message),
        error => error,
    };
    let images = wire::from_images(service, images, wire::field).map_err(within)?;
    let image = |image: &slipway_model::Image| Image {
        name: image.name.clone(),
        repository: Some(image.repository.clone()),
        digest: image.digest.clone(),
        tags: image.tags.clone(),
    };
    Ok(images.as_slice().iter().map(image).collect())
}

fn commits(commits: &proto::CommitRange) -> Result<CommitRange, ApiError> {
    let url = &commits.repository_url;
    if url.len() > MAX_URL || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ApiError::invalid(
            "subject.commits.repository_url",
            format!("give up to {MAX_URL} bytes without control characters and white space"),
        ));
    }
    Ok(CommitRange {
        repository_url: url.clone(),
        branch: wire::optional("subject.commits.branch", &commits.branch)?,
        base: wire::optional("subject.commits.base", &commits.base)?,
        head: wire::field("subject.commits.head", &commits.head)?,
    })
}

fn sections(sections: &[proto::Section]) -> Result<(Vec<Section>, Vec<String>), ApiError> {
    if sections.len() > MAX_SECTIONS {
        let message = format!("are {}; give at most {MAX_SECTIONS}", sections.len());
        return Err(ApiError::invalid("subject.sections", message));
    }
    let (mut read, mut contents, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (at, section) in sections.iter().enumerate() {
        let mut section = read_section(&format!("subject.sections[{at}]"), section)?;
        bytes += section.body.as_ref().map_or(0, String::len);
        if bytes > MAX_BODIES {
            let message = format!("have bodies of more than {MAX_BODIES} bytes together; leave some out");
            return Err(ApiError::invalid("subject.sections", message));
        }
        contents.extend(section.take_large());
        read.push(section);
    }
    Ok((read, contents))
}

fn read_section(place: &str, section: &proto::Section) -> Result<Section, ApiError> {
    let of = |part: &str| format!("{place}.{part}");
    let title = line(&of("title"), &section.title, MAX_LABEL, Blank::Refused)?;
    let source = line(&of("source"), &section.source, MAX_LABEL, Blank::Refused)?;
    let (form, body) = match &section.body {
        Some(proto::section::Body::Table(sent)) => ("table", Body::Table(table(place, sent)?)),
        Some(proto::section::Body::Diff(diff)) => ("diff", Body::Diff(block(&of("diff.text"), &diff.text)?)),
        Some(proto::section::Body::Text(text)) => ("text", Body::Text(block(&of("text"), text)?)),
        Some(proto::section::Body::Link(sent)) => ("link", Body::Link(link(place, sent)?)),
        None => {
            return Err(ApiError::invalid(
                place,
                "has no body: give one of table, diff, text and link",
            ));
        }
    };
    let read = Section::new(title, source, &body);
    let size = usize::try_from(read.size).unwrap_or(usize::MAX);
    if size > MAX_BODY {
        return Err(too_long(&of(form), size, MAX_BODY));
    }
    let sent: Option<ContentHash> = wire::optional(&of("sha256"), &section.sha256)?;
    if sent.is_some_and(|sent| sent != read.sha256) {
        let message = format!(
            "is not the hash of the body, which is {}; hash the bytes that the proto file names, or leave it out",
            read.sha256
        );
        return Err(ApiError::invalid(of("sha256"), message));
    }
    if section.size != 0 && section.size != read.size {
        let message = format!(
            "is not the size of the body, which is {}; leave it out",
            read.size
        );
        return Err(ApiError::invalid(of("size"), message));
    }
    Ok(read)
}

fn table(place: &str, table: &proto::Table) -> Result<Table, ApiError> {
    let columns = format!("{place}.table.columns");
    if table.columns.is_empty() || table.columns.len() > MAX_COLUMNS {
        return Err(ApiError::invalid(
            columns,
            format!("are {}; give 1 to {MAX_COLUMNS}", table.columns.len()),
        ));
    }
    let names = table.columns.iter().enumerate();
    let names: Vec<String> = names
        .map(|(at, name)| line(&format!("{columns}[{at}]"), name, MAX_LABEL, Blank::Refused))
        .collect::<Result<_, _>>()?;
    let rows = format!("{place}.table.rows");
    if table.rows.len() > MAX_ROWS {
        let message = format!("are {}; give at most {MAX_ROWS}", table.rows.len());
        return Err(ApiError::invalid(rows, message));
    }
    let row = |(at, row): (usize, &proto::table::Row)| {
        let cells = format!("{rows}[{at}].cells");
        if row.cells.len() != names.len() {
            let message = format!("are {} under {} columns", row.cells.len(), names.len());
            return Err(ApiError::invalid(cells, message));
        }
        let row = row.cells.iter().enumerate();
        row.map(|(at, cell)| line(&format!("{cells}[{at}]"), cell, MAX_CELL, Blank::Allowed))
            .collect()
    };
    let rows = table.rows.iter().enumerate().map(row).collect::<Result<_, _>>()?;
    Ok(Table { columns: names, rows })
}

/// A link leads to the web or to another of Slipway's resources, and never runs anything where it is shown.
fn link(place: &str, link: &common::Link) -> Result<Link, ApiError> {
    let rel = line(&format!("{place}.link.rel"), &link.rel, MAX_LABEL, Blank::Refused)?;
    let field = format!("{place}.link.href");
    let href = line(&field, &link.href, MAX_URL, Blank::Refused)?;
    let web = href.starts_with("https://") || href.starts_with("http://");
    if href.contains(char::is_whitespace) || !web && href.contains(':') {
        return Err(ApiError::invalid(
            field,
            "begin it with https:// or http://, or give the id of one of Slipway's resources",
        ));
    }
    Ok(Link { rel, href })
}

#[derive(Clone, Copy, PartialEq)]
enum Blank {
    Allowed,
    Refused,
}

/// Text in one line.
fn line(field: &str, text: &str, limit: usize, blank: Blank) -> Result<String, ApiError> {
    if text.is_empty() && blank == Blank::Refused {
        return Err(ApiError::invalid(field, "is required"));
    }
    if text.len() > limit {
        return Err(too_long(field, text.len(), limit));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            field,
            "contains control characters or line breaks; leave them out",
        ));
    }
    Ok(text.to_owned())
}

/// Text in many lines.
fn block(field: &str, text: &str) -> Result<String, ApiError> {
    if text.len() > MAX_BODY {
        return Err(too_long(field, text.len(), MAX_BODY));
    }
    let fits = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    match text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(ApiError::invalid(
            field,
            "contains control characters other than tab and line break; leave them out",
        )),
    }
}

fn too_long(field: &str, size: usize, limit: usize) -> ApiError {
    ApiError::invalid(
        field,
        format!("is {size} bytes long; at most {limit} are accepted"),
    )
}

/// The subject as lists show it: without bodies.
pub(super) fn message(subject: &Subject) -> proto::Subject {
    let kind = match subject.kind {
        Kind::Release => proto::subject::Kind::Release,
        Kind::WorkflowRun => proto::subject::Kind::WorkflowRun,
        Kind::Canary => proto::subject::Kind::Canary,
        Kind::Infrastructure => proto::subject::Kind::Infrastructure,
    };
    proto::Subject {
        kind: kind.into(),
        scope: Some(proto::Scope {
            service: subject.scope.service.to_string(),
            environment: subject.scope.environment().to_owned(),
            target: subject.scope.target.clone(),
        }),
        images: subject.images.iter().map(image).collect(),
        commits: subject.commits.as_ref().map(|commits| proto::CommitRange {
            repository_url: commits.repository_url.clone(),
            branch: text(commits.branch.as_ref()),
            base: text(commits.base.as_ref()),
            head: commits.head.to_string(),
        }),
        plan_hash: subject.plan_hash.clone(),
        summary: subject.summary.clone(),
        sections: subject.sections.iter().map(section).collect(),
    }
}

/// The subject with the bodies of its sections.
///
/// # Errors
/// When the ledger cannot be read; when a body is missing or does not match its hash.
pub(super) async fn message_with_bodies(
    ledger: &Ledger,
    subject: &Subject,
) -> Result<proto::Subject, ApiError> {
    let mut whole = message(subject);
    for (section, shown) in subject.sections.iter().zip(&mut whole.sections) {
        let content = match section.body {
            Some(_) => None,
            None => ledger.content(&section.sha256).await?,
        };
        let body = section.read(content).map_err(ApiError::internal)?;
        shown.body = Some(self::body(body));
    }
    Ok(whole)
}

fn body(body: Body) -> proto::section::Body {
    match body {
        Body::Table(table) => proto::section::Body::Table(proto::Table {
            columns: table.columns,
            rows: table
                .rows
                .into_iter()
                .map(|cells| proto::table::Row { cells })
                .collect(),
        }),
        Body::Diff(text) => proto::section::Body::Diff(proto::Diff { text }),
        Body::Text(text) => proto::section::Body::Text(text),
        Body::Link(link) => proto::section::Body::Link(wire::link(link.rel, link.href)),
    }
}

fn section(section: &Section) -> proto::Section {
    proto::Section {
        title: section.title.clone(),
        source: section.source.clone(),
        sha256: section.sha256.to_string(),
        size: section.size,
        body: None,
    }
}

fn image(image: &Image) -> common::Image {
    common::Image {
        name: image.name.to_string(),
        repository: text(image.repository.as_ref()),
        digest: image.digest.to_string(),
        tags: image.tags.iter().map(ToString::to_string).collect(),
    }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
