//! The database goes away and comes back in the middle.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use pretty_assertions::assert_eq;
use slipway_ledger::{ExecuteError, Ledger, LedgerConfig};
use slipway_testbed::{eventually, holds};

use crate::support::{Command, Hands, Job, id, meta, record, start, started, until};

/// Every append that was answered is there once; one whose answer was lost is there once or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_crash_of_the_database() {
    let server = slipway_testbed::Postgres::start().await.unwrap();
    let url = server.create_database().await.unwrap();
    let ledger = Ledger::open(LedgerConfig::new(url)).await.unwrap();
    let (running, stop) = start(&ledger, &Hands::quick());
    let (done, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (ledger, done, total) = (ledger.clone(), Arc::clone(&done), Arc::clone(&total));
            tokio::spawn(async move {
                let (id, mut sure, mut unsure) = (id(&format!("job-{n}")), 0, 0);
                while !done.load(Ordering::SeqCst) {
                    match ledger.execute::<Job>(&id, || Command::Add(1), &meta()).await {
                        Ok(_) => sure += 1,
                        Err(ExecuteError::Ledger(error)) if error.is_transient() => unsure += 1,
                        Err(error) => panic!("{error}"),
                    }
                    total.fetch_add(1, Ordering::SeqCst);
                }
                (id, sure, unsure)
            })
        })
        .collect();
    for _ in 0..3 {
        let before = total.load(Ordering::SeqCst);
        eventually("they write", async || {
            holds(total.load(Ordering::SeqCst), |seen| *seen > before + 50)
        })
        .await;
        server.restart().await.unwrap();
    }
    let before = total.load(Ordering::SeqCst);
    eventually("they write again", async || {
        holds(total.load(Ordering::SeqCst), |seen| *seen > before + 50)
    })
    .await;
    done.store(true, Ordering::SeqCst);
    for writer in writers {
        let (id, sure, unsure) = writer.await.unwrap();
        let found = ledger.get::<Job>(&id).await.unwrap().unwrap();
        assert!(
            (sure..=sure + unsure).contains(&found.state.count),
            "{sure} + {unsure}: {}",
            found.state.count
        );
        assert_eq!(ledger.verify("job", &id).await.unwrap(), Some(Ok(found.seq)));
    }
    // The executor lives too, and so does what listens to other replicas.
    record(&ledger, &id("work"), vec![started("build", 1)]).await;
    until(&ledger, &id("work"), |state| state.finished.len() == 1).await;
    stop.cancel();
    running.drain().await;
}
