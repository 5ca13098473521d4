//! `slipway approval …`

mod draw;

use std::io::IsTerminal;

use slipway_model::Timestamp;
use slipway_proto::approval::v1::{
    Approval, DecideRequest, GetApprovalRequest, ListApprovalsRequest, approval::Status, decision::Verdict,
};

use super::{present, request_id};
use crate::{
    Outcome,
    args::{ApprovalCommand, DecideArgs, Output},
    context::Context,
    failure::Failure,
    out,
};

const APPROVAL: &str = "slipway.approval.v1.Approval";
/// The maximum that the service returns at once.
const PAGE: i32 = 500;

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: ApprovalCommand,
) -> Result<Outcome, Failure> {
    match command {
        ApprovalCommand::List {
            all,
            mine,
            service,
            limit,
        } => {
            let status = if all { Status::Unspecified } else { Status::Pending };
            let request = ListApprovalsRequest {
                page_size: limit,
                service: service.unwrap_or_default(),
                status: status.into(),
                waits_for_caller: mine,
                ..ListApprovalsRequest::default()
            };
            list(context, output, request).await
        }
        ApprovalCommand::Get { id } => {
            show(output, &get(context, id).await?)?;
            Ok(Outcome::Happened)
        }
        ApprovalCommand::Approve(args) => decide(context, output, args, Verdict::Approve).await,
        ApprovalCommand::Reject(args) => decide(context, output, args, Verdict::Reject).await,
    }
}

async fn list(context: &Context, output: Output, request: ListApprovalsRequest) -> Result<Outcome, Failure> {
    let none = if request.waits_for_caller {
        "no approval waits for you"
    } else {
        "no approval is pending"
    };
    let answer = context.approvals()?.list_approvals(request).await?.into_inner();
    if let Some(format) = output.format() {
        out::line(format.render("slipway.approval.v1.ListApprovalsResponse", &answer)?);
        return Ok(Outcome::Happened);
    }
    if answer.approvals.is_empty() {
        eprintln!("{none}");
    }
    out::line(draw::table_of(&answer.approvals, Timestamp::now().as_micros()));
    Ok(Outcome::Happened)
}

async fn get(context: &Context, id: String) -> Result<Approval, Failure> {
    present(
        context
            .approvals()?
            .get_approval(GetApprovalRequest { id })
            .await?
            .into_inner()
            .approval,
    )
}

async fn decide(
    context: &Context,
    output: Output,
    args: DecideArgs,
    verdict: Verdict,
) -> Result<Outcome, Failure> {
    let (id, binding) = match (args.id, args.binding) {
        (Some(id), Some(binding)) => (id, binding),
        (Some(id), None) => {
            let approval = get(context, id).await?;
            if output.format().is_none() {
                eprint!("{}", draw::whole(&approval, Timestamp::now().as_micros()));
            }
            (approval.id, approval.binding)
        }
        (None, _) => match only_one(context, verdict).await? {
            Some(approval) => (approval.id, approval.binding),
            None => return Ok(Outcome::DidNot),
        },
    };
    let request = DecideRequest {
        request_id: request_id(),
        id,
        verdict: verdict.into(),
        binding,
        comment: args.comment,
        on_behalf_of: String::new(),
    };
    let approval = present(context.approvals()?.decide(request).await?.into_inner().approval)?;
    match output.format() {
        Some(format) => out::line(format.render(APPROVAL, &approval)?),
        None => out::line(draw::status(&approval)),
    }
    Ok(Outcome::Happened)
}

/// The only approval that waits for the caller, once the caller has looked at it and agreed; `None` if not.
async fn only_one(context: &Context, verdict: Verdict) -> Result<Option<Approval>, Failure> {
    let verb = verb(verdict);
    let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let approval = match choose(&waiting(context).await?, asks, verb)? {
        // With the bodies of its sections, which lists leave out.
        Choice::Ask(id) => get(context, id).await?,
        Choice::Several(table) => {
            eprintln!("{table}");
            return Err(Failure::new("more than one approval waits for you")
                .next(format!("name one: slipway approval {verb} ID")));
        }
    };
    eprint!(
        "{}{verb} it? [y/N] ",
        draw::whole(&approval, Timestamp::now().as_micros())
    );
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.map_err(Failure::new)??;
    if agrees(&answer) {
        return Ok(Some(approval));
    }
    eprintln!("nothing was decided");
    Ok(None)
}

/// What waits for the caller, newest first; a second one is enough to know that there are several.
async fn waiting(context: &Context) -> Result<Vec<Approval>, Failure> {
    let mut found = Vec::new();
    let mut request = ListApprovalsRequest {
        page_size: PAGE,
        status: Status::Pending.into(),
        waits_for_caller: true,
        ..ListApprovalsRequest::default()
    };
    loop {
        let answer = context.approvals()?.list_approvals(request.clone()).await?;
        let answer = answer.into_inner();
        found.extend(answer.approvals);
        if found.len() > 1 || answer.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = answer.next_page_token;
    }
}

/// What to do without an id.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Show this one, and ask.
    Ask(String),
    Several(String),
}

/// Chooses among what waits for the caller; `asks`: there is a person at a terminal.
fn choose(waiting: &[Approval], asks: bool, verb: &str) -> Result<Choice, Failure> {
    match waiting {
        [] => Err(Failure::new("no approval waits for you")
            .next("see all that are pending with: slipway approval list")),
        [one] if asks => Ok(Choice::Ask(one.id.clone())),
        [one] => {
            let summary = one.subject.clone().unwrap_or_default().summary;
            let message = format!(
                "without an id, this asks on a terminal, and there is none; only {} waits for you ({summary})",
                one.id
            );
            Err(Failure::new(message).next(format!("slipway approval {verb} {}", one.id)))
        }
        several => {
            let table = draw::table_of(several, Timestamp::now().as_micros());
            Ok(Choice::Several(table.to_string()))
        }
    }
}

fn agrees(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// The command that gives this verdict.
fn verb(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reject => "reject",
        Verdict::Approve | Verdict::Unspecified => "approve",
    }
}

fn show(output: Output, approval: &Approval) -> Result<(), Failure> {
    match output.format() {
        Some(format) => out::line(format.render(APPROVAL, approval)?),
        None => out::print(draw::whole(approval, Timestamp::now().as_micros())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use slipway_proto::approval::v1::Subject;

    use super::*;

    fn approval(id: &str) -> Approval {
        Approval {
            id: id.to_owned(),
            subject: Some(Subject {
                summary: format!("shop 1a2b3c4 to {id}"),
                ..Subject::default()
            }),
            ..Approval::default()
        }
    }

    #[test]
    fn without_an_id_it_asks_about_the_only_one_and_never_guesses() {
        let said = |waiting: &[&str], asks| {
            let waiting: Vec<Approval> = waiting.iter().map(|id| approval(id)).collect();
            choose(&waiting, asks, "approve").map_err(|failure| failure.to_string())
        };
        assert_eq!(said(&["apr-1"], true), Ok(Choice::Ask("apr-1".to_owned())));
        let error = said(&["apr-1"], false).unwrap_err();
        for words in [
            "only apr-1 waits for you (shop 1a2b3c4 to apr-1)",
            "next: slipway approval approve apr-1",
        ] {
            assert!(error.contains(words), "{error}");
        }
        for asks in [true, false] {
            let Ok(Choice::Several(table)) = said(&["apr-1", "apr-2"], asks) else {
                panic!("there are several")
            };
            assert!(table.contains("apr-1") && table.contains("apr-2"), "{table}");
            let error = said(&[], asks).unwrap_err();
            assert!(error.contains("no approval waits for you"), "{error}");
        }
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        for (answer, yes) in [
            ("y\n", true),
            (" Yes \n", true),
            ("", false),
            ("\n", false),
            ("n\n", false),
            ("yep\n", false),
        ] {
            assert_eq!(agrees(answer), yes, "{answer:?}");
        }
    }
}
