//! One suite over both databases: everything the ledger promises, on real PostgreSQL and on SQLite files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// Runs each test on both databases, and those behind `postgres:` on that one alone.
macro_rules! conformance {
    ($($name:ident),* $(,)? $(; postgres: $($only:ident),* $(,)?)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::Database::postgres().await).await;
            })*
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $only() {
                super::$only($crate::support::Database::postgres().await).await;
            })*)?
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::Database::sqlite()).await;
            })*
        }
    };
}

mod appends;
mod contents;
mod evolution;
mod executor;
mod feeds;
mod outage;
mod polls;
mod relays;
mod requests;
mod support;
