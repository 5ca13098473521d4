//! What every list does in addition to the table: pages, and what its caller may read.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    call::{Api, method, methods, name},
    scene::{LISTED, Noun, OF_ONE, ROOT, Scene, nouns, scene},
};

/// What is parked results from faults, not from a request, and is listed in the tests of operations.
const OF_FAULTS: &str = "OperationsService/ListParked";

/// Every list has a kind of resource here, and every kind its list.
#[test]
fn no_list_is_left_out() {
    let lists: BTreeSet<String> = methods()
        .iter()
        .filter(|method| method.input().get_field_by_name("page_token").is_some())
        .map(name)
        .filter(|name| name != OF_FAULTS)
        .collect();
    let known: BTreeSet<String> = nouns().iter().map(|noun| noun.list.to_owned()).collect();
    assert_eq!(lists, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_everything_once_page_by_page() {
    let (scene, api) = scene().await;
    for noun in nouns() {
        pages(&noun, &scene, &api).await;
    }
}

async fn pages(noun: &Noun, scene: &Scene, api: &Api) {
    let batch = format!("pages-of-{}", noun.plural);
    let mut made = Vec::new();
    for service in &LISTED[..5] {
        made.push(noun.create(scene, api, service, &batch).await["id"].clone());
    }
    // Newest first.
    made.reverse();
    let filter = json!({"labels": {"batch": batch}});
    for filter in forms(noun, &filter) {
        let first = page(api, noun, &filter, 2, "").await;
        assert_eq!(first.ids, made[..2], "{filter}");
        let second = page(api, noun, &filter, 2, &first.next).await;
        assert_eq!(second.ids, made[2..4], "{filter}");
        // A token belongs to a filter, not to a size.
        let third = page(api, noun, &filter, 500, &second.next).await;
        assert_eq!(
            (third.ids.as_slice(), third.next.as_str()),
            (&made[4..], ""),
            "{filter}"
        );
        // All fit: there is no page after them. Exactly as many as fit, too.
        for size in [0, 5, 6, 100_000] {
            let all = page(api, noun, &filter, size, "").await;
            assert_eq!(
                (all.ids.as_slice(), all.next.as_str()),
                (&made[..], ""),
                "{filter}"
            );
        }
        for other in [
            json!({"labels": {"batch": "another"}}),
            json!({"labels": {"batch": batch}, "service": "one"}),
        ] {
            let mut request = merged(&filter, &other);
            request["page_token"] = json!(first.next);
            let error = api.call(ROOT, noun.list, &request).await.unwrap_err();
            assert_eq!(
                (error.reason.as_str(), error.field.as_str()),
                ("INVALID_FIELD", "page_token"),
                "{}: {error:?}",
                noun.list
            );
        }
    }

    // What is added meanwhile is not on a later page, and does not shift anything.
    let first = page(api, noun, &filter, 2, "").await;
    let newest = noun.create(scene, api, LISTED[5], &batch).await["id"].clone();
    let second = page(api, noun, &filter, 2, &first.next).await;
    assert_eq!(second.ids, made[2..4], "{}", noun.list);
    let third = page(api, noun, &filter, 2, &second.next).await;
    assert_eq!((third.ids.as_slice(), third.next.as_str()), (&made[4..], ""));
    assert_eq!(page(api, noun, &filter, 1, "").await.ids, [newest]);
}

/// A list's filters that mean the same.
fn forms(noun: &Noun, filter: &Value) -> Vec<Value> {
    let mut forms = vec![filter.clone()];
    let repository = method(noun.list)
        .input()
        .get_field_by_name("repository")
        .is_some();
    if repository {
        forms.push(merged(filter, &json!({"repository": "platform"})));
        forms.push(merged(
            filter,
            &json!({"repository": "platform", "history": true}),
        ));
    }
    forms
}

fn merged(one: &Value, other: &Value) -> Value {
    let mut merged = one.clone();
    for (name, value) in other.as_object().unwrap() {
        merged[name] = value.clone();
    }
    merged
}

struct Page {
    ids: Vec<Value>,
    next: String,
}

async fn page(api: &Api, noun: &Noun, filter: &Value, size: i32, token: &str) -> Page {
    page_of(api, ROOT, noun, filter, size, token).await
}

async fn page_of(api: &Api, person: &str, noun: &Noun, filter: &Value, size: i32, token: &str) -> Page {
    let request = merged(filter, &json!({"page_size": size, "page_token": token}));
    let answer = api.ok(person, noun.list, &request).await;
    Page {
        ids: answer[noun.plural]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].clone())
            .collect(),
        next: answer["next_page_token"].as_str().unwrap().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_the_caller_may_read() {
    let (scene, api) = scene().await;
    for noun in nouns() {
        let batch = format!("scopes-of-{}", noun.plural);
        let mut made = Vec::new();
        for service in LISTED {
            made.push(noun.create(&scene, &api, service, &batch).await["id"].clone());
        }
        let filter = json!({"labels": {"batch": batch}});
        for filter in forms(&noun, &filter) {
            // A page may contain fewer than asked for, but the last one is known as such.
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let page = page_of(&api, OF_ONE, &noun, &filter, 2, &token).await;
                seen.extend(page.ids);
                token = page.next;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, made[..1], "{}", noun.list);
            // Asking for others by name does not show more.
            let others = merged(&filter, &json!({"service": LISTED[1]}));
            let page = page_of(&api, OF_ONE, &noun, &others, 0, "").await;
            assert!(page.ids.is_empty(), "{}", noun.list);
        }
        // Nor by id.
        for (id, may) in [(&made[0], true), (&made[1], false)] {
            let answer = api.call(OF_ONE, noun.get, &json!({"id": id})).await;
            let reason = answer.map_or_else(|error| error.reason, |_| "OK".to_owned());
            assert_eq!(
                reason,
                if may { "OK" } else { "PERMISSION_DENIED" },
                "{}",
                noun.get
            );
        }
    }
}
