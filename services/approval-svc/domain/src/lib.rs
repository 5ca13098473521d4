//! What approval-svc decides: pure functions from state to decision, without clock or I/O.
//!
//! [`approval`] decides; [`policy`] says who must approve and what a decision is bound to; [`subject`] is what people
//! decide on; [`people`] maps the authors of commits to principals.

pub mod approval;
pub mod people;
pub mod policy;
pub mod subject;
