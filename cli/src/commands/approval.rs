//! `slipway approval …`

use slipway_model::Timestamp;
use slipway_proto::approval::v1::{
    Approval, DecideRequest, GetApprovalRequest, ListApprovalsRequest, approval::Status, decision::Verdict,
};

use super::{present, request_id, table};
use crate::{
    Outcome,
    args::{ApprovalCommand, DecideArgs, Output},
    context::Context,
    failure::Failure,
    json, out, waterfall,
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
        eprintln!("nothing waits for approval");
    }
    let mut rows = table(&["APPROVAL", "FOR", "POLICY", "STATUS", "WAITS FOR", "AGE"]);
    let now = Timestamp::now().as_micros();
    for approval in answer.approvals {
        let age = now - waterfall::micros(approval.create_time.as_ref()).unwrap_or(now);
        rows.add_row([
            approval.id.clone(),
            approval
                .subject
                .as_ref()
                .map(|subject| subject.summary.clone())
                .unwrap_or_default(),
            approval
                .policy
                .as_ref()
                .map(|policy| policy.name.clone())
                .unwrap_or_default(),
            status_of(&approval).to_owned(),
            approval
                .waiting_on
                .as_ref()
                .map(|waiting| waiting.message.clone())
                .unwrap_or_default(),
            waterfall::seconds(age),
        ]);
    }
    out::line(rows);
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
                eprint!("{}", describe(&approval));
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
        Output::Table => out::line(status_of(&approval)),
    }
    Ok(Outcome::Happened)
}

fn status_of(approval: &Approval) -> &'static str {
    approval.status().as_str_name().trim_start_matches("STATUS_")
}

fn show(output: Output, approval: &Approval) -> Result<(), Failure> {
    match output {
        Output::Json => out::line(json::render(APPROVAL, approval)?),
        Output::Table => out::print(describe(approval)),
    }
    Ok(())
}

fn describe(approval: &Approval) -> String {
    let subject = approval.subject.clone().unwrap_or_default();
    let policy = approval.policy.clone().unwrap_or_default();
    let mut lines = vec![
        format!("{}  {}", approval.id, status_of(approval)),
        format!("for      {}", subject.summary),
        format!("target   {}", subject.target),
        format!("digest   {}", subject.digest),
        format!(
            "policy   {} ({} of {})",
            policy.name,
            policy.required,
            who(&policy.approvers)
        ),
    ];
    if let Some(actor) = &approval.requested_by {
        let person = if actor.on_behalf_of.is_empty() {
            &actor.principal
        } else {
            &actor.on_behalf_of
        };
        lines.push(format!("asked by {person}"));
    }
    for decision in &approval.decisions {
        let verdict = if decision.verdict() == Verdict::Approve {
            "yes"
        } else {
            "no"
        };
        let by = decision
            .by
            .as_ref()
            .map(|by| by.principal.clone())
            .unwrap_or_default();
        lines.push(format!("{verdict:8} {by}  {}", decision.comment));
    }
    if let Some(reason) = &approval.reason {
        lines.push(format!("reason   {}: {}", reason.code, reason.message));
    }
    if let Some(waiting) = &approval.waiting_on {
        lines.push(format!("waits    {}", waiting.message));
    }
    lines.join("\n") + "\n"
}

fn who(approvers: &[String]) -> String {
    if approvers.is_empty() {
        "anyone who may approve".to_owned()
    } else {
        approvers.join(", ")
    }
}
