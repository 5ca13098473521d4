//! `slipway gitops apply`, `promote`, `revert`, `cancel`, `list`, `get`, `watch`: changes of gitops-svc.

mod draw;
mod follow;

use slipway_model::Timestamp;
use slipway_proto::{
    common::v1::Image,
    gitops::v1::{
        self as proto, ApplyChangeRequest, CancelChangeRequest, Change, GetChangeRequest, ListChangesRequest,
        PromoteRequest, RevertChangeRequest, change::Status,
    },
};

use self::follow::follow;
use super::{
    super::{present, request_id},
    edits::FileKind,
    recognise,
};
use crate::{
    Outcome,
    args::{
        ApplyArgs, ChangeArgs, ChangeStatus, GitopsCommand, ImageArgs, ListChangesArgs, Output, PromoteArgs,
        StartChangeArgs,
    },
    context::Context,
    failure::Failure,
    out,
};

const CHANGE: &str = "slipway.gitops.v1.Change";

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: GitopsCommand,
) -> Result<Outcome, Failure> {
    match command {
        GitopsCommand::Apply(args) => apply(context, output, args).await,
        GitopsCommand::Promote(args) => promote(context, output, args).await,
        GitopsCommand::Revert {
            id,
            force,
            reason,
            paths,
            start,
        } => {
            let request = RevertChangeRequest {
                request_id: start.request_id.clone().unwrap_or_else(request_id),
                id,
                force,
                reason,
                correlation_id: start.correlation_id.clone(),
                on_behalf_of: String::new(),
                paths,
            };
            let answer = context.gitops()?.revert_change(request).await?.into_inner();
            started(context, output, present(answer.change)?, &start).await
        }
        GitopsCommand::Cancel { id, reason } => {
            let request = CancelChangeRequest { id, reason };
            let answer = context.gitops()?.cancel_change(request).await?.into_inner();
            // The holder that pushes decides whether it was in time.
            let change = follow(context, output, present(answer.change)?).await?;
            show(output, &change)?;
            Ok(happened(change.status() == Status::Cancelled))
        }
        GitopsCommand::List(args) => list(context, output, args).await,
        GitopsCommand::Get { id } => {
            show(output, &get(context, id).await?)?;
            Ok(Outcome::Happened)
        }
        GitopsCommand::Watch { id } => {
            let change = follow(context, output, get(context, id).await?).await?;
            finish(output, &change)
        }
        GitopsCommand::Edit(_) | GitopsCommand::Diff(_) => {
            Err(Failure::new("this command is not about a change"))
        }
    }
}

async fn apply(context: &Context, output: Output, args: ApplyArgs) -> Result<Outcome, Failure> {
    let edits = remote_edits(&args)?;
    let image = named_image(&args.images, edits.is_empty())?;
    let change = args.change;
    let request = ApplyChangeRequest {
        request_id: change.start.request_id.clone().unwrap_or_else(request_id),
        mode: mode(&change).into(),
        repository: change.repository.repository,
        branch: change.repository.branch,
        service: args.service,
        environment: args.environment,
        edits,
        source_commit: args.commit,
        images: image.into_iter().collect(),
        message: change.message,
        correlation_id: change.start.correlation_id.clone(),
        labels: change.labels.into_iter().collect(),
        on_behalf_of: String::new(),
    };
    let answer = context.gitops()?.apply_change(request).await?.into_inner();
    started(context, output, present(answer.change)?, &change.start).await
}

async fn promote(context: &Context, output: Output, args: PromoteArgs) -> Result<Outcome, Failure> {
    let change = args.change;
    let request = PromoteRequest {
        request_id: change.start.request_id.clone().unwrap_or_else(request_id),
        mode: mode(&change).into(),
        repository: change.repository.repository,
        branch: change.repository.branch,
        service: args.service,
        from_environment: args.from,
        to_environment: args.to,
        from: None,
        to: None,
        images: args.images,
        message: change.message,
        correlation_id: change.start.correlation_id.clone(),
        labels: change.labels.into_iter().collect(),
        on_behalf_of: String::new(),
    };
    let answer = context.gitops()?.promote(request).await?.into_inner();
    started(context, output, present(answer.change)?, &change.start).await
}

fn mode(args: &ChangeArgs) -> proto::Mode {
    if args.pull_request {
        proto::Mode::PullRequest
    } else {
        proto::Mode::Unspecified
    }
}

/// The edits of paths in the repository, which cannot be inspected here.
fn remote_edits(args: &ApplyArgs) -> Result<Vec<proto::Edit>, Failure> {
    if args.marker {
        return Ok(vec![to_proto(slipway_edit::Edit::Marker)?]);
    }
    let mut edits = Vec::new();
    for path in &args.paths {
        let (kind, path) = remote_kind(&args.images, path)?;
        for (edit, name) in args.images.edits(kind, path)? {
            if let Some(name) = name {
                let message =
                    format!("--image {name}=…: a path of Helm values holds one image, so it takes no name");
                return Err(Failure::new(message).next("give the reference alone, such as --image REF:TAG"));
            }
            edits.push(to_proto(edit)?);
        }
    }
    if edits.is_empty() && args.images.kind().is_some() {
        return Err(Failure::new("no path is given").next("give paths from the repository's root"));
    }
    Ok(edits)
}

fn remote_kind<'a>(images: &ImageArgs, path: &'a str) -> Result<(FileKind, &'a str), Failure> {
    let kustomization = || {
        if recognise::is_kustomization(path) {
            (
                FileKind::Kustomization,
                path.rsplit_once('/').map_or(".", |(folder, _)| folder),
            )
        } else {
            (FileKind::Kustomization, path)
        }
    };
    match images.kind() {
        Some(FileKind::Kustomization) => Ok(kustomization()),
        Some(kind) => Ok((kind, path)),
        None if recognise::is_kustomization(path) => Ok(kustomization()),
        None if [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end)) => Err(Failure::new(
            format!("{path}: the name does not tell the kind of the file"),
        )
        .next("add --helm PATH or --manifest")),
        None => Ok(kustomization()),
    }
}

/// The image of the request itself: what is written where the configuration says, and what the message mentions.
fn named_image(images: &ImageArgs, is_needed: bool) -> Result<Option<Image>, Failure> {
    let [asked] = images.images.as_slice() else {
        return if is_needed {
            Err(
                Failure::new(format!("{} --image options and no path", images.images.len())).next(
                    "give one --image REF:TAG for the configured place, or paths from the repository's root",
                ),
            )
        } else {
            Ok(None)
        };
    };
    let whole = asked.whole();
    if is_needed && asked.over().is_some() {
        return Err(Failure::new("the configured place already names the image")
            .next("give the reference alone, such as --image REF:TAG, or paths from the repository's root"));
    }
    // Without a name it is not an image of its own, only a part of the existing one.
    let is_whole = !whole.name.is_empty() && (is_needed || asked.over().is_some());
    Ok((is_needed || is_whole).then(|| Image {
        name: String::new(),
        repository: whole.name.clone(),
        digest: whole.digest.clone(),
        tags: Some(whole.tag.clone())
            .filter(|tag| !tag.is_empty())
            .into_iter()
            .collect(),
    }))
}

fn to_proto(edit: slipway_edit::Edit) -> Result<proto::Edit, Failure> {
    use proto::edit::Edit as Wire;
    use slipway_edit::Edit;
    fn parts(to: slipway_edit::NewImage) -> [String; 3] {
        [
            to.new_name.map(String::from).unwrap_or_default(),
            to.new_tag.map(String::from).unwrap_or_default(),
            to.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        ]
    }
    let edit = match edit {
        Edit::KustomizeImage(edit) => {
            let [new_name, new_tag, digest] = parts(edit.to);
            Wire::KustomizeImage(proto::KustomizeImage {
                path: edit.path.as_str().to_owned(),
                name: edit.name,
                new_name,
                new_tag,
                digest,
                allow_shared: edit.allow_shared,
            })
        }
        Edit::HelmImage(edit) => {
            let [new_name, new_tag, digest] = parts(edit.to);
            Wire::HelmImage(proto::HelmImage {
                file: edit.file.into(),
                path: edit.path,
                document: edit.document,
                new_name,
                new_tag,
                digest,
                allow_shared: edit.allow_shared,
                add_missing: edit.add_missing,
            })
        }
        Edit::ManifestImage(edit) => {
            let [new_name, new_tag, digest] = parts(edit.to);
            Wire::ManifestImage(proto::ManifestImage {
                file: edit.file.into(),
                object: edit.object,
                container: edit.container,
                image: edit.image,
                field: edit.field,
                new_name,
                new_tag,
                digest,
                allow_shared: edit.allow_shared,
            })
        }
        Edit::Marker => Wire::Marker(proto::Marker {}),
        Edit::RestoreImage(_) | Edit::RestoreValues(_) => {
            return Err(Failure::new("only gitops-svc restores images").next("use: slipway gitops revert ID"));
        }
    };
    Ok(proto::Edit { edit: Some(edit) })
}

/// A change that was requested: waited for, unless told otherwise.
async fn started(
    context: &Context,
    output: Output,
    change: Change,
    args: &StartChangeArgs,
) -> Result<Outcome, Failure> {
    if args.no_wait {
        match output.format() {
            Some(format) => out::line(format.render(CHANGE, &change)?),
            None => {
                out::line(&change.id);
                eprintln!("follow it with: slipway gitops watch {}", change.id);
            }
        }
        return Ok(Outcome::Happened);
    }
    let change = follow(context, output, change).await?;
    finish(output, &change)
}

async fn list(context: &Context, output: Output, args: ListChangesArgs) -> Result<Outcome, Failure> {
    let status = args.status.map_or(Status::Unspecified, |status| match status {
        ChangeStatus::Pending => Status::Pending,
        ChangeStatus::Pushed => Status::Pushed,
        ChangeStatus::Failed => Status::Failed,
        ChangeStatus::Errored => Status::Errored,
        ChangeStatus::Cancelled => Status::Cancelled,
    });
    let request = ListChangesRequest {
        page_size: args.limit,
        service: args.service,
        environment: args.environment,
        status: status.into(),
        correlation_id: args.correlation_id,
        repository: args.repository,
        branch: args.branch,
        history: args.history,
        path: args.path,
        ..ListChangesRequest::default()
    };
    let answer = context.gitops()?.list_changes(request).await?.into_inner();
    match output.format() {
        Some(format) => out::line(format.render("slipway.gitops.v1.ListChangesResponse", &answer)?),
        None => {
            let now = Timestamp::now().as_micros();
            out::line(draw::table_of(&answer.changes, now));
        }
    }
    Ok(Outcome::Happened)
}

async fn get(context: &Context, id: String) -> Result<Change, Failure> {
    let answer = context.gitops()?.get_change(GetChangeRequest { id }).await?;
    present(answer.into_inner().change)
}

fn show(output: Output, change: &Change) -> Result<(), Failure> {
    match output.format() {
        Some(format) => out::line(format.render(CHANGE, change)?),
        None => out::print(draw::change(change, Timestamp::now().as_micros())),
    }
    Ok(())
}

/// Shows a change that was waited for; anything but a pushed one is a failure.
fn finish(output: Output, change: &Change) -> Result<Outcome, Failure> {
    show(output, change)?;
    Ok(happened(change.status() == Status::Pushed))
}

fn happened(yes: bool) -> Outcome {
    if yes { Outcome::Happened } else { Outcome::DidNot }
}
