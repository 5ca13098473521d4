//! Restores values to what one of our changes found.

use crate::{
    Refusal,
    added::NewKeys,
    difference::{Added, Difference, RestoreValues, ValueDifference},
    embedded::Embedded,
    entry::Scalar,
    layout::{Field, Splice, Text, refuse},
    naming::reference_of,
    objects::{Object, named, objects},
    sharing::Spot,
    steps::{Step, Steps},
    taken_out::take_out,
    values::{
        Changes, Led, Sharing, behind, difference, done, follow, follow_written, scalar, what_is_there,
    },
};

/// What restoring values of a text comes to.
struct Restored {
    text: String,
    splices: Vec<Splice>,
    /// In the order of the values that were to be restored: what stood there.
    now: Vec<Option<Scalar>>,
    /// The reverse of what was done.
    values: Vec<ValueDifference>,
    added: Option<Added>,
    shared_with: Vec<String>,
}

impl RestoreValues {
    pub(crate) fn apply(&self, whole: &str) -> Result<(String, Difference), Refusal> {
        let text = Text::read(whole)?;
        let restored = self.restore(&text, &self.values, self.added.as_deref())?;
        let before = reference_of(&self.values, &restored.now, &self.image);
        let is_gone = restored.now.iter().all(Option::is_none);
        let before = match self.added.is_some() && is_gone {
            true => crate::Reference::default(),
            false => before,
        };
        let mut difference = difference(
            &self.file,
            restored.values,
            before,
            self.image.clone(),
            restored.shared_with.into_iter().collect(),
        );
        difference.added = restored.added.map(Box::new);
        Ok(done(text.whole(&restored.text), difference))
    }

    fn sharing(&self) -> Sharing {
        match self.force {
            true => Sharing::Allowed,
            false => Sharing::With(self.shared_with.iter().cloned().collect()),
        }
    }

    fn restore(
        &self,
        text: &Text<'_>,
        values: &[ValueDifference],
        added: Option<&Added>,
    ) -> Result<Restored, Refusal> {
        let objects = objects(&text.stream);
        if let Some(within) = Within::find(text, &objects, values)? {
            return self.restore_within(text, &within, values, added);
        }
        let mut changes = Changes::new(text, self.sharing());
        match added {
            Some(added) => self.restore_added(text, changes, &objects, values, added),
            None => {
                let (mut now, mut restored) = (Vec::new(), Vec::new());
                for value in values {
                    let stands = self.restore_one(text, &objects, &mut changes, value)?;
                    now.push(stands.clone());
                    restored.push(ValueDifference {
                        before: stands,
                        after: value.before.clone(),
                        ..value.clone()
                    });
                }
                let shared_with = changes.shared_with.iter().cloned().collect();
                let (text, splices) = changes.spliced()?;
                Ok(Restored {
                    text,
                    splices,
                    now,
                    values: restored,
                    added: None,
                    shared_with,
                })
            }
        }
    }

    /// Restores one value, and returns what stood there.
    fn restore_one(
        &self,
        text: &Text<'_>,
        objects: &[Object<'_>],
        changes: &mut Changes<'_, '_>,
        value: &ValueDifference,
    ) -> Result<Option<Scalar>, Refusal> {
        let (led, steps) = match led(text, objects, value) {
            // Nothing to restore, so it does not matter that the value is shared.
            Err(Refusal::Unsafe { .. }) if value.before == value.after => return Ok(value.before.clone()),
            led => led?,
        };
        let (spot, stands) = match &led {
            Led::Node(spot) => match scalar(text, spot.node) {
                Some(scalar) => (spot, Some(scalar)),
                None => {
                    return Err(refuse(
                        spot.node.line,
                        format!("`{}` is not a plain value any more", value.at),
                    ));
                }
            },
            Led::Missing { spot, left: 1 } => (spot, None),
            Led::Missing { spot, .. } | Led::Embedded { spot, .. } => {
                return Err(Refusal::ImageNotFound(format!(
                    "`{}` of {} is gone; {}",
                    value.at,
                    value.document,
                    what_is_there(spot.node)
                )));
            }
        };
        self.unchanged_since(&stands, value)?;
        if value.before == value.after {
            return Ok(stands);
        }
        match (&stands, &value.before) {
            (Some(_), Some(before)) => {
                changes.set(&spot.at, &Field::Restore(before.clone()))?;
            }
            (Some(_), None) => {
                if let Some((index, mapping)) = spot.at.split_last() {
                    changes.remove(mapping, *index)?;
                }
            }
            (None, Some(before)) => {
                let Some(Step::Key(key)) = steps.0.last() else {
                    return Err(refuse(
                        1,
                        format!("`{}` is gone, and is not a key that could be added", value.at),
                    ));
                };
                let place = behind(spot.node, key);
                changes.insert(&spot.at, place, key, &Field::Restore(before.clone()))?;
            }
            (None, None) => {}
        }
        Ok(stands)
    }

    fn unchanged_since(&self, stands: &Option<Scalar>, value: &ValueDifference) -> Result<(), Refusal> {
        let means = |a: &Option<Scalar>, b: &Option<Scalar>| {
            a.as_ref().map(|a| a.value.as_str()) == b.as_ref().map(|b| b.value.as_str())
        };
        if self.force || means(stands, &value.after) || means(stands, &value.before) {
            return Ok(());
        }
        let shown = |scalar: &Option<Scalar>| {
            scalar
                .as_ref()
                .map_or_else(|| "not there".to_owned(), |scalar| format!("{:?}", scalar.value))
        };
        Err(Refusal::ChangedSince {
            name: format!("`{}`", value.at),
            now: shown(stands),
            written: shown(&value.after),
        })
    }

    /// Takes out an image that was added, or adds it again.
    fn restore_added(
        &self,
        text: &Text<'_>,
        mut changes: Changes<'_, '_>,
        objects: &[Object<'_>],
        values: &[ValueDifference],
        added: &Added,
    ) -> Result<Restored, Refusal> {
        let mut now = Vec::with_capacity(values.len());
        let mut object = None;
        for value in values {
            let stands = match named(objects, &value.document) {
                // The whole document went with the image.
                Err(Refusal::ImageNotFound(_)) => None,
                Err(refusal) => return Err(refusal),
                Ok(found) => match found.as_slice() {
                    [one] => {
                        object = Some(one.clone());
                        let steps = steps_of(value)?;
                        match follow_written(text, one, &steps)? {
                            Led::Node(spot) => scalar(text, spot.node),
                            _ => None,
                        }
                    }
                    _ => return Err(ambiguous(&found, value)),
                },
            };
            self.unchanged_since(&stands, value)?;
            now.push(stands);
        }
        let reverse = |now: &[Option<Scalar>]| {
            let values = values.iter().zip(now);
            values
                .map(|(value, now)| ValueDifference {
                    before: now.clone(),
                    after: value.before.clone(),
                    ..value.clone()
                })
                .collect::<Vec<_>>()
        };
        let adds = values.iter().any(|value| value.before.is_some());
        let is_there = now.iter().any(Option::is_some);
        let unchanged = (text.text.to_owned(), Vec::new());
        let ((edited, splices), added) = match (adds, is_there, object) {
            (true, false, _) => {
                let document = values.first().map(|value| value.document.as_str());
                let (_, added) =
                    NewKeys::again(values)?.add(text, &mut changes, document.unwrap_or_default())?;
                (changes.spliced()?, added)
            }
            (false, true, Some(object)) => {
                let done = take_out(text, &mut changes, &object, added, values)?;
                (done, added.clone())
            }
            _ => (unchanged, added.clone()),
        };
        Ok(Restored {
            text: edited,
            splices,
            values: reverse(&now),
            now,
            added: Some(added),
            shared_with: Vec::new(),
        })
    }

    /// Restores values of a text that stands in a block of this one.
    fn restore_within(
        &self,
        text: &Text<'_>,
        within: &Within<'_>,
        values: &[ValueDifference],
        added: Option<&Added>,
    ) -> Result<Restored, Refusal> {
        let inner = within.embedded.yaml()?;
        let below = |at: &str| within.below(at);
        let inside: Vec<ValueDifference> = values
            .iter()
            .map(|value| {
                Ok(ValueDifference {
                    document: "1".to_owned(),
                    at: below(&value.at)?,
                    ..value.clone()
                })
            })
            .collect::<Result<_, Refusal>>()?;
        let added = match added {
            Some(added) => Some(Added {
                at: below(&added.at)?,
                ..added.clone()
            }),
            None => None,
        };
        let restored = self
            .restore(&inner, &inside, added.as_ref())
            .map_err(|refusal| within.embedded.refusal(refusal))?;
        let mut changes = Changes::new(text, self.sharing());
        let splices = within.embedded.splices(restored.splices);
        changes.set_block(&within.spot.at, splices, restored.text)?;
        let mut shared_with = restored.shared_with;
        shared_with.extend(changes.shared_with.iter().cloned());
        let (text, splices) = changes.spliced()?;
        let outer = restored.values.into_iter().zip(values);
        Ok(Restored {
            text,
            splices,
            now: restored.now,
            values: outer
                .map(|(inside, value)| ValueDifference {
                    document: value.document.clone(),
                    at: value.at.clone(),
                    ..inside
                })
                .collect(),
            added: restored.added.map(|added| Added {
                at: within.embedded.path_of(&added.at),
                ..added
            }),
            shared_with,
        })
    }
}

/// A block of text that contains all values of an image.
struct Within<'a> {
    embedded: Embedded,
    spot: Spot<'a>,
    /// How many steps lead to the block.
    taken: usize,
}

impl<'a> Within<'a> {
    /// The block that the values stand in, if they stand in one.
    fn find(
        text: &'a Text<'_>,
        objects: &[Object<'a>],
        values: &[ValueDifference],
    ) -> Result<Option<Self>, Refusal> {
        let Some(value) = values.first() else {
            return Ok(None);
        };
        let Ok(found) = named(objects, &value.document) else {
            return Ok(None);
        };
        let [object] = found.as_slice() else {
            return Ok(None);
        };
        let steps = steps_of(value)?;
        let Ok(Led::Embedded { spot, left }) = follow(text, object, &steps) else {
            return Ok(None);
        };
        let taken = steps.0.len() - left;
        let path = object.full(&Steps(steps.0[..taken].to_vec()));
        Ok(Some(Self {
            embedded: Embedded::read(text, &spot, &path)?,
            spot,
            taken,
        }))
    }

    /// The rest of a path, in the text.
    fn below(&self, at: &str) -> Result<String, Refusal> {
        let steps = Steps::recorded(at).map_err(|error| Refusal::ImageNotFound(error.message))?;
        let rest = steps.0.get(self.taken..).unwrap_or_default();
        Ok(Steps(rest.to_vec()).to_string())
    }
}

fn steps_of(value: &ValueDifference) -> Result<Steps, Refusal> {
    Steps::recorded(&value.at).map_err(|error| Refusal::ImageNotFound(error.message))
}

fn ambiguous(found: &[Object<'_>], value: &ValueDifference) -> Refusal {
    refuse(
        found.get(1).map_or(1, |object| object.node.line),
        format!("{} is in this file more than once now", value.document),
    )
}

/// Where a recorded value is now.
fn led<'a>(
    text: &'a Text<'_>,
    objects: &[Object<'a>],
    value: &ValueDifference,
) -> Result<(Led<'a>, Steps), Refusal> {
    let steps = steps_of(value)?;
    let mut found = named(objects, &value.document)?;
    if found.len() > 1 {
        return Err(ambiguous(&found, value));
    }
    let object = found.remove(0);
    // Values that were only recorded alongside the changed ones may be shared.
    let led = match value.before == value.after {
        true => follow(text, &object, &steps)?,
        false => follow_written(text, &object, &steps)?,
    };
    Ok((led, steps))
}
