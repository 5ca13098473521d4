//! The paths that sources name, as proc-macro2 reads them: `crate::config::Config`, `tokio::spawn`. Comments,
//! strings and tests do not count.

use std::{collections::BTreeSet, fs};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use crate::workspace::{read, root};

/// A Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    /// Its module, below the crate; empty for `lib.rs` and `main.rs`.
    pub(crate) module: Vec<String>,
    /// Paths of two segments or more, `self` and `super` resolved.
    pub(crate) paths: BTreeSet<Vec<String>>,
    /// All of its code as one line.
    pub(crate) text: String,
}

impl Source {
    /// Whether it names something from a crate, by the crate's name in code.
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.paths.iter().any(|path| path[0] == name)
    }
}

/// The Rust files below a folder, from the root.
pub(crate) fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// The sources of a crate, without files that contain only tests.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let src = format!("{folder}/src");
    let tests =
        |file: &str| file.ends_with("/tests.rs") || file.ends_with("_tests.rs") || file.contains("/tests/");
    files(&src)
        .into_iter()
        .filter(|file| !tests(&file[src.len()..]))
        .map(|path| source(&src, path))
        .collect()
}

fn source(src: &str, path: String) -> Source {
    let text = read(&root().join(&path));
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let inner = path[src.len() + 1..].trim_end_matches(".rs");
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if matches!(inner, "lib" | "main") || inner.starts_with("bin/") {
        module.clear();
    }
    let tokens = without_tests(tokens);
    let mut paths = BTreeSet::new();
    collect(tokens.clone(), &module, &[], &mut paths);
    Source {
        path,
        module,
        paths,
        text: tokens.to_string(),
    }
}

/// Removes items under `#[cfg(test)]`, at any depth.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) if is_test(&group) && ends_with_hash(&kept) => {
                kept.pop();
                // The item ends with its body or with a semicolon.
                for token in tokens.by_ref() {
                    match token {
                        TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                        _ => {}
                    }
                }
            }
            TokenTree::Group(group) => {
                let inner = without_tests(group.stream());
                kept.push(proc_macro2::Group::new(group.delimiter(), inner).into());
            }
            token => kept.push(token),
        }
    }
    kept.into_iter().collect()
}

fn is_test(group: &proc_macro2::Group) -> bool {
    group.delimiter() == Delimiter::Bracket && group.stream().to_string().replace(' ', "") == "cfg(test)"
}

fn ends_with_hash(tokens: &[TokenTree]) -> bool {
    matches!(tokens.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#')
}

/// Collects paths; `prefix` is what comes before the braces of a `use`.
fn collect(tokens: TokenStream, module: &[String], prefix: &[String], paths: &mut BTreeSet<Vec<String>>) {
    let mut path: Vec<String> = prefix.to_vec();
    let mut module = module.to_vec();
    let depth = module.len();
    let mut tokens = tokens.into_iter().peekable();
    // Whether the path continues: two colons came last, or nothing yet.
    let mut open = true;
    let mut opens_module = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) => {
                if !open {
                    finish(&mut path, prefix, &module, paths);
                }
                let ident = ident.to_string();
                if opens_module {
                    module.push(ident.clone());
                }
                opens_module = ident == "mod" && path.len() == prefix.len();
                path.push(ident);
                open = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint => {
                // The second colon of two.
                tokens.next();
                open = true;
            }
            TokenTree::Group(group) if open && path.len() > prefix.len() => {
                collect(group.stream(), &module, &path, paths);
                path = prefix.to_vec();
                module.truncate(depth);
            }
            TokenTree::Group(group) => {
                finish(&mut path, prefix, &module, paths);
                open = true;
                let inside_use = !prefix.is_empty() && group.delimiter() == Delimiter::Brace;
                collect(
                    group.stream(),
                    &module,
                    if inside_use { prefix } else { &[] },
                    paths,
                );
                module.truncate(depth);
            }
            _ => {
                finish(&mut path, prefix, &module, paths);
                module.truncate(depth);
                open = true;
            }
        }
    }
    finish(&mut path, prefix, &module, paths);
}

fn finish(path: &mut Vec<String>, prefix: &[String], module: &[String], paths: &mut BTreeSet<Vec<String>>) {
    let whole = std::mem::replace(path, prefix.to_vec());
    if whole.len() < 2 {
        return;
    }
    let mut resolved: Vec<String> = match whole[0].as_str() {
        "super" | "self" => std::iter::once("crate".to_owned())
            .chain(module.iter().cloned())
            .collect(),
        _ => Vec::new(),
    };
    for segment in whole {
        match segment.as_str() {
            "self" => {}
            "super" => drop(resolved.pop()),
            _ => resolved.push(segment),
        }
    }
    if resolved.len() >= 2 {
        paths.insert(resolved);
    }
}
