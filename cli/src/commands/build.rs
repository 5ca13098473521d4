//! `slipway build …`

use std::io::Write;

use futures::StreamExt;
use slipway_proto::build::v1::TailLogRequest;

use crate::{Outcome, args::BuildCommand, context::Context, failure::Failure};

pub(crate) async fn run(context: &Context, command: BuildCommand) -> Result<Outcome, Failure> {
    match command {
        BuildCommand::Log { id, follow } => {
            let request = TailLogRequest {
                id,
                offset: 0,
                follow,
            };
            let mut stream = context.builds()?.tail_log(request).await?.into_inner();
            let mut out = std::io::stdout();
            while let Some(next) = stream.next().await {
                let next = next?;
                out.write_all(&next.chunk)?;
                out.flush()?;
                if next.truncated {
                    eprintln!("the log reached its size limit and was cut here");
                }
            }
            Ok(Outcome::Happened)
        }
    }
}
