use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{From, Stores, put, sweep, take};
use crate::watch::kinds::{Kind, Watched};

fn object<K: Watched>(name: &str, uid: &str, version: &str, owner: Option<(&str, &str)>) -> K {
    let owners: Vec<Value> = owner
        .iter()
        .map(|(kind, uid)| {
            json!({"apiVersion": "apps/v1", "kind": kind, "name": "shop", "uid": uid, "controller": true})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "a", "uid": uid, "resourceVersion": version, "ownerReferences": owners,
        },
    }))
    .unwrap()
}

/// Whom it concerned.
type Told = Vec<(Kind, String)>;

fn puts<K: Watched>(stores: &mut Stores, object: K, from: From, round: u64) -> Told {
    let mut told = Vec::new();
    put(stores, object, from, round, &mut |kind, _, name| {
        told.push((kind, name.to_owned()));
    });
    told
}

fn shop() -> Told {
    vec![(Kind::Deployment, "shop".to_owned())]
}

#[test]
fn only_those_concerned_are_told_and_a_list_without_news_tells_nobody() {
    let mut stores = Stores::default();
    let deployment = || object::<Deployment>("shop", "d", "1", None);
    let set = |version| object::<ReplicaSet>("shop-1", "r", version, Some(("Deployment", "d")));
    let pod = || object::<k8s_openapi::api::core::v1::Pod>("shop-1-x", "p", "3", Some(("ReplicaSet", "r")));
    assert_eq!(puts(&mut stores, deployment(), From::List, 1), shop());
    assert_eq!(
        puts(&mut stores, pod(), From::List, 1),
        [],
        "whose it is is not known yet"
    );
    assert_eq!(puts(&mut stores, set("2"), From::List, 1), shop());
    let observed = stores.observed(Kind::Deployment, "a", "shop");
    assert_eq!((observed.replica_sets.len(), observed.pods.len()), (1, 1));
    assert_eq!(
        puts(&mut stores, deployment(), From::List, 2),
        [],
        "it is what was held"
    );
    assert_eq!(puts(&mut stores, set("4"), From::Watch, 2), shop());
}

#[test]
fn what_a_list_does_not_show_is_gone_and_that_is_told() {
    let mut stores = Stores::default();
    puts(
        &mut stores,
        object::<Deployment>("shop", "d", "1", None),
        From::List,
        1,
    );
    puts(
        &mut stores,
        object::<Deployment>("other", "o", "2", None),
        From::List,
        1,
    );
    puts(
        &mut stores,
        object::<Deployment>("other", "o", "2", None),
        From::List,
        2,
    );
    let mut told = Vec::new();
    sweep::<Deployment>(&mut stores, None, 2, &mut |kind, _, name| {
        told.push((kind, name.to_owned()));
    });
    assert_eq!(told, shop());
    assert!(stores.observed(Kind::Deployment, "a", "shop").workload.is_none());
    assert!(stores.observed(Kind::Deployment, "a", "other").workload.is_some());
}

#[test]
fn an_event_that_a_list_overtook_changes_nothing_but_a_list_always_counts() {
    let mut stores = Stores::default();
    let version = |stores: &Stores| {
        let live = stores.observed(Kind::Deployment, "a", "shop").workload.unwrap();
        live.metadata().resource_version.clone().unwrap()
    };
    puts(
        &mut stores,
        object::<Deployment>("shop", "d", "100", None),
        From::List,
        1,
    );
    assert_eq!(
        puts(
            &mut stores,
            object::<Deployment>("shop", "d", "99", None),
            From::Watch,
            1
        ),
        []
    );
    assert_eq!(version(&stores), "100");
    // After a restore from a backup, what the API server has is older, and correct.
    assert_eq!(
        puts(
            &mut stores,
            object::<Deployment>("shop", "d", "90", None),
            From::List,
            2
        ),
        shop()
    );
    assert_eq!(version(&stores), "90");
}

#[test]
fn the_end_of_a_predecessor_does_not_take_the_successor_with_it() {
    let mut stores = Stores::default();
    puts(
        &mut stores,
        object::<Deployment>("shop", "new", "5", None),
        From::Watch,
        1,
    );
    let mut told = 0;
    take(
        &mut stores,
        &object::<Deployment>("shop", "old", "6", None),
        &mut |_, _, _| told += 1,
    );
    assert_eq!(told, 0);
    assert!(stores.observed(Kind::Deployment, "a", "shop").workload.is_some());
}

#[test]
fn an_orphan_belongs_to_nobody_any_more() {
    let mut stores = Stores::default();
    puts(
        &mut stores,
        object::<Deployment>("shop", "d", "1", None),
        From::List,
        1,
    );
    let owned = object::<ReplicaSet>("shop-1", "r", "2", Some(("Deployment", "d")));
    puts(&mut stores, owned, From::List, 1);
    let orphan = object::<ReplicaSet>("shop-1", "r", "3", None);
    assert_eq!(puts(&mut stores, orphan, From::Watch, 1), shop());
    assert!(
        stores
            .observed(Kind::Deployment, "a", "shop")
            .replica_sets
            .is_empty()
    );
}
