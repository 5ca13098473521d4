//! Waiting in tests: as long as a busy machine may need, and no longer.

use std::{
    fmt::Debug,
    panic::Location,
    time::{Duration, Instant},
};

/// A factor for machines that are slower, or busier, than most.
const FACTOR: &str = "SLIPWAY_TEST_PATIENCE";
/// Longer than anything here takes on a busy machine. Waiting ends as soon as the condition holds, so only failures
/// take long.
const PATIENCE: Duration = Duration::from_secs(150);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long a test waits for something before it has failed: 150 s, times `SLIPWAY_TEST_PATIENCE` where that is set.
///
/// # Panics
/// When `SLIPWAY_TEST_PATIENCE` is not a positive number.
pub fn patience() -> Duration {
    scaled(std::env::var(FACTOR).ok().as_deref())
}

fn scaled(factor: Option<&str>) -> Duration {
    let Some(text) = factor else { return PATIENCE };
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor < 1e6 => PATIENCE.mul_f64(factor),
        _ => panic!("{FACTOR}: {text:?} is not a factor; set a number such as 2 or 0.5"),
    }
}

/// Asks repeatedly until the answer is `Ok`, and returns that.
///
/// ```no_run
/// # async fn example(path: &std::path::Path) {
/// let text = slipway_testbed::eventually("the file is written", async || std::fs::read_to_string(path)).await;
/// # }
/// ```
///
/// # Panics
/// When that takes longer than [`patience`]: with `what`, the caller's place, and what was seen last.
#[track_caller]
pub fn eventually<T, S: Debug>(
    what: &str,
    ask: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    seen_within(patience(), Location::caller(), what, ask)
}

/// An answer for [`eventually`]: what was seen, and whether that is the expected state.
///
/// # Errors
/// What was seen, if it is not.
pub fn holds<T>(seen: T, wanted: impl FnOnce(&T) -> bool) -> Result<T, T> {
    if wanted(&seen) { Ok(seen) } else { Err(seen) }
}

/// Waits for something that happens by itself.
///
/// # Panics
/// When that takes longer than [`patience`]: with `what` and the caller's place.
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    // Boxed: it may wait for a whole test.
    comes_within(patience(), Location::caller(), what, Box::pin(future))
}

async fn seen_within<T, S: Debug>(
    patience: Duration,
    caller: &Location<'_>,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let began = Instant::now();
    let (mut pause, mut seen) = (FIRST_PAUSE, None);
    loop {
        // A stream that never yields counts as a failure too.
        match tokio::time::timeout(patience.saturating_sub(began.elapsed()), ask()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(instead)) => seen = Some(instead),
            Err(_) => {}
        }
        if began.elapsed() >= patience {
            let seen = seen.map_or_else(|| "no answer".to_owned(), |seen| format!("{seen:#?}"));
            panic!("{caller}: not within {patience:?}: {what}; last seen: {seen}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn comes_within<F: Future>(
    patience: Duration,
    caller: &Location<'_>,
    what: &str,
    future: F,
) -> F::Output {
    match tokio::time::timeout(patience, future).await {
        Ok(output) => output,
        Err(_) => panic!("{caller}: not within {patience:?}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn what_comes_is_waited_for() {
        let mut asked = 0;
        let found = eventually("the third answer", async || {
            asked += 1;
            if asked == 3 { Ok("here") } else { Err(asked) }
        });
        assert_eq!(found.await, "here");
        assert_eq!(within("a number", async { 7 }).await, 7);
    }

    #[tokio::test]
    #[should_panic(expected = ": not within 30ms: the moon is full; last seen: \"a crescent\"")]
    async fn what_does_not_come_is_told_with_what_was_seen() {
        let ask = async || Err::<(), _>("a crescent");
        seen_within(SHORT, &here(), "the moon is full", ask).await;
    }

    #[tokio::test]
    #[should_panic(expected = "an echo; last seen: no answer")]
    async fn a_question_that_is_never_answered_ends() {
        let ask = async || std::future::pending::<Result<(), ()>>().await;
        seen_within(SHORT, &here(), "an echo", ask).await;
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: a guest")]
    async fn a_wait_ends() {
        comes_within(SHORT, &here(), "a guest", std::future::pending::<()>()).await;
    }

    #[test]
    fn patience_is_scaled() {
        assert_eq!((scaled(None), scaled(Some("2"))), (PATIENCE, PATIENCE * 2));
        assert_eq!(scaled(Some("0.5")), PATIENCE / 2);
        assert!(std::panic::catch_unwind(|| scaled(Some("much"))).is_err());
    }

    #[track_caller]
    fn here() -> Location<'static> {
        *Location::caller()
    }
}
