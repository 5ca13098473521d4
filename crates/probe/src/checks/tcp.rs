//! TCP checks: a connection that is accepted.

use slipway_check::{Remote, TcpCheck};
use slipway_model::Fault;

use super::Attempt;
use crate::dial::Dialer;

/// Asks once.
pub(super) async fn ask(dialer: &Dialer, check: &TcpCheck) -> Attempt {
    let what = format!("tcp {}", check.address);
    let remote = match Remote::parse(&check.address) {
        Ok(remote) => remote,
        Err(words) => return Attempt::Never(format!("{what}: {words}")),
    };
    match dialer.tcp(&remote, check.patience.timeout).await {
        Ok(_) => Attempt::Passed(format!("{what}: connected")),
        Err(Fault::Transient { error: words, .. }) => Attempt::NotYet(format!("{what}: {words}")),
        Err(Fault::Permanent(words)) => Attempt::Never(format!("{what}: {words}")),
    }
}
