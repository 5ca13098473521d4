use super::*;
use crate::api::schema::ListShape;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn definition(plural: &str, kind: &str) -> Value {
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                 "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v1beta1", "served": false, "storage": false,
                 "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    default(&mut definition);
    definition
}

fn schema() -> Node {
    Node::root(&json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 5},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "port": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}},
            "plain": {"type": "array", "items": {"type": "string"}}}},
        "status": {"type": "object", "properties": {}}}}))
}

#[test]
fn a_definition_makes_a_resource_of_each_version() {
    let made = resources(&definition("things", "Thing"));
    assert_eq!(made.len(), 2);
    let (v1, beta) = (made[0], made[1]);
    assert_eq!((v1.group, v1.version, v1.kind), ("example.com", "v1", "Thing"));
    assert_eq!(
        (v1.singular, v1.custom.unwrap().list_kind),
        ("thing", "ThingList")
    );
    assert!(v1.status && v1.scale && !beta.status && !beta.scale);
    assert!(v1.custom.unwrap().served && !beta.custom.unwrap().served);
    assert_eq!(v1.storage(), beta.storage());
    assert_eq!(beta.custom.unwrap().stored_as, "example.com/v1");
    assert_eq!(v1.custom.unwrap().scale.as_ref().unwrap().spec, ["spec", "size"]);
}

#[test]
fn definitions_are_checked() {
    let right = definition("things", "Thing");
    assert_eq!(check(&right, None), []);
    let change = |change: fn(&mut Value)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        let fields: Vec<String> = check(&wrong, Some(&right)).into_iter().map(|c| c.field).collect();
        fields.join(" ")
    };
    assert_eq!(
        change(|d| d["metadata"]["name"] = json!("others.example.com")),
        "metadata.name"
    );
    assert_eq!(
        change(|d| d["spec"]["versions"][1]["storage"] = json!(true)),
        "spec.versions"
    );
    assert_eq!(
        change(|d| d["spec"]["versions"][0]["schema"] = json!({})),
        "spec.versions[0].schema.openAPIV3Schema"
    );
    assert_eq!(change(|d| d["spec"]["scope"] = json!("Cluster")), "spec.scope");
    assert_eq!(
        change(|d| d["spec"]["conversion"] = json!({"strategy": "Webhook"})),
        "spec.conversion.strategy"
    );
}

#[test]
fn names_are_given_once() {
    let mut first = definition("things", "Thing");
    settle(&mut first, &[], NOW);
    assert!(is_established(&first));
    assert_eq!(first["status"]["acceptedNames"]["listKind"], "ThingList");
    assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
    let settled = first.clone();
    let later = Timestamp::from_second(100).unwrap();
    settle(&mut first, &[&settled], later);
    assert_eq!(first, settled, "saying it again changes nothing");

    let mut second = definition("others", "Thing");
    settle(&mut second, &[&first], NOW);
    assert!(!is_established(&second));
    let refused = object::condition(&second, "NamesAccepted").unwrap();
    assert_eq!(
        (&refused["status"], &refused["reason"]),
        (&json!("False"), &json!("ListKindConflict"))
    );
    assert_eq!(refused["message"], "\"ThingList\" is already in use");
}

#[test]
fn what_the_schema_does_not_have_is_pruned() {
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "labels": {}},
        "extra": 1, "spec": {"size": 1, "sice": 2, "free": {"any": {"thing": [1]}}, "labels": {"a": "b"},
            "parts": [{"name": "x", "nome": "y"}]}});
    let gone = schema().prune(&mut object);
    assert_eq!(gone, ["extra", "spec.parts[0].nome", "spec.sice"]);
    assert_eq!(
        object["spec"],
        json!({"size": 1, "free": {"any": {"thing": [1]}}, "labels": {"a": "b"}, "parts": [{"name": "x"}]})
    );
}

#[test]
fn types_and_bounds_are_checked() {
    let table = [
        (json!({"size": 1}), ""),
        (
            json!({"size": "1"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"size": 1.5}),
            "spec.size: Invalid value: \"number\": spec.size in body must be of type integer: \"number\"",
        ),
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": 0}),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            json!({"size": 6}),
            "spec.size: Invalid value: 6: spec.size in body should be less than or equal to 5",
        ),
        (
            json!({"size": 1, "mode": "c"}),
            "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (json!({"size": 1, "port": "http"}), ""),
        (json!({"size": 1, "port": 80, "note": null}), ""),
        (
            json!({"size": 1, "port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"size": 1, "labels": {"a": 1}}),
            "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
        ),
    ];
    for (spec, expected) in table {
        let causes = schema().check(&json!({"metadata": {}, "spec": spec}));
        let text: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        assert_eq!(text.join("; "), expected, "{spec}");
    }
}

#[test]
fn defaults_are_filled_in_where_the_parent_is() {
    let mut object = json!({"spec": {"size": 1}});
    schema().fill(&mut object);
    assert_eq!(object["spec"]["mode"], "a");
    let mut bare = json!({});
    schema().fill(&mut bare);
    assert_eq!(bare, json!({}));
}

#[test]
fn lists_merge_as_the_schema_says() {
    let schema = schema();
    assert_eq!(schema.list_shape(&["spec", "plain"]), ListShape::Atomic);
    assert_eq!(schema.list_shape(&["spec", "parts"]), ListShape::Keyed(&["name"]));
    assert_eq!(schema.list_shape(&["spec", "parts", "tags"]), ListShape::Set);
    assert_eq!(
        schema.list_shape(&["spec", "free", "containers"]),
        ListShape::Atomic
    );
    assert_eq!(schema.list_shape(&["metadata", "finalizers"]), ListShape::Set);
    assert!(schema.is_atomic_map(&["spec", "whole"]) && !schema.is_atomic_map(&["spec", "labels"]));
}
