//! CustomResourceDefinitions: the resources they define, the names they are given, and their validation.
//!
//! After `k8s.io/apiextensions-apiserver`. Resources are leaked, one per version and change of a spec: this is a
//! development tool, and this way everything else can keep `&'static Resource`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cause::Cause;
use crate::columns::columns;
use crate::object::{self, at, list, text};
use crate::resources::{Custom, Resource, Scale};
use crate::schema::structural::Node;

/// Keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a definition says about the scale subresource.
fn scale(subresource: &Value) -> Option<Scale> {
    let path = |field: &str| -> Vec<String> {
        let path = text(subresource, &[field]).trim_start_matches('.');
        path.split('.')
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect()
    };
    subresource.is_object().then(|| Scale {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn leak_all(values: &[Value]) -> &'static [&'static str] {
    let values: Vec<&'static str> = values.iter().filter_map(Value::as_str).map(leak).collect();
    Box::leak(values.into_boxed_slice())
}

/// The resources of a definition, one per version.
pub(crate) fn resources(definition: &Value) -> Vec<&'static Resource> {
    let spec = &definition["spec"];
    let (group, names) = (leak(text(spec, &["group"])), &spec["names"]);
    let name = leak(object::name(definition));
    let (kind, plural) = (leak(text(names, &["kind"])), leak(text(names, &["plural"])));
    let (singular, list_kind) = (leak(text(names, &["singular"])), leak(text(names, &["listKind"])));
    let (short_names, categories) = (
        leak_all(list(names, &["shortNames"])),
        leak_all(list(names, &["categories"])),
    );
    let stored = list(spec, &["versions"]).iter().find(|v| v["storage"] == true);
    let stored_as = format!("{group}/{}", stored.map_or("", |v| text(v, &["name"])));
    let one = |version: &Value| -> &'static Resource {
        let custom = Custom {
            name,
            list_kind,
            served: version["served"] == true,
            stored_as: stored_as.clone(),
            schema: Node::root(at(version, &["schema", "openAPIV3Schema"])),
            scale: scale(at(version, &["subresources", "scale"])),
            columns: columns(version),
        };
        Box::leak(Box::new(Resource {
            group,
            version: leak(text(version, &["name"])),
            kind,
            plural,
            singular,
            short_names,
            categories,
            namespaced: text(spec, &["scope"]) == "Namespaced",
            status: at(version, &["subresources", "status"]).is_object(),
            scale: custom.scale.is_some(),
            extra: &[],
            custom: Some(Box::leak(Box::new(custom))),
        }))
    };
    list(spec, &["versions"]).iter().map(one).collect()
}

/// Fills in the names that may be omitted (`apiextensions/v1/defaults.go`).
pub(crate) fn default(definition: &mut Value) {
    let kind = text(definition, &["spec", "names", "kind"]).to_owned();
    let spec = object::entry(definition, "spec");
    if !spec.contains_key("scope") {
        spec.insert("scope".to_owned(), json!("Namespaced"));
    }
    if !spec.contains_key("conversion") {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let names = object::as_map(spec.entry("names").or_insert_with(|| json!({})));
    for (field, value) in [
        ("singular", kind.to_lowercase()),
        ("listKind", format!("{kind}List")),
    ] {
        if names.get(field).and_then(Value::as_str).unwrap_or("").is_empty() {
            names.insert(field.to_owned(), Value::from(value));
        }
    }
}

/// What is wrong with a definition (`pkg/apis/apiextensions/validation`).
pub(crate) fn check(definition: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut cause = |reason, field: &str, message: String| {
        causes.push(Cause {
            reason,
            message,
            field: field.to_owned(),
        });
    };
    let spec = &definition["spec"];
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    for (field, value) in [
        ("spec.group", group),
        ("spec.names.plural", plural),
        ("spec.names.kind", text(spec, &["names", "kind"])),
    ] {
        if value.is_empty() {
            cause("FieldValueRequired", field, "Required value".to_owned());
        }
    }
    if !group.is_empty() && !group.contains('.') {
        let why = format!("Invalid value: \"{group}\": should be a domain with at least one dot");
        cause("FieldValueInvalid", "spec.group", why);
    }
    let name = object::name(definition);
    if name != format!("{plural}.{group}") {
        let why = format!("Invalid value: \"{name}\": must be spec.names.plural+\".\"+spec.group");
        cause("FieldValueInvalid", "metadata.name", why);
    }
    let scope = text(spec, &["scope"]);
    if !matches!(scope, "Namespaced" | "Cluster") {
        let why = format!("Unsupported value: \"{scope}\": supported values: \"Cluster\", \"Namespaced\"");
        cause("FieldValueNotSupported", "spec.scope", why);
    }
    if spec["preserveUnknownFields"] == true {
        let why = "Invalid value: true: must be false in order to use defaults in the schema".to_owned();
        cause("FieldValueInvalid", "spec.preserveUnknownFields", why);
    }
    let strategy = text(spec, &["conversion", "strategy"]);
    if strategy != "None" {
        let why = format!(
            "Unsupported value: \"{strategy}\": supported values: \"None\" (local-cluster calls no webhooks)"
        );
        cause("FieldValueNotSupported", "spec.conversion.strategy", why);
    }
    let versions = list(spec, &["versions"]);
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "Invalid value: must have exactly one version marked as storage version".to_owned();
        cause("FieldValueInvalid", "spec.versions", why);
    }
    for (index, version) in versions.iter().enumerate() {
        if !at(version, &["schema", "openAPIV3Schema"]).is_object() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            cause(
                "FieldValueRequired",
                &field,
                "Required value: schemas are required".to_owned(),
            );
        }
    }
    let Some(old) = old else { return causes };
    for path in [
        &["group"][..],
        &["scope"],
        &["names", "plural"],
        &["names", "kind"],
    ] {
        let (before, now) = (at(&old["spec"], path), at(spec, path));
        if before != now {
            let field = format!("spec.{}", path.join("."));
            cause(
                "FieldValueInvalid",
                &field,
                format!("Invalid value: {now}: field is immutable"),
            );
        }
    }
    causes
}

/// The name in `definition` that another definition of the group already has, with the condition's reason; the last one
/// if there are several, like the real controller.
fn conflict(definition: &Value, others: &[&Value]) -> Option<(&'static str, String)> {
    let spec = &definition["spec"];
    let same_group = others.iter().filter(|other| {
        object::name(other) != object::name(definition) && other["spec"]["group"] == spec["group"]
    });
    let accepted: Vec<&Value> = same_group
        .map(|other| &other["status"]["acceptedNames"])
        .collect();
    let all_of = |names: &Value, fields: &[&str]| -> Vec<String> {
        let values = fields.iter().flat_map(|field| match &names[*field] {
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        });
        values
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let taken = |fields: &[&str]| -> Vec<String> {
        accepted.iter().flat_map(|names| all_of(names, fields)).collect()
    };
    // Plurals, singulars and short names share one namespace, kinds have another.
    let (resources, kinds) = (
        taken(&["plural", "singular", "shortNames"]),
        taken(&["kind", "listKind"]),
    );
    [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ]
    .into_iter()
    .filter_map(|(field, reason, taken)| {
        let name = all_of(&spec["names"], &[field])
            .into_iter()
            .find(|name| taken.contains(name))?;
        Some((reason, format!("\"{name}\" is already in use")))
    })
    .next_back()
}

/// Gives the definition its names, unless another definition has them: `status.acceptedNames`, `storedVersions` and the
/// conditions NamesAccepted and Established (`pkg/controller/status/naming_controller.go`). Says the same again when
/// nothing changed.
pub(crate) fn settle(definition: &mut Value, others: &[&Value], now: Timestamp) {
    let conflict = conflict(definition, others);
    let was_established = is_established(definition);
    let accepted = conflict.is_none();
    if accepted {
        definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
    } else if !definition["status"]["acceptedNames"].is_object() {
        definition["status"]["acceptedNames"] = json!({"plural": "", "kind": ""});
    }
    let (reason, message) = conflict.unwrap_or_else(|| ("NoConflicts", "no conflicts found".to_owned()));
    let mut conditions = vec![
        json!({"type": "NamesAccepted", "status": if accepted { "True" } else { "False" },
        "reason": reason, "message": message}),
    ];
    conditions.push(if accepted || was_established {
        json!({"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
               "message": "the initial names have been accepted"})
    } else {
        json!({"type": "Established", "status": "False", "reason": "NotAccepted",
               "message": "not all names are accepted"})
    });
    if object::is_deleting(definition) {
        conditions.push(json!({"type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"}));
    }
    for condition in &mut conditions {
        let kind = text(condition, &["type"]).to_owned();
        let before = object::condition(definition, &kind);
        let time = before
            .filter(|before| before["status"] == condition["status"])
            .map(|before| before["lastTransitionTime"].clone());
        condition["lastTransitionTime"] = time.unwrap_or_else(|| Value::from(object::stamp(now)));
    }
    let stored = list(&definition["spec"], &["versions"])
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| v["name"].clone());
    let mut versions = list(definition, &["status", "storedVersions"]).to_vec();
    if let Some(stored) = stored
        && !versions.contains(&stored)
    {
        versions.push(stored);
    }
    definition["status"]["storedVersions"] = Value::Array(versions);
    definition["status"]["conditions"] = Value::Array(conditions);
}

pub(crate) fn is_established(definition: &Value) -> bool {
    object::condition(definition, "Established").is_some_and(|c| c["status"] == "True")
}

#[cfg(test)]
mod tests;
