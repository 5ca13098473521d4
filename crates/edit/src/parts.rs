//! An image whose parts have values of their own: `repository` and `tag`, `imageTag`, parameters of one prefix.

use crate::{
    Refusal,
    entry::Scalar,
    fields::Fields,
    image::{NewImage, Reference},
    layout::{Field, Text, refuse},
    naming::{DIGEST_IN_TAG, NAMES, Naming, Part, PartValues, SHA256, boolean, is_hex},
    objects::Object,
    sharing::{Seen, Spot},
    slot::{Slot, Writer, last_part},
    steps::{Step, Steps},
    values::behind,
    yaml::Kind,
};

/// The values of one image.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    object: Object<'a>,
    fields: Fields<'a>,
    registry: Option<Slot>,
    name: Option<Slot>,
    tag: Option<Slot>,
    /// The one that counts comes first.
    digests: Vec<Slot>,
    /// Whether the chart uses the digest.
    switch: Option<Slot>,
    /// The keys that a tag and a digest would have.
    tag_key: String,
    digest_key: String,
}

/// Where the tag and the digest are written.
#[derive(Debug, PartialEq, Eq)]
enum Layout {
    /// The tag has a key of its own, or gets one.
    Apart,
    /// Behind the name: `repository: nginx:1.2`.
    BehindName,
    /// `repository: nginx@sha256` and the digest in `tag`.
    DigestInTag,
}

/// Whether the path's last key is about an image, so that a `name` in it is the image's.
fn is_image_key(steps: &Steps) -> bool {
    matches!(steps.0.last(), Some(Step::Key(key)) if key.to_ascii_lowercase().contains("image"))
}

impl<'a> Parts<'a> {
    /// The parts next to each other; `named` when a `name` there is the image's.
    pub(crate) fn of(
        text: &'a Text<'_>,
        object: &Object<'a>,
        fields: Fields<'a>,
        naming: &Naming,
        named: bool,
    ) -> Result<Self, Refusal> {
        let slot = |key: &str| slot(text, object, &fields, key);
        let mut tag = slot(&naming.key("tag"))?;
        let mut tag_key = naming.key("tag");
        if tag.is_none() {
            let version = naming.key("version");
            // A whole document has a version of its own.
            if !naming.prefix.is_empty() || named {
                tag = slot(&version)?;
            }
            if tag.is_some() {
                tag_key = version;
            }
        }
        let mut name = None;
        for word in NAMES {
            if name.is_none() {
                name = slot(&naming.key(word))?;
            }
        }
        let stem = match naming.stem() {
            "" => "image",
            stem => stem,
        };
        if name.is_none() && (tag.is_some() || !naming.prefix.is_empty()) {
            name = slot(stem)?;
        }
        if name.is_none() && named {
            name = slot(&naming.key("name"))?;
        }
        let (mut digests, mut switch) = (Vec::new(), None);
        for key in fields.keys(text)? {
            if naming.has_switch(key) {
                // One with the image's own prefix counts before one without.
                if switch.is_none() || key.starts_with(&naming.prefix) {
                    switch = slot(key)?
                        .filter(|slot| boolean(&slot.stands).is_some())
                        .or(switch);
                }
            } else if let Some((_, Part::Digest, of_key)) = Naming::of(key)
                && of_key.prefix == naming.prefix
            {
                digests.extend(slot(key)?);
            }
        }
        digests.sort_by_key(|slot| {
            (
                slot.is_empty(),
                !slot.key().to_ascii_lowercase().ends_with("digest"),
            )
        });
        Ok(Self {
            object: object.clone(),
            registry: slot(&naming.key("registry"))?,
            name,
            tag,
            digests,
            switch,
            tag_key,
            digest_key: naming.key("digest"),
            fields,
        })
    }

    /// The image that a value is a part of; `None` when it is a whole reference.
    pub(crate) fn around(
        text: &'a Text<'_>,
        object: &Object<'a>,
        fields: Fields<'a>,
        key: &str,
        value: &Spot<'a>,
    ) -> Result<Option<Self>, Refusal> {
        let whole = value.node.scalar().map(Reference::split).unwrap_or_default();
        let is_bare = whole.tag.is_empty() && whole.digest.is_empty();
        let (part, naming, word) = match Naming::of(key) {
            _ if Naming::plain().has_switch(key) => (Part::Switch, Naming::plain(), ""),
            Some((word, part, naming)) => (part, naming, word),
            // `image: nginx` with a tag beside it.
            None if is_bare && key.eq_ignore_ascii_case("image") => (Part::Name, Naming::plain(), "image"),
            // `global.image` with `global.image.tag` beside it.
            None if is_bare && fields.is_parameters => {
                (Part::Name, Naming::below(&format!("{key}.")), "image")
            }
            None => return Ok(None),
        };
        let named = word == "name" || is_image_key(&fields.steps) || naming.stem().ends_with("image");
        let mut parts = Self::of(text, object, fields, &naming, named)?;
        if word == "version" && parts.tag_key != key {
            // Next to a tag, a version is something else; alone, and asked for by path, it is the tag.
            if parts.tag.is_some() {
                return Ok(None);
            }
            parts.tag = slot(text, object, &parts.fields, key)?;
            key.clone_into(&mut parts.tag_key);
        }
        if part == Part::Name {
            let own = parts.name.as_ref().is_some_and(|slot| slot.at == value.at);
            if !NAMES.contains(&word) {
                let beside = parts.tag.is_some() || !parts.digests.is_empty();
                return Ok((is_bare && beside && own).then_some(parts));
            }
            if !own {
                return Ok(None);
            }
        }
        Ok(Some(parts))
    }

    /// The image that a missing tag or digest belongs to, or the parameters of one prefix.
    pub(crate) fn beside(
        text: &'a Text<'_>,
        object: &Object<'a>,
        parent: &Steps,
        spot: &Spot<'a>,
        steps: &[Step],
    ) -> Result<Option<Self>, Refusal> {
        if let (Kind::Sequence { .. }, Some(Step::Item { key, value })) = (&spot.node.kind, steps.last()) {
            let fields = Fields::parameters(spot.clone(), parent.clone());
            let prefix = format!("{value}.");
            let is_prefix = fields.keys(text)?.iter().any(|name| name.starts_with(&prefix));
            if key != "name" || !is_prefix {
                return Ok(None);
            }
            let parts = Self::of(text, object, fields, &Naming::below(&prefix), true)?;
            return Ok(parts.has_any().then_some(parts));
        }
        let Some((Part::Tag | Part::Digest, naming)) = last_part(steps) else {
            return Ok(None);
        };
        if !matches!(spot.node.kind, Kind::Mapping { .. }) {
            return Ok(None);
        }
        let fields = Fields::mapping(spot.clone(), parent.clone());
        let parts = Self::of(text, object, fields, &naming, is_image_key(parent))?;
        Ok(parts.has_any().then_some(parts))
    }

    fn has_any(&self) -> bool {
        self.name.is_some() || self.tag.is_some() || !self.digests.is_empty()
    }

    /// Whether the named mapping contains an image.
    pub(crate) fn is_image(&self, text: &'a Text<'_>) -> Result<bool, Refusal> {
        let named = self.name.is_some() && !self.fields.has(text, "image")?;
        Ok(named
            || self.tag.is_some()
            || !self.digests.is_empty()
            || self.registry.is_some()
            || self.fields.has(text, "pullPolicy")?)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        [&self.registry, &self.name, &self.tag, &self.switch]
            .into_iter()
            .flatten()
            .chain(&self.digests)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.slots().map(|slot| slot.seen.clone()).collect()
    }

    pub(crate) fn line(&self) -> usize {
        self.tag
            .iter()
            .chain(&self.digests)
            .chain(&self.name)
            .next()
            .map_or(self.fields.spot.node.line, |slot| slot.line)
    }

    fn values(&self) -> PartValues {
        let value = |slot: Option<&Slot>| slot.map(|slot| slot.stands.value.clone()).unwrap_or_default();
        PartValues {
            registry: value(self.registry.as_ref()),
            name: value(self.name.as_ref()),
            tag: value(self.tag.as_ref()),
            digest: value(self.digests.first()),
            is_digest_off: self.switch.as_ref().and_then(|slot| boolean(&slot.stands)) == Some(false),
        }
    }

    pub(crate) fn reference(&self) -> Reference {
        self.values().reference()
    }

    /// How tag and digest are laid out now.
    fn layout(&self) -> Result<Layout, Refusal> {
        let Some(name) = &self.name else {
            return Ok(Layout::Apart);
        };
        let within = Reference::split(&name.stands.value);
        if within.tag.is_empty() && within.digest.is_empty() {
            return Ok(Layout::Apart);
        }
        let Some(tag) = self.tag.as_ref().filter(|tag| !tag.is_empty()) else {
            return Ok(Layout::BehindName);
        };
        if name.stands.value.ends_with(DIGEST_IN_TAG) && is_hex(&tag.stands.value) {
            return Ok(Layout::DigestInTag);
        }
        Err(refuse(
            name.line,
            format!(
                "`{}` contains a tag or a digest, and `{}` has one too: leave it in one of them first",
                name.key(),
                tag.key()
            ),
        ))
    }

    /// The new registry, and the new name without tag and digest.
    fn new_name(&self, to: &NewImage) -> Result<(Option<String>, Option<String>), Refusal> {
        let Some(new) = &to.new_name else {
            return Ok((None, None));
        };
        let Some(slot) = &self.name else {
            return Err(refuse(
                self.fields.spot.node.line,
                "there is no `repository` here to write the image's name in: add it by hand, or leave the name out",
            ));
        };
        match (
            self.registry.as_ref().filter(|slot| !slot.is_empty()),
            new.registry(),
        ) {
            (None, _) => Ok((None, Some(new.to_string()))),
            (Some(_), Some(host)) => Ok((Some(host.to_owned()), Some(new.repository().to_owned()))),
            (Some(registry), None) if registry.stands.value == "docker.io" => {
                Ok((None, Some(new.to_string())))
            }
            (Some(_), None) => Err(refuse(
                slot.line,
                "the registry is in a value of its own here: give the new name with its registry",
            )),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_, '_, '_>, to: &NewImage) -> Result<Reference, Refusal> {
        let mut after = self.values();
        let now = after.reference();
        let layout = match to.new_tag.is_some() || to.digest.is_some() || to.new_name.is_some() {
            true => self.layout()?,
            false => Layout::Apart,
        };
        let (registry, new_name) = self.new_name(to)?;
        let bare = Reference::split(&after.name).name;
        let named = new_name.unwrap_or(bare);
        after.registry = registry.unwrap_or(after.registry);
        let tag = to.new_tag.as_ref().map(ToString::to_string);
        let digest = to.digest.as_ref().map(ToString::to_string);
        // A switch without a key for the digest shows that the chart knows one.
        let has_digest_key = !self.digests.is_empty() || self.switch.is_some();
        let apart = digest.clone().filter(|_| has_digest_key);
        let behind = digest.clone().filter(|_| !has_digest_key);
        let reference = |tag: Option<String>, digest: Option<String>| Reference {
            name: named.clone(),
            tag: tag.unwrap_or_default(),
            digest: digest.unwrap_or_default(),
        };
        match (&tag, &digest, &layout) {
            (None, None, Layout::Apart) if to.new_name.is_some() => after.name.clone_from(&named),
            (None, None, Layout::Apart) => {}
            (None, None, Layout::BehindName) => {
                let within = Reference::split(&after.name);
                after.name = reference(Some(within.tag), Some(within.digest)).to_string();
            }
            (None, _, Layout::DigestInTag) => {
                after.name = format!("{named}{DIGEST_IN_TAG}");
                if let Some(hex) = digest.as_ref().and_then(|digest| digest.strip_prefix(SHA256)) {
                    hex.clone_into(&mut after.tag);
                }
            }
            // A digest alone keeps the tag where each has a place of its own.
            (None, Some(_), Layout::BehindName) => {
                let kept = has_digest_key.then(|| Reference::split(&after.name).tag);
                after.name = reference(kept, behind).to_string();
            }
            (Some(_), _, Layout::BehindName) => after.name = reference(tag.clone(), behind).to_string(),
            (None, Some(_), Layout::Apart) if has_digest_key => {
                after.name.clone_from(&named);
                if after.tag.contains('@') {
                    after.tag = now.tag;
                }
            }
            (None, Some(_), Layout::Apart) if now.tag.is_empty() => {
                return Err(refuse(
                    self.fields.spot.node.line,
                    "there is neither a tag nor a `digest` here that could hold the digest: give the tag too",
                ));
            }
            (_, _, Layout::Apart | Layout::DigestInTag) => {
                after.name.clone_from(&named);
                let tag = tag.clone().unwrap_or(now.tag);
                after.tag = match &behind {
                    Some(digest) => format!("{tag}@{digest}"),
                    None => tag,
                };
            }
        }
        let is_versioned = tag.is_some() || digest.is_some();
        if is_versioned {
            self.refuse_other_sha()?;
        }
        let switched = self.switch.as_ref().filter(|_| is_versioned);
        let is_off = !after.is_digest_off && switched.is_some() && apart.is_none();
        let is_on = after.is_digest_off && switched.is_some() && apart.is_some();
        after.is_digest_off = (after.is_digest_off && !is_on) || is_off;
        self.write_name_and_tag(writer, &after, tag.is_some())?;
        for (number, slot) in self.digests.iter().enumerate() {
            let to = match &apart {
                Some(digest) if number == 0 => Some(as_written_in(slot, digest)),
                // Emptied, since the chart's own default would come back if the key went.
                _ if is_versioned && !slot.is_empty() => Some(String::new()),
                _ => None,
            };
            if number == 0
                && let Some(to) = &to
            {
                after.digest.clone_from(to);
            }
            writer.set(slot, to.map(Field::Set))?;
        }
        if let (Some(digest), true) = (&apart, self.digests.is_empty()) {
            self.insert(writer, &self.digest_key, digest)?;
            after.digest.clone_from(digest);
        }
        if let Some(slot) = &self.switch {
            let word = is_off.then_some("false").or(is_on.then_some("true"));
            let to = word.map(|word| {
                Field::Restore(Scalar {
                    value: word.to_owned(),
                    written: word.to_owned(),
                })
            });
            writer.set(slot, to)?;
        }
        Ok(after.reference())
    }

    fn write_name_and_tag(
        &self,
        writer: &mut Writer<'_, '_, '_>,
        after: &PartValues,
        gives_tag: bool,
    ) -> Result<(), Refusal> {
        for (slot, to, is_meant) in [
            (&self.registry, &after.registry, false),
            (&self.name, &after.name, false),
            (&self.tag, &after.tag, gives_tag),
        ] {
            match slot {
                Some(slot) => {
                    let differs = slot.stands.value != *to || (is_meant && is_other_type(slot));
                    writer.set(slot, differs.then(|| Field::Set(to.clone())))?;
                }
                None if to.is_empty() => {}
                None => self.insert(writer, &self.tag_key, to)?,
            }
        }
        Ok(())
    }

    /// A `sha` that is not a digest is the id of a commit, or something else that an image edit does not know.
    fn refuse_other_sha(&self) -> Result<(), Refusal> {
        let other = self.digests.iter().find(|slot| {
            let value = &slot.stands.value;
            let is_sha = !slot.key().to_ascii_lowercase().ends_with("digest");
            is_sha && !value.is_empty() && !is_hex(value) && !value.contains(':')
        });
        match other {
            None => Ok(()),
            Some(slot) => Err(refuse(
                slot.line,
                format!(
                    "`{}` is {:?}, which is not the digest of an image: empty it or edit it by hand",
                    slot.key(),
                    slot.stands.value
                ),
            )),
        }
    }

    fn insert(&self, writer: &mut Writer<'_, '_, '_>, key: &str, to: &str) -> Result<(), Refusal> {
        let mapping = self.fields.spot.node;
        if self.fields.is_parameters {
            return Err(refuse(
                mapping.line,
                format!("there is no parameter `{key}` here: add it by hand once"),
            ));
        }
        let beside = match (&self.tag, &self.name) {
            (Some(tag), _) if key == self.digest_key => Some(tag),
            (_, name) => name.as_ref(),
        };
        let is_child = |slot: &&Slot| {
            slot.at
                .split_last()
                .is_some_and(|(_, above)| above == self.fields.spot.at)
        };
        let place = match beside.filter(is_child) {
            Some(slot) => slot.at.last().copied().unwrap_or_default(),
            None => behind(mapping, key),
        };
        writer.insert(&self.object, &self.fields, place, key, to.to_owned())
    }
}

/// Whether a value is written as something else than a text.
fn is_other_type(slot: &Slot) -> bool {
    slot.stands.written == slot.stands.value
        && !slot.is_empty()
        && crate::yaml::needs_quotes(&slot.stands.value)
}

/// A digest as a key expects it: with `sha256:` before it, unless the value or the key shows otherwise.
fn as_written_in(slot: &Slot, digest: &str) -> String {
    let is_hex_only = match slot.stands.value.as_str() {
        "" => !slot.key().to_ascii_lowercase().ends_with("digest"),
        value => is_hex(value),
    };
    let hex = digest.strip_prefix(SHA256).filter(|_| is_hex_only);
    hex.unwrap_or(digest).to_owned()
}

/// The value of a key.
fn slot<'a>(
    text: &'a Text<'_>,
    object: &Object<'a>,
    fields: &Fields<'a>,
    key: &str,
) -> Result<Option<Slot>, Refusal> {
    let Some((value, steps)) = fields.get(text, key)? else {
        return Ok(None);
    };
    let is_collection = matches!(value.node.kind, Kind::Mapping { .. } | Kind::Sequence { .. });
    if is_collection && !value.node.is_template() {
        return Ok(None);
    }
    match Slot::new(text, object, &steps, &value) {
        Some(slot) => Ok(Some(slot)),
        None => Err(refuse(
            value.node.line,
            format!("`{key}` is a template: edit the values that it uses"),
        )),
    }
}
