//! Bodies stored separately from events, by their hash.

use futures::future::join_all;
use pretty_assertions::assert_eq;
use slipway_ledger::{LedgerError, MAX_CONTENT_BYTES};
use slipway_model::ContentHash;

use crate::support::Database;

conformance! {
    what_is_kept_is_found_by_its_hash,
    the_same_content_is_kept_once,
    large_contents_are_refused,
    a_changed_content_is_never_given_out,
}

async fn what_is_kept_is_found_by_its_hash(database: Database) {
    let ledger = database.open().await;
    // Any bytes, none, and as many as are allowed.
    let bodies: [Vec<u8>; 4] = [
        b"--- a\n+++ b\n".to_vec(),
        (0..=255).collect(),
        Vec::new(),
        vec![b'x'; MAX_CONTENT_BYTES],
    ];
    for body in &bodies {
        let hash = ledger.put_content(body).await.unwrap();
        assert_eq!(hash, ContentHash::of(body));
        assert_eq!(ledger.content(&hash).await.unwrap().as_ref(), Some(body));
    }
    assert_eq!(ledger.content(&ContentHash::of("else")).await.unwrap(), None);
    ledger.close().await;
    // Another replica, and the next start, find the same.
    let ledger = database.open().await;
    for body in &bodies {
        assert_eq!(
            ledger.content(&ContentHash::of(body)).await.unwrap().as_ref(),
            Some(body)
        );
    }
}

async fn the_same_content_is_kept_once(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let tasks = (0..16).map(|n| {
        let ledger = replicas[n % 2].clone();
        tokio::spawn(async move { ledger.put_content(b"the same").await })
    });
    for hash in join_all(tasks).await {
        assert_eq!(hash.unwrap().unwrap(), ContentHash::of("the same"));
    }
    replicas[0].put_content(b"another").await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM contents").await, 2);
}

async fn large_contents_are_refused(database: Database) {
    let ledger = database.open().await;
    let error = ledger
        .put_content(&vec![0; MAX_CONTENT_BYTES + 1])
        .await
        .unwrap_err();
    assert!(
        matches!(error, LedgerError::ContentTooLarge { size, limit } if size == limit + 1),
        "{error}"
    );
    assert!(!error.is_transient());
    assert_eq!(database.count("SELECT count(*) FROM contents").await, 0);
}

async fn a_changed_content_is_never_given_out(database: Database) {
    let ledger = database.open().await;
    let hash = ledger.put_content(b"replicas: 2").await.unwrap();
    let other = ledger.put_content(b"untouched").await.unwrap();
    let changed = if database.is_postgres() {
        r"UPDATE contents SET body = '\x00' WHERE body = convert_to('replicas: 2', 'UTF8')"
    } else {
        "UPDATE contents SET body = x'00' WHERE body = CAST('replicas: 2' AS BLOB)"
    };
    database.meddle(changed).await;
    let error = ledger.content(&hash).await.unwrap_err();
    assert!(
        matches!(&error, LedgerError::ContentChanged { hash: named } if *named == hash),
        "{error}"
    );
    assert!(!error.is_transient() && error.to_string().contains(hash.as_str()));
    assert_eq!(ledger.content(&other).await.unwrap().unwrap(), b"untouched");
}
