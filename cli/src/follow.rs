//! Follows a resource to its end through the service's watch, across restarts of the service.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use tonic::Status;

use crate::failure::Failure;

/// The wait before a broken watch is resumed.
const RESUME: Duration = Duration::from_millis(500);
/// How often a breaking watch is resumed without news in between.
const RESUMES: u32 = 120;
/// How often something is told again without news: what is told may depend on the time.
const TELL: Duration = Duration::from_secs(1);

/// A resource as it is now, then each change.
pub(crate) type Watch<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Something with a watch of its own.
pub(crate) trait Followed: Sized {
    /// What people call it, and the command to look at it again, such as `release` and `slipway release watch`.
    const NOUN: (&'static str, &'static str);

    fn id(&self) -> &str;

    /// It is final.
    fn is_final(&self) -> bool;
}

/// Watches until the end. `watch` opens a stream for an id, `tell` is called with each change, and every second.
pub(crate) async fn follow<T: Followed, Opened>(
    mut one: T,
    watch: impl Fn(String) -> Opened,
    mut tell: impl FnMut(&T),
) -> Result<T, Failure>
where
    Opened: Future<Output = Result<Watch<Option<T>>, Failed>>,
{
    let mut broken = 0;
    let mut again = tokio::time::interval(TELL);
    tell(&one);
    while !one.is_final() {
        match watch(one.id().to_owned()).await {
            Ok(mut stream) => loop {
                tokio::select! {
                    next = stream.next() => {
                        let Some(Ok(next)) = next else { break };
                        broken = 0;
                        one = next.ok_or_else(|| Failure::new("the service's answer has no resource"))?;
                    }
                    _ = again.tick() => {}
                }
                tell(&one);
            },
            Err(Failed::Call(status)) if status.code() == tonic::Code::Unavailable => {}
            Err(Failed::Call(status)) => return Err(status.into()),
            Err(Failed::Here(failure)) => return Err(failure),
        }
        if !one.is_final() {
            broken += 1;
            if broken >= RESUMES {
                let (noun, command) = T::NOUN;
                let failure = Failure::new(format!(
                    "the watch of {noun} {} ended and could not be resumed",
                    one.id()
                ));
                let next = format!(
                    "the {noun} continues; follow it again with: {command} {}",
                    one.id()
                );
                return Err(failure.next(next));
            }
            tokio::time::sleep(RESUME).await;
        }
    }
    Ok(one)
}

/// Why a watch was not opened.
pub(crate) enum Failed {
    /// The service refused, or was unreachable.
    Call(Status),
    /// The context file does not have its address.
    Here(Failure),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// The stream of an answer, from which `take` takes the resource.
pub(crate) fn stream<M, T>(
    answer: tonic::Response<tonic::Streaming<M>>,
    take: impl Fn(M) -> Option<T> + Send + 'static,
) -> Watch<Option<T>>
where
    M: Send + 'static,
    T: Send + 'static,
{
    Box::pin(answer.into_inner().map(move |item| item.map(&take)))
}
