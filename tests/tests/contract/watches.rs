//! What every watch and every stream of events does in addition to the table: it begins with what exists, resumes after
//! what was seen, and ends when nothing more can come.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use slipway_tests::within;

use crate::{
    call::{Answers, Api, method, methods, name},
    scene::{LISTED, Noun, OF_ONE, ROOT, Scene, WATCHED, noun, nouns, scene},
};

/// The correlation id of the streamed events.
const STREAMED: &str = "streamed";
/// A watch that is silent for this long has nothing to say.
const SILENCE: Duration = Duration::from_secs(2);

/// Every watch has a kind of resource here, and every kind its watch.
#[test]
fn no_watch_is_left_out() {
    let watches: BTreeSet<String> = methods()
        .iter()
        .filter(|method| method.name().starts_with("Watch"))
        .map(name)
        .collect();
    let known: BTreeSet<String> = nouns().iter().map(|noun| noun.watch.to_owned()).collect();
    assert_eq!(watches, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_begin_with_what_is_and_end_when_it_is_final() {
    let (scene, api) = scene().await;
    for noun in nouns() {
        follow(&noun, &scene, &api).await;
    }
}

async fn follow(noun: &Noun, scene: &Scene, api: &Api) {
    let made = noun.create(scene, api, WATCHED, "watched").await;
    let by_id = json!({"id": made["id"]});
    let mut watch = open(api, noun, &by_id).await;
    let mut first = within("the first state", watch.next()).await.unwrap().unwrap()[noun.name].take();
    assert_eq!(first["id"], made["id"], "{}", noun.watch);
    assert!(
        etag(&first) >= etag(&made),
        "{}: what it was when it began, or later",
        noun.watch
    );
    if !noun.ends_itself {
        // It gets as far as it can without any further action.
        while let Ok(next) = tokio::time::timeout(SILENCE, watch.next()).await {
            first = next.unwrap().unwrap()[noun.name].take();
        }
        let now = api.ok(ROOT, noun.get, &by_id).await[noun.name].take();
        assert_eq!(timeless(&first), timeless(&now), "{}", noun.watch);
        // Nothing happens, so nothing is reported, here and to a caller that has seen it already.
        let mut resumed = open(api, noun, &resuming(noun, &by_id, &first)).await;
        let said = tokio::time::timeout(SILENCE, watch.next()).await;
        assert!(said.is_err(), "{}: {said:?}, after {first}", noun.watch);
        assert!(
            tokio::time::timeout(SILENCE, resumed.next()).await.is_err(),
            "{}",
            noun.watch
        );
        api.ok(ROOT, noun.cancel, &by_id).await;
        let rest = within("the end of a resumed watch", resumed.rest()).await;
        assert!(etag(&rest[0][noun.name]) > etag(&first), "{}", noun.watch);
    }
    let rest = within("the end of a watch", watch.rest()).await;
    let mut states = vec![first];
    states.extend(rest.into_iter().map(|mut state| state[noun.name].take()));
    let etags: Vec<u64> = states.iter().map(etag).collect();
    assert!(
        etags.is_sorted_by(|one, other| one < other),
        "{}: {etags:?}",
        noun.watch
    );

    let now = api.ok(ROOT, noun.get, &by_id).await[noun.name].take();
    let last = states.last().unwrap();
    assert_eq!(*last, now, "{}: the last state is the final one", noun.watch);
    assert!(!now["end_time"].is_null(), "{now}");

    // For what is over: one state and the end or, for a caller that has seen it, only the end.
    let mut again = open(api, noun, &by_id).await;
    let again = within("the end of a watch of what is over", again.rest()).await;
    assert_eq!(again.len(), 1, "{}", noun.watch);
    assert_eq!(again[0][noun.name], now);
    let mut none = open(api, noun, &resuming(noun, &by_id, &now)).await;
    assert!(
        within("the end of a watch of what is over and seen", none.rest())
            .await
            .is_empty(),
        "{}",
        noun.watch
    );
    let mut before = now.clone();
    before["etag"] = json!((etag(&now) - 1).to_string());
    let mut one = open(api, noun, &resuming(noun, &by_id, &before)).await;
    assert_eq!(
        within("the last state", one.rest()).await.len(),
        1,
        "{}",
        noun.watch
    );
}

async fn open(api: &Api, noun: &Noun, request: &Value) -> Answers {
    api.stream(ROOT, noun.watch, request).await.unwrap()
}

fn resuming(noun: &Noun, by_id: &Value, seen: &Value) -> Value {
    let mut request = by_id.clone();
    // Checked here rather than skipped if there is none: every watch resumes.
    assert!(
        method(noun.watch).input().get_field_by_name("etag").is_some(),
        "{}",
        noun.watch
    );
    request["etag"] = seen["etag"].clone();
    request
}

/// A resource without the fields that grow by themselves.
fn timeless(thing: &Value) -> Value {
    let mut thing = thing.clone();
    thing.as_object_mut().unwrap().remove("time_spent");
    thing
}

fn etag(thing: &Value) -> u64 {
    thing["etag"].as_str().unwrap().parse().unwrap()
}

/// `StreamEvents` of each API.
fn streams() -> Vec<String> {
    let streams = methods()
        .into_iter()
        .filter(|method| method.input().get_field_by_name("cursor").is_some());
    streams.map(|method| name(&method)).collect()
}

/// The events until a heartbeat: all there are.
async fn events(api: &Api, person: &str, stream: &str, request: &Value) -> Vec<Value> {
    let mut answers = api.stream(person, stream, request).await.unwrap();
    within(&format!("a heartbeat of {stream}"), async {
        let mut events = Vec::new();
        loop {
            let mut message = answers.next().await.unwrap().unwrap();
            match message["event"].take() {
                Value::Null => return events,
                event => events.push(event),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_resume_and_show_what_the_caller_may_read() {
    let (scene, api) = scene().await;
    // Of each kind, something that is over, for a service that one caller may read, and for another.
    for noun in nouns() {
        for service in [LISTED[0], LISTED[1]] {
            let made = noun.create(&scene, &api, service, STREAMED).await;
            api.ok(ROOT, noun.cancel, &json!({"id": made["id"]})).await;
            noun.ended(&api, &made).await;
        }
    }
    for stream in streams() {
        streamed(&stream, &scene, &api).await;
    }
}

async fn streamed(stream: &str, scene: &Scene, api: &Api) {
    // From the beginning, those of everyone.
    let mut all = api.stream(ROOT, stream, &json!({})).await.unwrap();
    let mut first = Vec::new();
    while first.len() < 5 {
        first.push(next_event(&mut all).await);
    }
    // After one that was seen.
    let mut resumed = api
        .stream(ROOT, stream, &json!({"cursor": first[1]["cursor"]}))
        .await
        .unwrap();
    for event in &first[2..] {
        assert_eq!(next_event(&mut resumed).await, *event, "{stream}");
    }
    // Only what the caller may read, and only with one correlation id.
    let correlated = json!({"correlation_id": STREAMED});
    let (of_one, of_all) = tokio::join!(
        events(api, OF_ONE, stream, &correlated),
        events(api, ROOT, stream, &correlated)
    );
    for event in of_one.iter().chain(&of_all) {
        assert_eq!(event["correlation_id"], STREAMED, "{stream}: {event}");
    }
    let services = |events: &[Value]| -> BTreeSet<String> {
        let names = events
            .iter()
            .map(|event| event["service"].as_str().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(
        services(&of_one),
        BTreeSet::from([LISTED[0].to_owned()]),
        "{stream}"
    );
    assert_eq!(services(&of_all).len(), 2, "{stream}");
    // Only new ones, as they come.
    let noun = nouns()
        .into_iter()
        .find(|noun| noun.list.split('/').next() == stream.split('/').next() && noun.name != "release")
        // Deployments are among the events of releases, and a release does not have a correlation id.
        .unwrap_or_else(|| noun("deployment"));
    let batch = format!("live on {}", stream.split('/').next().unwrap()).replace(' ', "-");
    let request = json!({"cursor": "now", "correlation_id": batch});
    let mut live = api.stream(OF_ONE, stream, &request).await.unwrap();
    noun.create(scene, api, LISTED[1], &batch).await;
    noun.create(scene, api, LISTED[0], &batch).await;
    let event = next_event(&mut live).await;
    assert_eq!(
        (&event["service"], event["sequence"].as_str()),
        (&json!(LISTED[0]), Some("1")),
        "{stream}"
    );
}

/// The next event, skipping heartbeats.
async fn next_event(stream: &mut Answers) -> Value {
    within("an event", async {
        loop {
            let event = stream.next().await.unwrap().unwrap()["event"].take();
            if !event.is_null() {
                return event;
            }
        }
    })
    .await
}
