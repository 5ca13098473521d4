//! `slipway parked …`: what is parked in all four services.

use slipway_model::Timestamp;
use slipway_proto::operations::v1::{
    GetParkedRequest, ListParkedRequest, ListParkedResponse, Parked, ResumeParkedRequest,
};
use tonic::{Code, Status};

use super::{present, table};
use crate::{
    Outcome,
    args::{Output, ParkedCommand},
    context::{Context, Operations},
    failure::Failure,
    out, readable,
};

const PARKED: &str = "slipway.operations.v1.Parked";
/// The maximum that a service returns at once.
const PAGE: i32 = 500;

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: ParkedCommand,
) -> Result<Outcome, Failure> {
    match command {
        ParkedCommand::List { kind, limit } => list(context, output, kind.unwrap_or_default(), limit).await,
        ParkedCommand::Get { kind, id } => {
            let parked = at_its_service(context, async |mut operations| {
                let (kind, id) = (kind.clone(), id.clone());
                let answer = operations.get_parked(GetParkedRequest { kind, id }).await?;
                Ok(answer.into_inner().parked)
            })
            .await?;
            match output.format() {
                Some(format) => out::line(format.render(PARKED, &parked)?),
                None => out::print(describe(&parked, Timestamp::now().as_micros())),
            }
            Ok(Outcome::Happened)
        }
        ParkedCommand::Resume { kind, id } => {
            let before = at_its_service(context, async |mut operations| {
                let (kind, id) = (kind.clone(), id.clone());
                let answer = operations.resume_parked(ResumeParkedRequest { kind, id }).await?;
                Ok(answer.into_inner().parked)
            })
            .await?;
            match output.format() {
                Some(format) => out::line(format.render(PARKED, &before)?),
                None => out::line(format_args!("{} {} resumed", before.kind, before.id)),
            }
            Ok(Outcome::Happened)
        }
    }
}

/// Those of all services that answer. A service that does not is named; the list is then incomplete, which the exit
/// code shows.
async fn list(context: &Context, output: Output, kind: String, limit: u32) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Happened;
    let mut all = Vec::new();
    for (service, operations) in context.operations()? {
        match of(operations, &kind, limit).await {
            Ok(parked) => all.extend(parked),
            Err(status) => {
                let failure = Failure::from(status);
                eprintln!("{service}-svc {failure}");
                outcome = Outcome::DidNot;
            }
        }
    }
    all.sort_by_key(|one: &Parked| std::cmp::Reverse(readable::micros(one.park_time.as_ref())));
    all.truncate(limit as usize);
    if let Some(format) = output.format() {
        let answer = ListParkedResponse {
            parked: all,
            next_page_token: String::new(),
        };
        out::line(format.render("slipway.operations.v1.ListParkedResponse", &answer)?);
        return Ok(outcome);
    }
    if all.is_empty() && outcome == Outcome::Happened {
        eprintln!("nothing is parked");
    }
    let mut rows = table(&[
        "KIND",
        "ID",
        "SERVICE",
        "ENVIRONMENT",
        "SINCE",
        "ATTEMPTS",
        "ERROR",
    ]);
    let now = Timestamp::now().as_micros();
    for one in all {
        let since = now - readable::micros(one.park_time.as_ref()).unwrap_or(now);
        let error = error(&one);
        rows.add_row([
            one.kind,
            one.id,
            one.service,
            one.environment,
            readable::seconds(since),
            one.attempts.to_string(),
            error
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(100)
                .collect(),
        ]);
    }
    out::line(rows);
    Ok(outcome)
}

/// What one service has parked, up to this many.
async fn of(mut operations: Operations, kind: &str, limit: u32) -> Result<Vec<Parked>, Status> {
    let mut parked = Vec::new();
    let mut request = ListParkedRequest {
        page_size: i32::try_from(limit).unwrap_or(PAGE).min(PAGE),
        page_token: String::new(),
        kind: kind.to_owned(),
    };
    loop {
        let answer = operations.list_parked(request.clone()).await?.into_inner();
        parked.extend(answer.parked);
        if answer.next_page_token.is_empty() || parked.len() >= limit as usize {
            return Ok(parked);
        }
        request.page_token = answer.next_page_token;
    }
}

/// Asks one service after the other: only one has aggregates of a given kind. An unreachable one may be that one.
async fn at_its_service(
    context: &Context,
    ask: impl AsyncFn(Operations) -> Result<Option<Parked>, Status>,
) -> Result<Parked, Failure> {
    let (mut absent, mut away) = (None, None);
    for (service, operations) in context.operations()? {
        match ask(operations).await {
            Ok(parked) => return present(parked),
            Err(status) if status.code() == Code::NotFound => absent = Some(Failure::from(status)),
            Err(status) if status.code() == Code::Unavailable => {
                let failure = Failure::from(status);
                eprintln!("{service}-svc {failure}");
                away = Some(Failure::new(format!(
                    "no other service has it, and {service}-svc does not answer"
                )));
            }
            Err(status) => return Err(status.into()),
        }
    }
    Err(away
        .or(absent)
        .unwrap_or_else(|| Failure::new("the context file has no URL of any service")))
}

fn error(parked: &Parked) -> String {
    parked
        .error
        .as_ref()
        .map(|error| format!("{}: {}", error.code, error.message))
        .unwrap_or_default()
}

fn describe(parked: &Parked, now: i64) -> String {
    let since = now - readable::micros(parked.park_time.as_ref()).unwrap_or(now);
    let mut lines = vec![
        format!("{} {}", parked.kind, parked.id),
        format!(
            "parked   {} ago, after {}",
            readable::seconds(since),
            match parked.attempts {
                1 => "1 attempt".to_owned(),
                attempts => format!("{attempts} attempts"),
            }
        ),
        format!("error    {}", error(parked)),
    ];
    for (name, value) in [
        ("service", &parked.service),
        ("env", &parked.environment),
        ("part of", &parked.correlation_id),
    ] {
        if !value.is_empty() {
            lines.push(format!("{name:8} {value}"));
        }
    }
    lines.push(format!(
        "next     slipway parked resume {} {}",
        parked.kind, parked.id
    ));
    let state = serde_json::from_str::<serde_json::Value>(&parked.state)
        .and_then(|state| serde_json::to_string_pretty(&state))
        .unwrap_or_else(|_| parked.state.clone());
    lines.push(state);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use slipway_proto::common::v1::Reason;

    use super::*;

    #[test]
    fn one_is_described_with_what_to_do_next() {
        let parked = Parked {
            kind: "build".to_owned(),
            id: "bld-1".to_owned(),
            service: "shop".to_owned(),
            error: Some(Reason {
                code: "PANICKED".to_owned(),
                message: "effect image#1: panicked: the saw is broken".to_owned(),
            }),
            attempts: 10,
            park_time: Some(prost_types::Timestamp {
                seconds: 60,
                nanos: 0,
            }),
            state: r#"{"status":"running"}"#.to_owned(),
            ..Parked::default()
        };
        assert_eq!(
            describe(&parked, 125_000_000),
            "build bld-1\n\
             parked   1m05s ago, after 10 attempts\n\
             error    PANICKED: effect image#1: panicked: the saw is broken\n\
             service  shop\n\
             next     slipway parked resume build bld-1\n\
             {\n  \"status\": \"running\"\n}\n"
        );
    }
}
