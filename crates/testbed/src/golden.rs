//! The stored form of events: one file for each, which never changes once it is released.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::de::{DeserializeOwned, value::MapDeserializer};
use serde_json::Value;
use slipway_ledger::Decider;
use slipway_model::Timestamp;

/// If set, the files of the current forms are written instead of compared.
const BLESS: &str = "SLIPWAY_BLESS";

/// Compares the events of a decider with the files `tests/golden/<kind>/<name>.json` of the crate under test.
///
/// `present`: events as they are written now, by the names of their files; with `old`, at least one of each variant.
/// Each must be written as its file says, and be read from it. `old`: files of forms that are not written any more,
/// which must still be readable, and apply; what they result in is checked by separate tests, with [`recorded`]. There
/// must be no other files. With `SLIPWAY_BLESS=1` the files of `present` are written: for new events, or while a form
/// may still change.
///
/// # Panics
/// When an event or a file is not as described: with what to do about it.
pub fn golden<D: Decider>(present: &[(&str, D::Event)], old: &[&str]) {
    let folder = folder::<D>();
    if std::env::var_os(BLESS).is_some() {
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for (name, event) in present {
            let text = serde_json::to_string_pretty(&written(event)).expect("JSON") + "\n";
            let file = folder.join(format!("{name}.json"));
            fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
    let (mut files, mut types) = (BTreeSet::new(), BTreeSet::new());
    let forms = present.iter().map(|(name, event)| (*name, Some(event)));
    for (name, event) in forms.chain(old.iter().map(|name| (*name, None))) {
        assert!(files.insert(format!("{name}.json")), "two events named {name}");
        let (json, read) = recorded::<D>(name);
        types.insert(json["type"].as_str().unwrap_or_default().to_owned());
        // It applies to any state.
        D::evolve(&mut D::State::default(), &read, Timestamp::from_micros(0));
        let Some(event) = event else { continue };
        assert_eq!(
            (written(event), written(&read)),
            (json.clone(), json),
            "{} {name}: stored events are read for ever. A new field is left out where it says nothing; a changed event \
             gets a file of its own, and that of its old form goes to the list of old ones",
            D::KIND
        );
    }
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let found: BTreeSet<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(found, files, "{}: one event for each file", folder.display());
    let missing: Vec<&str> = variants::<D::Event>()
        .iter()
        .copied()
        .filter(|variant| !types.contains(*variant))
        .collect();
    assert_eq!(missing, [""; 0], "events of {} without a file", D::KIND);
}

/// The content of a golden file, and the event that it is read as.
///
/// # Panics
/// When there is no such file, or it cannot be read.
pub fn recorded<D: Decider>(name: &str) -> (Value, D::Event) {
    let file = folder::<D>().join(format!("{name}.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; {BLESS}=1 writes those of present forms",
            file.display()
        )
    });
    let json: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let event = serde_json::from_value(json.clone())
        .unwrap_or_else(|error| panic!("{}: {error}: old events are read for ever", file.display()));
    (json, event)
}

fn folder<D: Decider>() -> PathBuf {
    let krate = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&krate).join("tests/golden").join(D::KIND)
}

fn written(event: &impl serde::Serialize) -> Value {
    serde_json::to_value(event).expect("events are JSON")
}

/// The names of an event's variants, as its own deserializer lists them for an unknown name.
fn variants<E: DeserializeOwned>() -> &'static [&'static str] {
    let none = std::iter::once(("type", "\u{0}"));
    match E::deserialize(MapDeserializer::<_, Expected>::new(none)) {
        Err(Expected(names)) if !names.is_empty() => names,
        _ => panic!("events are tagged by their type"),
    }
}

/// The names that a reader expected.
#[derive(Debug)]
struct Expected(&'static [&'static str]);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {:?}", self.0)
    }
}

impl std::error::Error for Expected {}

impl serde::de::Error for Expected {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(expected)
    }
}
