//! A client of GitHub's REST API, through octocrab; the only crate that depends on it.
//!
//! [`Client`] reads, opens, merges and closes the pull requests of one repository, with a token of its [`TokenSource`].
//! [`App`] gives the installation tokens of a GitHub App. [`Address`] is the location of a repository at GitHub or at a
//! GitHub Enterprise Server. Errors are reported as a [`Fault`](slipway_model::Fault) of an [`Error`], which says
//! whether and when it may be tried again.

mod address;
mod answer;
mod app;
mod client;
mod error;

pub use address::Address;
pub use answer::{Commit, Head, Label, PullRequest, User};
pub use app::{App, AppKey, AppSettings};
pub use client::{Client, MergeMethod, Proposal, TokenSource};
pub use error::{Error, ErrorKind};
