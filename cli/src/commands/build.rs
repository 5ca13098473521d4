//! `slipway build …`

use std::io::Write;

use futures::StreamExt;
use slipway_proto::build::v1::TailLogRequest;

use crate::{
    Outcome,
    args::{BuildCommand, Output},
    context::Context,
    failure::Failure,
    out,
};

pub(crate) async fn run(
    context: &Context,
    output: Output,
    command: BuildCommand,
) -> Result<Outcome, Failure> {
    match command {
        BuildCommand::Log { id, follow } => {
            let request = TailLogRequest {
                id,
                offset: 0,
                follow,
            };
            let mut stream = context.builds()?.tail_log(request).await?.into_inner();
            let mut stdout = std::io::stdout();
            while let Some(next) = stream.next().await {
                let next = next?;
                if let Some(format) = output.format() {
                    out::line(format.render_next("slipway.build.v1.TailLogResponse", &next)?);
                    continue;
                }
                stdout.write_all(&next.chunk)?;
                stdout.flush()?;
                if next.truncated {
                    eprintln!("the log was cut here: it reached its size limit");
                }
            }
            Ok(Outcome::Happened)
        }
    }
}
