//! `slipway approval …`

mod draw;

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
    json, out,
};

const APPROVAL: &str = "slipway.approval.v1.Approval";

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: ApprovalCommand,
) -> Result<Outcome, Failure> {
    match command {
        ApprovalCommand::List { all, service, limit } => list(context, output, all, service, limit).await,
        ApprovalCommand::Get { id } => {
            show(output, &get(context, id).await?)?;
            Ok(Outcome::Happened)
        }
        ApprovalCommand::Approve(args) => decide(context, output, args, Verdict::Approve).await,
        ApprovalCommand::Reject(args) => decide(context, output, args, Verdict::Reject).await,
    }
}

async fn list(
    context: &Context,
    output: Output,
    all: bool,
    service: Option<String>,
    limit: i32,
) -> Result<Outcome, Failure> {
    let status = if all { Status::Unspecified } else { Status::Pending };
    let request = ListApprovalsRequest {
        page_size: limit,
        service: service.unwrap_or_default(),
        status: status.into(),
        ..ListApprovalsRequest::default()
    };
    let answer = context.approvals()?.list_approvals(request).await?.into_inner();
    if output == Output::Json {
        out::line(json::render(
            "slipway.approval.v1.ListApprovalsResponse",
            &answer,
        )?);
        return Ok(Outcome::Happened);
    }
    if answer.approvals.is_empty() {
        eprintln!("no approval is pending");
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
    let binding = match args.binding {
        Some(binding) => binding,
        None => {
            let approval = get(context, args.id.clone()).await?;
            if output == Output::Table {
                eprint!("{}", draw::whole(&approval, Timestamp::now().as_micros()));
            }
            approval.binding
        }
    };
    let request = DecideRequest {
        request_id: request_id(),
        id: args.id,
        verdict: verdict.into(),
        binding,
        comment: args.comment,
        on_behalf_of: String::new(),
    };
    let approval = present(context.approvals()?.decide(request).await?.into_inner().approval)?;
    match output {
        Output::Json => out::line(json::render(APPROVAL, &approval)?),
        Output::Table => out::line(draw::status(&approval)),
    }
    Ok(Outcome::Happened)
}

fn show(output: Output, approval: &Approval) -> Result<(), Failure> {
    match output {
        Output::Json => out::line(json::render(APPROVAL, approval)?),
        Output::Table => out::print(draw::whole(approval, Timestamp::now().as_micros())),
    }
    Ok(())
}
