//! What gitops-svc decides: pure functions from state to decision, without clock or I/O.
//!
//! [`change`] is the life of a change and [`branch`] who pushes to a branch: the two deciders. [`pull_request`] is how
//! a change is made by one; [`message`] the commit's message; [`layout`] where images are, and [`images`] the edits
//! that write them there; [`history`] what commits by others mean; [`remote`] what git's and a forge's answers mean;
//! [`rendering`] whether a change may be committed whose folder was rendered; [`reason`] the codes of all reasons.

pub mod branch;
pub mod change;
pub mod history;
pub mod images;
pub mod layout;
pub mod message;
pub mod pull_request;
pub mod reason;
pub mod remote;
pub mod rendering;
