//! Which edits write an image at its place, and which copy the images of one place to another. Pure.

use slipway_edit::{Edit, ImageAtPlace, InvalidEdit, NewImage, Place};
use slipway_model::ImageRef;

use crate::change::Image;

/// How many names an error lists.
const SHOWN: usize = 20;

/// Why no edits can be made there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// There is no match, or more than one.
    #[error("{0}")]
    NotFound(String),
    /// What is to be written is not an image.
    #[error("{0}")]
    Invalid(String),
}

impl From<InvalidEdit> for Mismatch {
    fn from(error: InvalidEdit) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The edits that set a place to `image`: where the manifests' name or its replacement is the image's name, or else if
/// there is only one image.
///
/// # Errors
/// [`Mismatch`]
pub fn write(place: &Place, found: &[ImageAtPlace], image: &Image) -> Result<Vec<Edit>, Mismatch> {
    let wanted = image.repository.as_str();
    let mut to = NewImage {
        new_name: None,
        new_tag: image.tags.first().cloned(),
        digest: image.digest.clone(),
    };
    if to.new_tag.is_none() && to.digest.is_none() {
        return Err(Mismatch::Invalid(
            "the image needs a tag or a digest to be written".to_owned(),
        ));
    }
    let there = distinct(found);
    let fitting: Vec<&ImageAtPlace> = there
        .iter()
        .copied()
        .filter(|found| is(place, found, wanted))
        .collect();
    let name = match (fitting.as_slice(), there.as_slice()) {
        ([one], _) => one.name.as_str(),
        ([], [only]) => {
            if !effective(place, only).is_empty() {
                to.new_name = Some(image.repository.clone());
            }
            only.name.as_str()
        }
        // The edit adds it, if what the kustomization builds on uses it.
        ([], []) if matches!(place, Place::Kustomization(_)) => wanted,
        // The edit adds it.
        ([], []) if matches!(place, Place::Helm(at) if at.add_missing) => {
            to.new_name = Some(image.repository.clone());
            wanted
        }
        ([], _) => return Err(not_found(place, wanted, &there)),
        (several, _) => {
            return Err(Mismatch::NotFound(format!(
                "several images of {} could be {wanted}: {}; give edits that say which",
                describe(place),
                names(several)
            )));
        }
    };
    Ok(vec![place.edit(name, to)?])
}

/// The edits that make a place equal to another one: tag and digest of each image, and its name if there is one. `only`
/// names the images that are meant; empty means all.
///
/// # Errors
/// [`Mismatch`]
pub fn copy(
    from: (&Place, &[ImageAtPlace]),
    to: (&Place, &[ImageAtPlace]),
    only: &[String],
) -> Result<Vec<Edit>, Mismatch> {
    let sources = chosen(from, only)?;
    let targets = distinct(to.1);
    let mut edits = Vec::with_capacity(sources.len());
    for source in &sources {
        let mut image = parse(source)?;
        let fitting: Vec<&ImageAtPlace> = targets
            .iter()
            .copied()
            .filter(|target| is(to.0, target, &source.name) || is(to.0, target, effective(from.0, source)))
            .collect();
        let target = match (fitting.as_slice(), targets.as_slice()) {
            ([one], _) => Some(*one),
            ([], [only]) if sources.len() == 1 => Some(*only),
            _ => fitting.iter().find(|target| target.name == source.name).copied(),
        };
        let name = match (target, to.0) {
            (Some(target), _) => {
                // What is already equal does not need an edit.
                let same = image
                    .new_name
                    .as_ref()
                    .is_some_and(|name| name.as_str() == effective(to.0, target));
                if same && target.image.name == effective(to.0, target) {
                    image.new_name = None;
                }
                target.name.as_str()
            }
            (None, Place::Kustomization(_)) => source.name.as_str(),
            (None, Place::Helm(at)) if at.add_missing && sources.len() == 1 => at.path.as_str(),
            (None, _) => return Err(not_found(to.0, &source.name, &targets)),
        };
        edits.push(to.0.edit(name, image)?);
    }
    Ok(edits)
}

/// The images of a place that are to be copied.
///
/// # Errors
/// [`Mismatch`]
pub fn chosen<'a>(
    (place, found): (&Place, &'a [ImageAtPlace]),
    only: &[String],
) -> Result<Vec<&'a ImageAtPlace>, Mismatch> {
    let all = distinct(found);
    if only.is_empty() {
        // An entry without values leaves the image to the base.
        let said: Vec<&ImageAtPlace> = all.iter().copied().filter(|found| says(found)).collect();
        return if said.is_empty() {
            Err(Mismatch::NotFound(format!(
                "{} has no image that can be copied",
                describe(place)
            )))
        } else {
            Ok(said)
        };
    }
    let mut chosen: Vec<&ImageAtPlace> = Vec::new();
    for name in only {
        let fitting: Vec<&ImageAtPlace> = all
            .iter()
            .copied()
            .filter(|found| is(place, found, name))
            .collect();
        match fitting.iter().find(|found| says(found)) {
            Some(found) if !chosen.contains(found) => chosen.push(found),
            Some(_) => {}
            None => return Err(not_found(place, name, &all)),
        }
    }
    Ok(chosen)
}

fn says(found: &ImageAtPlace) -> bool {
    !(found.image.tag.is_empty() && found.image.digest.is_empty() && found.image.name.is_empty())
}

/// The image as an edit writes it.
fn parse(found: &ImageAtPlace) -> Result<NewImage, Mismatch> {
    let image = &found.image;
    NewImage::new(&image.name, &image.tag, &image.digest).map_err(|error| {
        Mismatch::Invalid(format!(
            "{} line {} has {image:?}, which cannot be copied: {error}",
            found.file,
            found.line,
            image = image.to_string()
        ))
    })
}

/// Those with a name of their own: several containers may run the same image.
fn distinct(found: &[ImageAtPlace]) -> Vec<&ImageAtPlace> {
    let mut seen: Vec<&ImageAtPlace> = Vec::new();
    for found in found {
        if seen.iter().all(|other| other.name != found.name) {
            seen.push(found);
        }
    }
    seen
}

/// The name that the image has in the end; empty if values leave it to the chart.
pub fn effective<'a>(place: &Place, found: &'a ImageAtPlace) -> &'a str {
    match place {
        _ if !found.image.name.is_empty() => &found.image.name,
        Place::Helm(_) => "",
        _ => &found.name,
    }
}

fn is(place: &Place, found: &ImageAtPlace, name: &str) -> bool {
    !name.is_empty() && (found.name == name || effective(place, found) == name)
}

fn names(found: &[&ImageAtPlace]) -> String {
    let mut list: Vec<String> = found
        .iter()
        .take(SHOWN)
        .map(|found| match found.image.name.as_str() {
            "" => found.name.clone(),
            name if name == found.name => found.name.clone(),
            name => format!("{} ({name})", found.name),
        })
        .collect();
    if found.len() > SHOWN {
        list.push(format!("and {} more", found.len() - SHOWN));
    }
    list.join(", ")
}

fn not_found(place: &Place, name: &str, there: &[&ImageAtPlace]) -> Mismatch {
    let there = if there.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are {}", names(there))
    };
    Mismatch::NotFound(format!("{} has no image {name}; {there}", describe(place)))
}

/// A place, for people.
fn describe(place: &Place) -> String {
    match place {
        Place::Kustomization(folder) => folder.to_string(),
        Place::Helm(helm) => format!("{} {}", helm.file, helm.path),
        Place::Manifest(manifest) => manifest.file.to_string(),
    }
}

/// The image of a change that copies just one, for its message.
pub fn copied(place: &Place, found: &ImageAtPlace) -> Option<ImageRef> {
    Some(ImageRef {
        name: effective(place, found).parse().ok()?,
        tag: found.image.tag.parse().ok(),
        digest: found.image.digest.parse().ok(),
    })
}

/// What copies are called in a subject: their tag if they share one, else their digest, else their number.
pub fn called(found: &[&ImageAtPlace]) -> String {
    let Some(first) = found.first() else {
        return "images".to_owned();
    };
    let all = |same: fn(&ImageAtPlace) -> &str| found.iter().all(|other| same(other) == same(first));
    let digest: Option<slipway_model::Digest> = first.image.digest.parse().ok();
    match digest {
        _ if all(|found| &found.image.tag) && !first.image.tag.is_empty() => first.image.tag.clone(),
        Some(digest) if all(|found| &found.image.digest) => digest.short().to_owned(),
        _ if found.len() == 1 => first.name.clone(),
        _ => format!("{} images", found.len()),
    }
}

#[cfg(test)]
mod tests {
    use slipway_edit::{Edit, ImageAtPlace, NewImage, Place, Reference};

    use super::{Mismatch, called, copy, write};
    use crate::change::Image;

    fn overlay() -> Place {
        Place::Kustomization("apps/shop/dev".parse().unwrap())
    }

    fn found(name: &str, image: &str) -> ImageAtPlace {
        // Without a name: `:tag@digest`.
        ImageAtPlace {
            name: name.to_owned(),
            image: Reference::split(image),
            file: "apps/shop/dev/kustomization.yaml".to_owned(),
            line: 1,
        }
    }

    fn image(repository: &str, tag: &str) -> Image {
        Image {
            name: "shop".parse().unwrap(),
            repository: repository.parse().unwrap(),
            digest: None,
            tags: vec![tag.parse().unwrap()],
        }
    }

    /// `name` and what is set: `newName:tag@digest`.
    fn written(edits: &[Edit]) -> Vec<(String, String)> {
        let said = |to: &NewImage| {
            let text = |text: Option<String>| text.unwrap_or_default();
            Reference {
                name: text(to.new_name.clone().map(String::from)),
                tag: text(to.new_tag.clone().map(String::from)),
                digest: text(to.digest.clone().map(String::from)),
            }
            .to_string()
        };
        edits
            .iter()
            .map(|edit| match edit {
                Edit::KustomizeImage(edit) => (edit.name.clone(), said(&edit.to)),
                Edit::HelmImage(edit) => (edit.path.clone(), said(&edit.to)),
                Edit::ManifestImage(edit) => (edit.image.clone(), said(&edit.to)),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_image_is_written_where_it_stands() {
        let several = [found("app", "r.example/shop:1"), found("proxy", ":2")];
        for (there, name, wanted) in [
            (&several[..], "r.example/shop", ("app", ":9")),
            (&several[..], "proxy", ("proxy", ":9")),
            (&several[..1], "r.example/other", ("app", "r.example/other:9")),
            (&several[..0], "r.example/shop", ("r.example/shop", ":9")),
        ] {
            let edits = write(&overlay(), there, &image(name, "9")).unwrap();
            let (name, said) = wanted;
            assert_eq!(written(&edits), [(name.to_owned(), said.to_owned())]);
        }
        let Err(Mismatch::NotFound(error)) = write(&overlay(), &several, &image("mail", "9")) else {
            panic!()
        };
        assert_eq!(
            error,
            "apps/shop/dev has no image mail; there are app (r.example/shop), proxy"
        );
        let twice = [
            found("app", "r.example/shop:1"),
            found("other", "r.example/shop:1"),
        ];
        let Err(Mismatch::NotFound(error)) = write(&overlay(), &twice, &image("r.example/shop", "9")) else {
            panic!()
        };
        assert!(error.contains("several images"), "{error}");
        let bare = Image {
            tags: Vec::new(),
            ..image("app", "1")
        };
        assert!(matches!(
            write(&overlay(), &several, &bare),
            Err(Mismatch::Invalid(_))
        ));
    }

    #[test]
    fn images_are_copied_with_their_tag_digest_and_name() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let from = [
            found("app", &format!("r.example/shop:1@{digest}")),
            found("proxy", ":2"),
            found("silent", ""),
        ];
        let to = [found("app", ":0"), found("proxy", "r.prod/proxy:0")];
        let all = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            copy((&overlay(), &from), (&overlay(), &to), &only)
        };
        let app = ("app".to_owned(), format!("r.example/shop:1@{digest}"));
        let proxy = ("proxy".to_owned(), ":2".to_owned());
        assert_eq!(written(&all(&[]).unwrap()), [app.clone(), proxy.clone()]);
        assert_eq!(written(&all(&["proxy"]).unwrap()), [proxy]);
        assert_eq!(written(&all(&["r.example/shop"]).unwrap()), [app]);
        assert_eq!(
            all(&["mail"]),
            Err(Mismatch::NotFound(
                "apps/shop/dev has no image mail; there are app (r.example/shop), proxy, silent".to_owned()
            ))
        );
        assert!(copy((&overlay(), &from[2..]), (&overlay(), &to), &[]).is_err());
        let strange = [found("app", ":${TAG}")];
        assert!(matches!(
            copy((&overlay(), &strange), (&overlay(), &to), &[]),
            Err(Mismatch::Invalid(_))
        ));
    }

    #[test]
    fn copies_are_called_by_what_they_share() {
        let digest = format!("r@sha256:{}", "ab".repeat(32));
        for (images, wanted) in [
            (vec![found("a", "x:1"), found("b", "y:1")], "1"),
            (vec![found("a", &digest), found("b", &digest)], "abababababab"),
            (vec![found("a", "x:1"), found("b", "y:2")], "2 images"),
            (vec![found("a", "x")], "a"),
        ] {
            assert_eq!(called(&images.iter().collect::<Vec<_>>()), wanted);
        }
    }
}
