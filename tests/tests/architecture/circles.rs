//! Which modules of a crate import each other in a cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{Source, sources};

/// The imports among the top-level modules of a crate.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// The imports between the top-level modules of a crate. What the crate's root re-exports counts as its module's.
pub(crate) fn imports(folder: &str) -> Imports {
    let sources = sources(folder);
    let mut imports: Imports = sources
        .iter()
        .filter_map(|source| source.module.first())
        .map(|module| (module.clone(), BTreeSet::new()))
        .collect();
    let passed_on = passed_on(&sources, &imports);
    for source in &sources {
        let Some(module) = source.module.first() else {
            continue;
        };
        for path in source.paths.iter().filter(|path| path[0] == "crate") {
            let target = match path.get(1) {
                Some(name) if imports.contains_key(name) => name,
                Some(name) => match passed_on.get(name) {
                    Some(module) => module,
                    None => continue,
                },
                None => continue,
            };
            if target != module {
                imports.get_mut(module).unwrap().insert(target.clone());
            }
        }
    }
    imports
}

/// Names that the root re-exports, and the module that each is from.
fn passed_on(sources: &[Source], modules: &Imports) -> BTreeMap<String, String> {
    let roots = sources.iter().filter(|source| source.module.is_empty());
    let paths = roots.flat_map(|root| &root.paths);
    paths
        .filter_map(|path| {
            let own = if path[0] == "crate" { &path[1..] } else { &path[..] };
            match own {
                [module, .., name] if modules.contains_key(module) => Some((name.clone(), module.clone())),
                _ => None,
            }
        })
        .collect()
}

/// The groups of modules in which each reaches all others of its group.
pub(crate) fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = imports
        .keys()
        .map(|from| {
            let mut reached = BTreeSet::new();
            let mut next: Vec<&String> = imports[from].iter().collect();
            while let Some(module) = next.pop() {
                if reached.insert(module) {
                    next.extend(&imports[module]);
                }
            }
            (from, reached)
        })
        .collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (module, reached) in &reach {
        if !reached.contains(module) || found.iter().any(|circle| circle.contains(*module)) {
            continue;
        }
        let circle = reached.iter().filter(|other| reach[**other].contains(module));
        found.push(circle.map(|other| (*other).clone()).collect());
    }
    found
}

#[test]
fn a_circle_is_found() {
    let imports: Imports = [
        ("a", vec!["b"]),
        ("b", vec!["c"]),
        ("c", vec!["b", "d"]),
        ("d", vec![]),
    ]
    .into_iter()
    .map(|(from, to)| (from.to_owned(), to.into_iter().map(str::to_owned).collect()))
    .collect();
    assert_eq!(
        circles(&imports),
        [BTreeSet::from(["b".to_owned(), "c".to_owned()])]
    );
}
