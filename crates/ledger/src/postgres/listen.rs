//! Receives what other replicas appended.

use std::time::Duration;

use slipway_model::Timestamp;
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;

use crate::store::Remote;

pub(super) async fn listen(mut listener: PgListener, owner: String, sender: mpsc::Sender<Remote>) {
    loop {
        let received = tokio::select! {
            received = listener.try_recv() => received,
            () = sender.closed() => return,
        };
        let messages = match received {
            Ok(Some(notification)) => told(notification.payload(), &owner),
            // The connection was lost and made again: it is not known what was missed.
            Ok(None) => vec![Remote::Resync],
            Err(error) => {
                tracing::warn!(%error, "cannot listen to other replicas");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = sender.closed() => return,
                }
                vec![Remote::Resync]
            }
        };
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Lines of a notification: the sender; the earliest due time, in microseconds, of what it left for others to claim;
/// then `kind id seq` of each aggregate. Our own notifications, and those that we do not understand, are ignored.
fn told(payload: &str, owner: &str) -> Vec<Remote> {
    let mut lines = payload.lines();
    if lines.next().is_none_or(|from| from == owner) {
        return Vec::new();
    }
    let due = lines
        .next()
        .and_then(|due| due.parse().ok())
        .map(|due| Remote::Due(Timestamp::from_micros(due)));
    let commits = lines.filter_map(|line| {
        let mut words = line.split(' ');
        let (kind, id, seq) = (words.next()?, words.next()?, words.next()?);
        Some(Remote::Committed {
            kind: kind.to_owned(),
            id: id.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    });
    commits.chain(due).collect()
}

#[cfg(test)]
mod tests {
    use super::told;
    use crate::store::Remote;

    #[test]
    fn notifications_of_others_are_read() {
        let payload = "web-1/x\n1700000000000000\nbuild b-1 3\nchange c-1 1";
        assert!(told(payload, "web-1/x").is_empty());
        let messages = told(payload, "web-2/y");
        assert!(matches!(&messages[..], [
            Remote::Committed { seq: 3, .. },
            Remote::Committed { seq: 1, .. },
            Remote::Due(at),
        ] if at.as_micros() == 1_700_000_000_000_000));
        assert_eq!(told("a\n\nbuild b-1 3", "b").len(), 1);
        assert!(told("rubbish", "b").is_empty());
    }
}
