//! Restores values to what one of our changes found.

use crate::{
    Refusal,
    difference::{Difference, RestoreValues, ValueDifference},
    entry::Scalar,
    layout::{Field, Text, refuse},
    naming::reference_of,
    objects::{Object, named, objects},
    steps::{Step, Steps},
    values::{Changes, Led, behind, done, follow, look, scalar, what_is_there},
};

impl RestoreValues {
    pub(crate) fn apply(&self, whole: &str) -> Result<(String, Difference), Refusal> {
        let text = Text::read(whole)?;
        let objects = objects(&text.stream);
        let mut changes = Changes::new(&text);
        let mut values = Vec::with_capacity(self.values.len());
        let mut now = Vec::with_capacity(self.values.len());
        for value in &self.values {
            let Spot { object, led, steps } = match spot(&text, &objects, value) {
                // Nothing to restore, so it does not matter that the value is shared.
                Err(Refusal::Unsafe { .. }) if value.before == value.after => {
                    now.push(value.before.clone());
                    values.push(value.clone());
                    continue;
                }
                spot => spot?,
            };
            let (below, stands) = match &led {
                Led::Node { below, node } => match scalar(&text, node) {
                    Some(scalar) => (below, Some(scalar)),
                    None => {
                        return Err(refuse(
                            node.line,
                            format!("`{}` is not a plain value any more", value.at),
                        ));
                    }
                },
                Led::Missing { below, left: 1, .. } => (below, None),
                Led::Missing { node, .. } => {
                    return Err(Refusal::ImageNotFound(format!(
                        "`{}` of {} is gone; {}",
                        value.at,
                        value.document,
                        what_is_there(node)
                    )));
                }
            };
            let means = |a: &Option<Scalar>, b: &Option<Scalar>| {
                a.as_ref().map(|a| a.value.as_str()) == b.as_ref().map(|b| b.value.as_str())
            };
            if !self.force && !means(&stands, &value.after) && !means(&stands, &value.before) {
                let shown = |scalar: &Option<Scalar>| {
                    scalar
                        .as_ref()
                        .map_or_else(|| "not there".to_owned(), |scalar| format!("{:?}", scalar.value))
                };
                return Err(Refusal::ChangedSince {
                    name: format!("`{}`", value.at),
                    now: shown(&stands),
                    written: shown(&value.after),
                });
            }
            let at: Vec<usize> = object.at.iter().chain(below).copied().collect();
            match (&stands, &value.before) {
                (Some(_), Some(before)) => {
                    changes.set(&at, &Field::Restore(before.clone()))?;
                }
                (Some(_), None) => {
                    if let Some((index, mapping)) = at.split_last() {
                        changes.remove(mapping, *index)?;
                    }
                }
                (None, Some(before)) => {
                    let (Some(Step::Key(key)), Some(mapping)) = (steps.0.last(), text.stream.at(&at)) else {
                        return Err(refuse(
                            1,
                            format!("`{}` is gone, and is not a key that could be added", value.at),
                        ));
                    };
                    let behind = behind(mapping, key);
                    changes.insert(&at, behind, key, &Field::Restore(before.clone()))?;
                }
                (None, None) => {}
            }
            now.push(stands.clone());
            values.push(ValueDifference {
                before: stands,
                after: value.before.clone(),
                ..value.clone()
            });
        }
        let edited = changes.finish()?;
        let before = reference_of(&self.values, &now, &self.image);
        Ok(done(edited, &self.file, values, before, self.image.clone()))
    }
}

struct Spot<'a> {
    object: Object<'a>,
    led: Led<'a>,
    steps: Steps,
}

/// Where a recorded value is now.
fn spot<'a>(
    text: &'a Text<'_>,
    objects: &[Object<'a>],
    value: &ValueDifference,
) -> Result<Spot<'a>, Refusal> {
    let unreadable = |error: crate::InvalidEdit| Refusal::ImageNotFound(error.message);
    let steps = Steps::recorded(&value.at).map_err(unreadable)?;
    let mut found = named(objects, &value.document)?;
    if found.len() > 1 {
        return Err(refuse(
            found[1].node.line,
            format!("{} stands in this file more than once now", value.document),
        ));
    }
    let object = found.remove(0);
    // Values that were only recorded alongside the changed ones may be shared.
    let led = match value.before == value.after {
        true => look(text, &object, &steps)?,
        false => follow(text, &object, &steps)?,
    };
    Ok(Spot { object, led, steps })
}
