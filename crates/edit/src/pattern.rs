//! Which images an entry of `images` is for: kustomize reads its `name` as a pattern.

/// Whether an entry's `name` fits an image, as kustomize's `IsImageMatched` decides: a pattern for the whole name,
/// optionally followed by a tag and a digest.
pub(crate) fn matches(name: &str, image: &str) -> bool {
    if !name.contains(['*', '+', '?', '(', '[', '{', '|', '^', '$', '\\']) {
        return fits_dotted(name, image);
    }
    let pattern = format!("^{name}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$");
    match regex::bytes::RegexBuilder::new(&pattern)
        .unicode(false)
        .size_limit(1 << 20)
        .build()
    {
        Ok(pattern) => pattern.is_match(image.as_bytes()),
        Err(_) => image.strip_prefix(name).is_some_and(is_version),
    }
}

/// The same for names whose only special character is the dot: nearly all, so no pattern needs to be built for them.
fn fits_dotted(name: &str, image: &str) -> bool {
    let (Some(head), Some(rest)) = (image.get(..name.len()), image.get(name.len()..)) else {
        return false;
    };
    head.bytes().zip(name.bytes()).all(|(a, b)| a == b || b == b'.') && is_version(rest)
}

/// Nothing, `:tag`, `@sha256:digest` or both.
fn is_version(rest: &str) -> bool {
    let word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.{}-".contains(&b))
    };
    let (tag, digest) = match rest.split_once('@') {
        Some((tag, digest)) => (tag, digest.strip_prefix("sha256:")),
        None => (rest, Some("")),
    };
    digest.is_some_and(word) && (tag.is_empty() || tag.strip_prefix(':').is_some_and(word))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_fit_as_kustomize_has_it() {
        for (name, image, fits) in [
            ("app", "app", true),
            ("app", "app:v1", true),
            ("app", "app:v1@sha256:0a", true),
            ("app", "app@sha256:0a", true),
            ("app", "app@md5:0a", false),
            ("app", "apple", false),
            ("app", "r/app", false),
            ("r.example/app", "r.example/app:1", true),
            ("r.example/app", "r-example/app:1", true),
            (".*/app", "r/app:1", true),
            ("ap+", "appp", true),
            ("(app", "app", false),
            ("(app", "(app:v1", true),
            ("a|b", "b:v1", true),
            ("r:5000/app", "r:5000/app:v1", true),
            ("app", "app:", true),
        ] {
            assert_eq!(matches(name, image), fits, "{name} {image}");
        }
    }
}
