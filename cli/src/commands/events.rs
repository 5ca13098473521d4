//! `slipway events …`

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use slipway_proto::{approval, build, common::v1::Event, gitops, release};
use tonic::Status;

use crate::{
    Outcome,
    args::{EventsCommand, Output},
    context::Context,
    failure::Failure,
    out,
};

type Events = Pin<Box<dyn Stream<Item = Result<Option<Event>, Status>> + Send>>;

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: EventsCommand,
) -> Result<Outcome, Failure> {
    let EventsCommand::Tail { release, all } = command;
    let cursor = if all { "" } else { "now" };
    let mut events = stream::select_all(open(context, cursor, &release).await?);
    while let Some(event) = events.next().await {
        let Some(event) = event?.filter(|event| concerns(event, &release)) else {
            continue;
        };
        match output.format() {
            Some(format) => out::line(format.render_next("slipway.common.v1.Event", &event)?),
            None => {
                let time = event.time.as_ref().map(|time| {
                    slipway_model::Timestamp::from_micros(
                        time.seconds * 1_000_000 + i64::from(time.nanos) / 1000,
                    )
                    .to_string()
                });
                out::line(format_args!(
                    "{}  {:44}  {}  {}",
                    time.unwrap_or_default(),
                    event.r#type,
                    event.subject,
                    brief(&event.data)
                ));
            }
        }
    }
    Err(Failure::new("the event stream ended").next("run it again; it begins with new events"))
}

async fn open(context: &Context, cursor: &str, release: &str) -> Result<Vec<Events>, Failure> {
    let (cursor, correlation_id) = (cursor.to_owned(), release.to_owned());
    macro_rules! stream_of {
        ($client:expr, $package:ident) => {{
            let request = $package::v1::StreamEventsRequest {
                cursor: cursor.clone(),
                correlation_id: correlation_id.clone(),
            };
            let stream = $client.stream_events(request).await?.into_inner();
            Box::pin(stream.map(|answer| answer.map(|answer| answer.event))) as Events
        }};
    }
    Ok(vec![
        stream_of!(context.builds()?, build),
        stream_of!(context.gitops()?, gitops),
        stream_of!(context.approvals()?, approval),
        // Releases and lanes do not belong to anything larger, so they have no correlation id and are selected here.
        {
            let request = release::v1::StreamEventsRequest {
                cursor,
                correlation_id: String::new(),
            };
            let stream = context.releases()?.stream_events(request).await?.into_inner();
            Box::pin(stream.map(|answer| answer.map(|answer| answer.event)))
        },
    ])
}

/// Whether the event is about this release; always true if none is given.
fn concerns(event: &Event, release: &str) -> bool {
    release.is_empty()
        || event.correlation_id == release
        || event.subject == format!("release/{release}")
        || (event.subject.starts_with("lane/") && event.data.contains(release))
}

/// The data without its type, on one line and truncated.
fn brief(data: &str) -> String {
    let line: String = data.chars().take(160).collect();
    if line.len() < data.len() {
        format!("{line}…")
    } else {
        line
    }
}
