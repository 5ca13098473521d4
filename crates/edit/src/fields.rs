//! What holds the parts of an image: a mapping, or a list of parameters with `name` and `value`, as an Application of
//! Argo CD has them.

use crate::{
    Refusal,
    layout::{Text, refuse},
    naming::is_parameter_value,
    objects::text_at,
    sharing::Spot,
    steps::{Step, Steps},
    yaml::Kind,
};

/// The keys that an item of a list of parameters may have.
const OF_PARAMETER: [&str; 6] = ["name", "value", "string", "forceString", "array", "map"];

#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    pub(crate) spot: Spot<'a>,
    /// From the object.
    pub(crate) steps: Steps,
    pub(crate) is_parameters: bool,
}

impl<'a> Fields<'a> {
    /// The list of parameters that an item belongs to.
    pub(crate) fn parameters(list: Spot<'a>, steps: Steps) -> Self {
        Self {
            spot: list,
            steps,
            is_parameters: true,
        }
    }

    pub(crate) fn mapping(spot: Spot<'a>, steps: Steps) -> Self {
        Self {
            spot,
            steps,
            is_parameters: false,
        }
    }

    /// The value of a key, and the steps to it.
    ///
    /// # Errors
    /// The key stands there twice.
    pub(crate) fn get(&self, text: &'a Text<'_>, key: &str) -> Result<Option<(Spot<'a>, Steps)>, Refusal> {
        if !self.is_parameters {
            let found = self.spot.field(text, key)?;
            return Ok(found.map(|found| (found, self.steps.with(key))));
        }
        let mut found = None;
        for item in self.items(text)? {
            if text_at(item.node, "name") != Some(key) {
                continue;
            }
            if found.is_some() {
                return Err(refuse(
                    item.node.line,
                    format!("the parameter `{key}` appears here a second time"),
                ));
            }
            found = value_of(text, &item)?.map(|(value, word)| {
                let mut steps = self.steps.0.clone();
                steps.push(Step::Item {
                    key: "name".to_owned(),
                    value: key.to_owned(),
                });
                steps.push(Step::Key(word.to_owned()));
                (value, Steps(steps))
            });
        }
        Ok(found)
    }

    /// The keys that are there.
    ///
    /// # Errors
    /// The anchor of an alias is a key's.
    pub(crate) fn keys(&self, text: &'a Text<'_>) -> Result<Vec<&'a str>, Refusal> {
        if !self.is_parameters {
            return self.spot.keys(text);
        }
        let items = self.items(text)?;
        Ok(items
            .into_iter()
            .filter_map(|item| text_at(item.node, "name"))
            .collect())
    }

    pub(crate) fn has(&self, text: &'a Text<'_>, key: &str) -> Result<bool, Refusal> {
        Ok(self.keys(text)?.contains(&key))
    }

    fn items(&self, text: &'a Text<'_>) -> Result<Vec<Spot<'a>>, Refusal> {
        let Kind::Sequence { items, .. } = &self.spot.node.kind else {
            return Ok(Vec::new());
        };
        let mut found = Vec::with_capacity(items.len());
        for index in 0..items.len() {
            found.extend(self.spot.item(text, index)?);
        }
        Ok(found)
    }
}

/// The name of a parameter: an item that has a `name`, a `value` and nothing else of importance.
pub(crate) fn parameter<'a>(text: &'a Text<'_>, item: &Spot<'a>) -> Result<Option<&'a str>, Refusal> {
    let keys = match &item.node.kind {
        Kind::Mapping { .. } => item.keys(text)?,
        _ => return Ok(None),
    };
    let is_parameter =
        keys.iter().all(|key| OF_PARAMETER.contains(key)) && keys.iter().any(|key| is_parameter_value(key));
    Ok(text_at(item.node, "name").filter(|_| is_parameter))
}

/// The value of a parameter, and its key.
fn value_of<'a>(text: &'a Text<'_>, item: &Spot<'a>) -> Result<Option<(Spot<'a>, &'static str)>, Refusal> {
    for word in ["value", "string"] {
        if let Some(value) = item.field(text, word)? {
            return Ok(Some((value, word)));
        }
    }
    Ok(None)
}
