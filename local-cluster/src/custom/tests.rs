use super::*;

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
