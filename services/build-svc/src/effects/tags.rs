//! The effect `tags`: tags the pushed image.

use build_domain::{
    build::{Build, Command, KeptTag, Request},
    spec::{TagVerdict, tag_verdict},
};
use slipway_ledger::EffectRun;
use slipway_model::{Digest, Reason};

use super::{Worker, unless_cancelled};
use crate::backends::{logs::Log, stop::Stop};

impl Worker {
    pub(super) async fn tags(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        digest: &Digest,
    ) -> Result<Option<Command>, Reason> {
        let log = self.open_log(run).await?;
        let tagged = self.tag(run, request, digest, &log).await;
        Ok(self.conclude(run, &log, tagged).await)
    }

    async fn tag(
        &self,
        run: &EffectRun<Build>,
        request: &Request,
        digest: &Digest,
        log: &Log,
    ) -> Result<Command, Stop> {
        let registry = self.registry(request)?;
        let requested_at = run.snapshot.state.requested_at.unwrap_or(run.snapshot.created_at);
        let image = &request.recipe.image;
        let (mut tags, mut kept) = (Vec::new(), Vec::new());
        for tag in request.recipe.tags(requested_at) {
            let current = unless_cancelled(run, registry.inspect(image, &tag.tag)).await?;
            match tag_verdict(&tag, digest, requested_at, current.as_ref()) {
                TagVerdict::Write => {
                    slipway_faults::point("build.tag.before");
                    unless_cancelled(run, registry.tag(image, digest, &tag.tag)).await?;
                    slipway_faults::point("build.tag.after");
                    log.line(&format!("slipway: tagged {image}:{}", tag.tag));
                    tags.push(tag.tag);
                }
                TagVerdict::Ours => tags.push(tag.tag),
                TagVerdict::Keep => {
                    if let Some(current) = current {
                        log.line(&format!(
                            "slipway: {image}:{} stays at {}",
                            tag.tag, current.digest
                        ));
                        kept.push(KeptTag {
                            tag: tag.tag,
                            digest: current.digest,
                        });
                    }
                }
            }
        }
        Ok(Command::Tagged {
            key: run.key.clone(),
            tags,
            kept,
        })
    }
}
