//! Rollback: what is put back, who may ask for it, and when there is nothing to go back to.

use pretty_assertions::assert_eq;
use slipway_proto::deploy::v1::{
    DeployRequest, Deployment, RollbackRequest,
    deployment::{Status, Step},
};
use slipway_server::ErrorView;
use tonic::{Code, Status as Refusal};

use crate::{
    Bench,
    api::{REVERTED, end_of},
    request, serve, serve_with,
};

fn newest() -> RollbackRequest {
    RollbackRequest {
        service: "shop".to_owned(),
        environment: "dev".to_owned(),
        reason: "it is slow\nand worse".to_owned(),
        ..RollbackRequest::default()
    }
}

fn of(id: &str) -> RollbackRequest {
    RollbackRequest {
        deployment_id: id.to_owned(),
        ..RollbackRequest::default()
    }
}

/// Deploys to dev, to the end.
async fn deployed(bench: &Bench) -> Deployment {
    let mut client = bench.client("alice");
    let started = client
        .deploy(request("dev"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    let end = end_of(&mut client, &started.id).await;
    assert_eq!(end.status(), Status::Succeeded);
    end
}

async fn roll_back(bench: &Bench, message: RollbackRequest) -> Result<Deployment, Refusal> {
    let answer = bench.client("root").rollback(message).await?;
    Ok(answer.into_inner().deployment.unwrap())
}

#[track_caller]
fn refused(outcome: Result<Deployment, Refusal>, reason: &str, words: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert_eq!(ErrorView::of(&error).reason, reason, "{error}");
    assert!(error.message().contains(words), "{words:?} in {error}");
}

#[tokio::test]
async fn the_change_is_reverted_and_what_ran_before_is_verified() {
    let bench = serve().await;
    let executor = bench.execute();
    let lost = deployed(&bench).await;
    let message = RollbackRequest {
        request_id: "back-1".to_owned(),
        ..newest()
    };
    let back = roll_back(&bench, message.clone()).await.unwrap();
    assert_eq!(
        (back.rolls_back.as_str(), back.step()),
        (lost.id.as_str(), Step::Revert)
    );
    assert!(back.images[0].digest.contains("cdcd"), "the image of before");
    assert!(back.epoch > lost.epoch);
    let end = end_of(&mut bench.client("root"), &back.id).await;
    assert_eq!(
        (end.status(), end.commit.as_str()),
        (Status::Succeeded, REVERTED),
        "{end:?}"
    );
    assert_eq!(end.checks.len(), 1, "it is verified like any other");
    assert_eq!(
        *bench.history.orders.lock().await,
        ["chg-1 it is slow token/root"]
    );

    // The same again is the same one, and has no second revert.
    let again = roll_back(&bench, message.clone()).await.unwrap();
    assert_eq!(again.id, back.id);
    assert_eq!(bench.history.orders.lock().await.len(), 1);
    let other = RollbackRequest {
        reason: "another".to_owned(),
        ..message
    };
    assert_eq!(
        roll_back(&bench, other).await.unwrap_err().code(),
        Code::AlreadyExists
    );

    refused(
        roll_back(&bench, newest()).await,
        "NOTHING_TO_ROLL_BACK_TO",
        "was put back already",
    );
    refused(roll_back(&bench, of(&lost.id)).await, "NOT_THE_LAST", &back.id);
    bench.shutdown.cancel();
    executor.drain().await;
}

#[tokio::test]
async fn it_takes_the_role() {
    let bench = serve().await;
    let executor = bench.execute();
    let lost = deployed(&bench).await;
    for who in ["alice", "dev", "nobody"] {
        for message in [newest(), of(&lost.id)] {
            let error = bench.client(who).rollback(message).await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied, "{who}: {error}");
        }
    }
    bench.shutdown.cancel();
    executor.drain().await;
}

#[tokio::test]
async fn what_cannot_be_put_back_is_refused_with_words() {
    let bench = serve_with(None).await;
    refused(
        roll_back(&bench, newest()).await,
        "NOTHING_TO_ROLL_BACK_TO",
        "nothing of shop was deployed to dev",
    );
    let error = roll_back(&bench, RollbackRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("deployment_id"), "{error}");
    assert_eq!(
        roll_back(&bench, of("dep-0")).await.unwrap_err().code(),
        Code::NotFound
    );

    let mut client = bench.client("alice");
    let running = client
        .deploy(request("dev"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    refused(
        roll_back(&bench, of(&running.id)).await,
        "NOT_OVER",
        "cancel it first",
    );
    let wrong = RollbackRequest {
        environment: "prod".to_owned(),
        ..of(&running.id)
    };
    let error = roll_back(&bench, wrong).await.unwrap_err();
    assert!(
        error.code() == Code::InvalidArgument && error.message().contains("environment"),
        "{error}"
    );

    let executor = bench.execute();
    end_of(&mut client, &running.id).await;
    refused(
        roll_back(&bench, newest()).await,
        "NOTHING_TO_ROLL_BACK_TO",
        "nothing stood there before",
    );

    // Without git, the cluster has to know what ran before.
    let message = DeployRequest {
        commit: String::new(),
        ..request("local")
    };
    let set = client
        .deploy(message)
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    end_of(&mut client, &set.id).await;
    refused(
        roll_back(&bench, of(&set.id)).await,
        "NOTHING_TO_ROLL_BACK_TO",
        "no version of bench/local/Deployment/shop",
    );
    bench.shutdown.cancel();
    executor.drain().await;
}
